"""Movement of entries: views, and slices with all their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import ml_dtypes
import numpy as np

from graphnorm import ir
from graphnorm.alignment.builder import Builder
from graphnorm.alignment.leaves import Leaf
from graphnorm.alignment.lowering import lowers
from graphnorm.alignment.terms import Data, Known, Term
from graphnorm.util.typing import Shape

Operands = Sequence[Term | None]
Results = Sequence[ir.Value]
_FILLED = 1 << 22  # entries that a repeated constant is written out to


@lowers("Identity")
def identity(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    return [operands[0]] if operands[0] is not None else None


@lowers("Dropout")
def dropout(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """In evaluation mode it does nothing."""
    training = operands[2] if len(operands) > 2 else None
    off = training is None or (isinstance(training, Known) and not training.array.any())
    return [operands[0]] if off and len(results) == 1 and operands[0] is not None else None


@lowers("Cast", "CastLike")
def cast(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """A cast to the type that is there already; of weights, to a finer one, or carried out."""
    first, to = operands[0], results[0].dtype
    if first is None or b.dtype(first) == to:
        return None if first is None else [first]
    if not isinstance(first, Leaf) or to not in ir.FLOAT_TYPES or b.dtype(first) not in ir.FLOAT_TYPES:
        return None
    target = np.dtype(getattr(ml_dtypes, to, to))
    if (first.value.astype(target).astype(np.float64) == first.exact()).all() and first.direct:
        return [first]  # nothing is lost
    if not first.direct:
        return None
    return [replace(first, value=first.value.astype(target), eps=ir.float_format(target).eps)]


@lowers("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    shape = results[0].shape
    return [b.reshape(operands[0], shape)] if operands[0] is not None and shape is not None else None


@lowers("Transpose")
def transpose(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    first = operands[0]
    assert first is not None
    perm = node.attributes.get("perm") or tuple(reversed(range(len(first.shape))))
    return [b.transpose(first, [int(axis) for axis in perm])]


@lowers("Expand")
def expand(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    first, shape = operands[0], results[0].shape
    assert first is not None
    assert shape is not None
    if int(np.prod(shape)) == int(np.prod(first.shape)) and not results[0].dynamic:
        return [b.reshape(first, shape)]
    if isinstance(first, Data):
        lead = (1,) * (len(shape) - len(first.shape))
        full = b.reshape(first, (*lead, *first.shape))
        return [b.node("Expand", [full], shape, first.dtype, {"shape": shape}, results[0].dynamic)]
    if isinstance(first, Leaf) and not results[0].dynamic:
        return [first.moved(lambda array: np.broadcast_to(array, shape))]
    if isinstance(first, Known) and not results[0].dynamic and int(np.prod(shape)) <= _FILLED:
        return [Known(np.broadcast_to(first.array, shape))]
    return None


@lowers("Slice")
def slice_(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    given = (*operands, None, None, None, None)[:5]
    arrays = []
    for name, term in zip(("starts", "ends", "axes", "steps"), given[1:], strict=True):
        if isinstance(term, Data | Leaf) or (isinstance(term, Known) and term.dynamic):
            return None
        arrays.append(np.asarray(node.attributes[name]) if name in node.attributes else _array(term))
    starts, ends, axes, steps = arrays
    first = given[0]
    if first is None or starts is None or ends is None:
        return None
    rank = len(first.shape)
    region = [slice(0, size, 1) for size in first.shape]
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = i if axes is None else int(axes[i]) % rank
        step = 1 if steps is None else int(steps[i])
        stop = None if step < 0 and end < -first.shape[axis] else end
        low, high, step = slice(start, stop, step).indices(first.shape[axis])
        region[axis] = slice(low, max(high, low) if step > 0 else high, step)
    return [cut(b, first, region)]


def _array(term: Term | None) -> ir.Array | None:
    return term.array if isinstance(term, Known) else None


def cut(b: Builder, term: Term, region: Sequence[slice]) -> Term:
    """Basic slicing."""
    where = tuple(slice(p.start, None if p.stop < 0 else p.stop, p.step) for p in region)
    if isinstance(term, Leaf):
        return term.moved(lambda array: array[where])
    if isinstance(term, Known):
        return Known(term.array[where], term.dynamic, term.source)
    axes = [i for i, p in enumerate(region) if (p.start, p.stop, p.step) != (0, term.shape[i], 1)]
    if not axes:
        return term
    if len(axes) == 1 and region[axes[0]].step == 1:
        early = b.cut(term, axes[0], region[axes[0]].start, region[axes[0]].stop)
        if early is not None:
            return early
    shape: Shape = tuple(len(range(p.start, p.stop, p.step)) for p in region)
    attributes = {
        "starts": tuple(region[axis].start for axis in axes),
        "ends": tuple(region[axis].stop if region[axis].stop >= 0 else -(2**31) for axis in axes),
        "axes": tuple(axes),
        "steps": tuple(region[axis].step for axis in axes),
    }
    bare = term.times(1 / term.factor)
    result = b.node("Slice", [bare], shape, term.dtype, attributes, term.dynamic)
    return result.times(term.factor)


@lowers("Split")
def split(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    first = operands[0]
    sizes = operands[1] if len(operands) > 1 else None
    if first is None or isinstance(sizes, Data) or (isinstance(sizes, Known) and sizes.dynamic):
        return None
    if len(results) != len(node.outputs):
        return None
    axis = int(node.attributes["axis"]) % len(first.shape)
    parts: list[Term] = []
    start = 0
    for value in results:
        assert value.shape is not None
        region = [slice(0, size, 1) for size in first.shape]
        region[axis] = slice(start, start + value.shape[axis], 1)
        start += value.shape[axis]
        parts.append(cut(b, first, region))
    return parts


@lowers("Gather")
def gather(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """One index is a slice, whose axis is then dropped."""
    first, index = operands
    shape = results[0].shape
    if first is None or shape is None or not isinstance(index, Known) or index.dynamic:
        return None
    axis = int(node.attributes["axis"]) % len(first.shape)
    size = first.shape[axis]
    chosen = index.array.astype(np.int64)
    if chosen.size == 1:
        at = int(chosen.reshape(-1)[0]) % size
        region = [slice(0, n, 1) for n in first.shape]
        region[axis] = slice(at, at + 1, 1)
        return [b.reshape(cut(b, first, region), shape)]
    if isinstance(first, Leaf):
        return [first.moved(lambda array: np.take(array, chosen, axis))]
    return None


@lowers("Concat")
def concat(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    parts = [term for term in operands if term is not None]
    axis = int(node.attributes["axis"]) % len(parts[0].shape)
    if len(parts) == 1:
        return [parts[0]]
    if all(isinstance(part, Leaf) for part in parts):
        held = [part for part in parts if isinstance(part, Leaf)]
        whole = np.concatenate([part.exact() for part in held], axis)
        size = np.concatenate([part.size() for part in held], axis)
        names = tuple(dict.fromkeys(name for part in held for name in part.sources))
        return [Leaf(whole, size, max(part.eps for part in held), names)]
    factors = {part.factor for part in parts if isinstance(part, Data)}
    common = factors.pop() if len(factors) == 1 and all(isinstance(p, Data) for p in parts) else 1.0
    bare = [part.times(1 / common) if isinstance(part, Data) else part for part in parts]
    value = results[0]
    found = b.node("Concat", bare, value.shape, value.dtype, {"axis": axis}, value.dynamic)
    return [found.times(common)]


@lowers("Pad")
def pad(b: Builder, node: ir.Node, operands: Operands, results: Results) -> list[Term] | None:
    """All axes written out; padding by nothing is left out."""
    given = (*operands, None, None, None)[:4]
    first, amounts, fill, axes = given
    pads = np.asarray(node.attributes["pads"]) if "pads" in node.attributes else _array(amounts)
    if not isinstance(first, Data) or pads is None or isinstance(fill, Data | Leaf):
        return None
    if any(isinstance(term, Known) and term.dynamic for term in (amounts, axes)):
        return None
    rank = len(first.shape)
    over = [int(a) % rank for a in axes.array] if isinstance(axes, Known) else list(range(rank))
    full = [0] * (2 * rank)
    for i, axis in enumerate(over):
        full[axis], full[axis + rank] = int(pads[i]), int(pads[i + len(over)])
    if not any(full):
        return [first]
    number = float(fill.array.reshape(-1)[0]) if isinstance(fill, Known) else 0.0
    number = float(node.attributes.get("value", number))
    attributes = {"pads": tuple(full), "mode": node.text("mode"), "value": number}
    bare = first.times(1 / first.factor) if number == 0.0 else first
    found = b.node("Pad", [bare], results[0].shape, first.dtype, attributes, results[0].dynamic)
    return [found.times(first.factor) if number == 0.0 else found]
