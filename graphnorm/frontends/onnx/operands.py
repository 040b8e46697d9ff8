"""Operands whose shapes do not fit each other: ONNX's shape inference accepts them, runtimes refuse them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from graphnorm.frontends.onnx.steps import Step
from graphnorm.util.typing import Shape

Shapes = Sequence[Shape | None]  # of the operands; None: absent or not known

_LISTS = {"Slice": (1, 2, 3, 4), "Tile": (1,), "Expand": (1,)}
_NUMBERS = {"CumSum": 1, "CumProd": 1}  # where the one number is
_BIASED = frozenset({"Conv", "ConvTranspose"})
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_EQUAL_RANKS = {"GatherElements": 2, "ScatterElements": 3, "Scatter": 3}  # of so many operands


def operand_fault(step: Step, shape: Callable[[str], Shape | None]) -> str:
    """What is wrong with the operands of a node; empty if nothing is known to be."""
    if not step.is_standard:
        return ""
    op, attributes = step.node.op_type, step.node.attributes
    shapes = [shape(name) if name else None for name in step.operands]
    if op in _LISTS:
        return _list_fault(op, [shapes[i] if i < len(shapes) else None for i in _LISTS[op]])
    if op == "Pad":
        return _pad_fault(shapes)
    if op in _NUMBERS:
        axis = (*shapes, None, None)[1]
        return (
            "" if axis is None or math.prod(axis) == 1 else f"the axis must be one number, got shape {axis}"
        )
    if op in _EQUAL_RANKS:
        return _rank_fault(shapes[: _EQUAL_RANKS[op]], attributes.get_int("axis", 0))
    if op == "Transpose":
        return _permutation_fault(shapes[0], attributes.get_ints("perm", None))
    if op == "GatherND":
        batch = attributes.get_int("batch_dims", 0)
        data, indices = shapes[:2]
        most = min((len(found) for found in (data, indices) if found is not None), default=batch + 1)
        if not 0 <= batch < most:  # ONNX's shape inference reads beyond its lists
            return f"batch_dims must be from 0 to {most - 1}, got {batch}"
        leads = (None if found is None else found[:batch] for found in (data, indices))
        return _differ("samples of the indices", *reversed([*leads]))
    if op == "ScatterND":
        return _scatter_fault(shapes)
    if op in _GATES:
        return _recurrent_fault(
            op, shapes, attributes.get_int("hidden_size", 0), attributes.get_int("layout", 0)
        )
    if op in _BIASED:
        return _bias_fault(op, shapes, attributes.get_int("group", 1))
    if op == "ReverseSequence":
        axes = {attributes.get_int("time_axis", 0), attributes.get_int("batch_axis", 1)}
        return "" if axes == {0, 1} else f"time and batch axis must be 0 and 1, got {sorted(axes)}"
    if op == "Attention":
        heads = (attributes.get_int(f"{kind}_num_heads", 0) for kind in ("q", "kv"))
        return _attention_fault(shapes, *heads)
    if op in ("DepthToSpace", "SpaceToDepth"):
        return _block_fault(op, shapes[0], attributes.get_int("blocksize", 1))
    if op in ("GroupNormalization", "InstanceNormalization"):
        return _norm_fault(shapes, attributes.get_int("num_groups", 1))
    if op in ("Sum", "Mean", "Max", "Min") and not all(step.operands):
        return "an operand has no name"
    return ""


def _list_fault(op: str, shapes: Shapes) -> str:
    known = [found for found in shapes if found is not None]
    if any(len(found) != 1 for found in known):
        return f"arguments must be lists, got shapes {', '.join(map(str, known))}"
    if op == "Slice" and len({*known}) > 1:
        return f"starts, ends, axes and steps must be of one length, got {', '.join(map(str, known))}"
    return ""


def _pad_fault(shapes: Shapes) -> str:
    data, pads, _, axes = (*shapes, None, None, None)[:4]
    count = len(data) if axes is None and data is not None else None if axes is None else math.prod(axes)
    if pads is None or count is None or math.prod(pads) == 2 * count:
        return ""
    return f"{math.prod(pads)} pads for {count} axes, expected {2 * count}"


def _permutation_fault(shape: Shape | None, perm: Sequence[int] | None) -> str:
    if shape is None or perm is None or sorted(perm) == list(range(len(shape))):
        return ""
    return f"perm {tuple(perm)} does not order the {len(shape)} axes"


def _rank_fault(shapes: Shapes, axis: int) -> str:
    known = [found for found in shapes if found is not None]
    if len({len(found) for found in known}) > 1:
        return f"operands must have as many axes as each other, got {', '.join(map(str, known))}"
    if len(known) == len(shapes) > 0:
        data, indices = known[:2]
        others = [i for i in range(len(data)) if i != axis % len(data)]
        if any(indices[i] > data[i] for i in others):
            return f"indices of shape {indices} reach beyond {data}"
    return _differ("indices and updates", *shapes[1:]) if len(shapes) == 3 else ""


def _scatter_fault(shapes: Shapes) -> str:
    data, indices, updates = (*shapes, None, None, None)[:3]
    if data is None or indices is None or updates is None:
        return ""
    if not indices or indices[-1] > len(data):
        return f"indices of shape {indices} do not point into {data}"
    return _differ("updates", updates, (*indices[:-1], *data[indices[-1] :]))


def _recurrent_fault(op: str, shapes: Shapes, hidden: int, layout: int) -> str:
    data, weight, recurrent, bias, _, initial = (*shapes, *[None] * 6)[:6]
    if data is None or weight is None or recurrent is None:
        return ""
    if {len(data), len(weight), len(recurrent)} != {3}:
        return f"X, W and R must have 3 axes, got {data}, {weight}, {recurrent}"
    units, gates = hidden or recurrent[2], _GATES[op]
    directions = weight[0]
    start = (data[0], directions, units) if layout else (directions, data[1], units)
    return (
        _differ("W", weight, (directions, gates * units, data[2]))
        or _differ("R", recurrent, (directions, gates * units, units))
        or _differ("B", bias, (directions, 2 * gates * units))
        or _differ("initial_h", initial, start)
    )


def _bias_fault(op: str, shapes: Shapes, group: int) -> str:
    _, kernel, bias = (*shapes, None, None)[:3]
    if kernel is None or len(kernel) < 2:
        return ""
    channels = kernel[1] * group if op == "ConvTranspose" else kernel[0]
    if bias is None or math.prod(bias) == channels:  # runtimes look at the number of entries only
        return ""
    return f"bias of shape {bias} for {channels} channels"


def _attention_fault(shapes: Shapes, query_heads: int, heads: int) -> str:
    query, key, value = (*shapes, None, None)[:3]
    if query is None or key is None or value is None:
        return ""
    if len({len(query), len(key), len(value)}) > 1:
        return f"Q, K and V must have as many axes as each other, got {query}, {key}, {value}"
    if len(query) == 3:
        counts = query_heads, heads, heads
        wrong = [(n, x) for n, x in zip(counts, (query, key, value), strict=True) if n < 1 or x[2] % n]
        if wrong:
            return f"{wrong[0][0]} heads do not divide {wrong[0][1]}"
        return _differ("a head of K", (key[2] // heads,), (query[2] // query_heads,))
    if len(query) != 4:
        return ""
    if query[0] != key[0] or query[3] != key[3] or key[:3] != value[:3]:
        return f"Q, K and V of shapes {query}, {key}, {value} do not fit"
    return "" if key[1] and query[1] % key[1] == 0 else f"{query[1]} heads cannot share {key[1]}"


def _block_fault(op: str, shape: Shape | None, size: int) -> str:
    if shape is None or len(shape) != 4:
        return ""
    if size < 1:
        return f"blocksize must be positive, got {size}"
    if op == "DepthToSpace" and shape[1] % size**2:
        return f"{shape[1]} channels are not blocks of {size} x {size}"
    if op == "SpaceToDepth" and (shape[2] % size or shape[3] % size):
        return f"an image of {shape[2]} x {shape[3]} has no blocks of {size} x {size}"
    return ""


def _norm_fault(shapes: Shapes, groups: int) -> str:
    data = shapes[0]
    if groups < 1:
        return f"num_groups must be positive, got {groups}"
    if data is None:
        return ""
    if len(data) < 2:
        return f"expected a batch of channels, got {data}"
    if data[1] % groups:
        return f"{data[1]} channels are no {groups} groups"
    allowed = {(data[1],), (groups,)} if groups > 1 else {(data[1],), (1,)}
    wrong = [found for found in shapes[1:] if found is not None and found not in allowed]
    return f"gain or bias of shape {wrong[0]} for {data[1]} channels" if wrong else ""


def _differ(what: str, found: Shape | None, expected: Shape | None) -> str:
    if found is None or expected is None:
        return ""
    return "" if found == expected else f"{what} of shape {found}, expected {expected}"
