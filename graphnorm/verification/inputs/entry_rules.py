"""How operators move, bound and combine the input entries that a tensor is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from graphnorm import ir
from graphnorm.ops.rules import Rules
from graphnorm.ops.table import having
from graphnorm.ops.traits import NONE, Trait
from graphnorm.verification.inputs.entries import BOOLEAN, UNKNOWN, Entries, Reading, constant, either, joined

_TRUTH = ("And", "Or", "Xor", "Not")
COMPARISONS = having(Trait.COMPARES).union(_TRUTH)
_SMALL_TABLE = 1 << 20  # entries of integer constants whose extrema are looked up


@dataclass
class Walk:
    """What is known of a graph's values so far."""

    network: ir.Graph
    readings: dict[str, Reading] = field(default_factory=dict)

    def reading(self, name: str) -> Reading:
        """What is known of a value; of a known one everything."""
        if name not in self.readings:
            array = self.known(name)
            self.readings[name] = UNKNOWN if array is None else constant(array)
        return self.readings[name]

    def known(self, name: str) -> ir.Array | None:
        """A constant number or table that may enter arithmetic on integers."""
        array = self.network.constants.get(name)
        if array is None or array.dtype.kind not in "biuf" or array.size > _SMALL_TABLE:
            return None
        return array

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Example shape of a value."""
        return self.network.values[name].shape if name in self.network.values else None

    def argument(self, node: ir.Node, index: int, attribute: str = "") -> ir.Array | None:
        """An operand that says where or how much, known; older opsets write it as an attribute."""
        if attribute and attribute in node.attributes:
            return np.asarray(node.attributes[attribute])
        name = node.inputs[index] if index < len(node.inputs) else ""
        return self.network.constants.get(name)


Rule = Callable[[Walk, ir.Node], "Sequence[Reading]"]


def read(walk: Walk, node: ir.Node) -> Sequence[Reading]:
    """Readings of a node's results."""
    rule = RULES.get(node.op)
    if rule is None:
        return [UNKNOWN] * len(node.outputs)
    try:
        found = rule(walk, node)
    except (ValueError, IndexError, KeyError):  # shapes or attributes that do not fit: NumPy says so
        return _mixed(walk, node)
    return [
        reading
        if all(b.places.shape == walk.shape(name) for b in reading.branches)
        else replace(reading, branches=())
        for name, reading in zip(node.outputs, found, strict=True)
    ]


def _mixed(walk: Walk, node: ir.Node) -> list[Reading]:
    """Results that depend on integers in another way: only which inputs decide them is known."""
    sources = frozenset[int]().union(*(walk.reading(name).sources for name in node.inputs if name))
    return [Reading(sources=sources)] * len(node.outputs)


def _moved(find: Callable[[Walk, ir.Node], Callable[[ir.Array], ir.Array] | None]) -> Rule:
    def rule(walk: Walk, node: ir.Node) -> list[Reading]:
        given = walk.reading(node.inputs[0])
        move = find(walk, node) if given.branches else None
        return [replace(given, branches=()) if move is None else given.mapped(move)] * len(node.outputs)

    return rule


def _reshape(walk: Walk, node: ir.Node) -> Callable[[ir.Array], ir.Array] | None:
    shape = walk.shape(node.outputs[0])
    return None if shape is None else lambda array: np.broadcast_to(array, array.shape).reshape(shape)


def _expand(walk: Walk, node: ir.Node) -> Callable[[ir.Array], ir.Array] | None:
    shape = walk.shape(node.outputs[0])
    return None if shape is None else lambda array: np.broadcast_to(array, shape)


def _transpose(walk: Walk, node: ir.Node) -> Callable[[ir.Array], ir.Array]:
    perm = node.attributes.get("perm")
    return lambda array: array.transpose(None if perm is None else [int(axis) for axis in perm])


def _tile(walk: Walk, node: ir.Node) -> Callable[[ir.Array], ir.Array] | None:
    repeats = walk.argument(node, 1)
    return None if repeats is None else lambda array: np.tile(array, repeats.tolist())


def _slice(walk: Walk, node: ir.Node) -> Callable[[ir.Array], ir.Array] | None:
    starts, ends = walk.argument(node, 1, "starts"), walk.argument(node, 2, "ends")
    axes, steps = walk.argument(node, 3, "axes"), walk.argument(node, 4)
    if starts is None or ends is None:
        return None

    def move(array: ir.Array) -> ir.Array:
        region = [slice(None)] * array.ndim
        for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            axis = i if axes is None else int(axes[i])
            step = 1 if steps is None else int(steps[i])
            region[axis] = slice(start, None if step < 0 and end < -array.shape[axis] else end, step)
        return array[tuple(region)]

    return move


def _split(walk: Walk, node: ir.Node) -> list[Reading]:
    given = walk.reading(node.inputs[0])
    axis, found, start = int(node.attributes["axis"]), [], 0
    for name in node.outputs:
        shape = walk.shape(name)
        if shape is None or not given.branches:
            return [replace(given, branches=())] * len(node.outputs)
        place = range(start, start + shape[axis])
        found.append(given.mapped(lambda array, place=place: array.take(place, axis)))  # type: ignore[misc]
        start = place.stop
    return found


def _concat(walk: Walk, node: ir.Node) -> list[Reading]:
    return [joined([walk.reading(name) for name in node.inputs], int(node.attributes["axis"]))]


def _gather(walk: Walk, node: ir.Node) -> list[Reading]:
    """Entries at known places; of a known table of integers the range; else nothing is known."""
    given, index = walk.reading(node.inputs[0]), walk.known(node.inputs[1])
    axis = int(node.attributes["axis"])
    moves = node.inputs[0] not in walk.network.constants and index is not None
    if moves and given.branches and index is not None and index.dtype.kind in "iu":
        return [given.mapped(lambda array: array.take(index.astype(np.int64), axis))]
    return [Reading(sources=given.sources, low=given.low, high=given.high)]


def _elements(walk: Walk, node: ir.Node) -> list[Reading]:
    """Entries of operand 0 at other places, and of those written there."""
    given = either([walk.reading(node.inputs[0]), walk.reading(node.inputs[-1])])
    return [replace(given, branches=())] * len(node.outputs)


def _picked(walk: Walk, node: ir.Node) -> list[Reading]:
    """Some entries of operand 0."""
    return [replace(walk.reading(node.inputs[0]), branches=())] * len(node.outputs)


def _sum(sign: float) -> Rule:
    def rule(walk: Walk, node: ir.Node) -> list[Reading]:
        one, two = (walk.reading(name) for name in node.inputs)
        first, second = (walk.known(name) for name in node.inputs)
        if second is not None:
            return [one.affine(np.ones(()), sign * second.astype(np.float64))]
        if first is not None:
            return [two.affine(np.full((), sign), first.astype(np.float64))]
        other = two.affine(np.full((), sign), np.zeros(()))
        return [
            replace(mixed, low=one.low + other.low, high=one.high + other.high)
            for mixed in _mixed(walk, node)
        ]

    return rule


def _product(walk: Walk, node: ir.Node) -> list[Reading]:
    one, two = (walk.reading(name) for name in node.inputs)
    first, second = (walk.known(name) for name in node.inputs)
    if second is not None:
        return [one.affine(second.astype(np.float64), np.zeros(()))]
    if first is not None:
        return [two.affine(first.astype(np.float64), np.zeros(()))]
    if (one.low, one.high) == (0, 1) or (two.low, two.high) == (0, 1):  # a mask
        other = two if (one.low, one.high) == (0, 1) else one
        return [
            replace(mixed, low=min(other.low, 0), high=max(other.high, 0)) for mixed in _mixed(walk, node)
        ]
    return _mixed(walk, node)


def _quotient(walk: Walk, node: ir.Node) -> list[Reading]:
    divisor = walk.known(node.inputs[1])
    if divisor is None or not divisor.all():
        return _mixed(walk, node)
    return [walk.reading(node.inputs[0]).affine(1 / divisor.astype(np.float64), np.zeros(()))]


def _remainder(walk: Walk, node: ir.Node) -> list[Reading]:
    """Between 0 and the divisor; with the sign of the dividend if `fmod` is set."""
    given, divisor = walk.reading(node.inputs[0]), walk.known(node.inputs[1])
    if divisor is None or not divisor.size or divisor.min() <= 0:
        return _mixed(walk, node)
    reach = float(divisor.max()) - (1 if divisor.dtype.kind in "iu" else 0)
    low = -reach if node.attributes["fmod"] and given.low < 0 else 0.0
    return [Reading(sources=given.sources, low=low, high=reach)]


def _clip(walk: Walk, node: ir.Node) -> list[Reading]:
    low, high = walk.argument(node, 1, "min"), walk.argument(node, 2, "max")
    return [
        walk.reading(node.inputs[0]).clipped(
            -np.inf if low is None else float(low.min()), np.inf if high is None else float(high.max())
        )
    ]


def _extreme(least: bool) -> Rule:
    """Min bounds from above, Max from below."""

    def rule(walk: Walk, node: ir.Node) -> list[Reading]:
        limits = [array for name in node.inputs if (array := walk.known(name)) is not None]
        open_ = [name for name in node.inputs if walk.known(name) is None]
        if len(open_) != 1 or not limits:
            return _mixed(walk, node)
        given = walk.reading(open_[0])
        shape = np.broadcast_shapes(*(limit.shape for limit in limits))
        given = given.affine(np.ones(shape), np.zeros(()))
        if least:
            return [given.clipped(-np.inf, min(float(limit.max()) for limit in limits))]
        return [given.clipped(max(float(limit.min()) for limit in limits), np.inf)]

    return rule


def _relu(walk: Walk, node: ir.Node) -> list[Reading]:
    return [walk.reading(node.inputs[0]).clipped(0, np.inf)]


def _negated(walk: Walk, node: ir.Node) -> list[Reading]:
    return [walk.reading(node.inputs[0]).affine(np.full((), -1.0), np.zeros(()))]


def _where(walk: Walk, node: ir.Node) -> list[Reading]:
    shape = walk.shape(node.outputs[0])
    if shape is None:
        return _mixed(walk, node)
    spread = [
        walk.reading(name).mapped(lambda array: np.broadcast_to(array, shape)) for name in node.inputs[1:]
    ]
    return [either(spread)]


def _place(axis: Callable[[ir.Node, int], int]) -> Rule:
    """Positions along an axis: right by construction."""

    def rule(walk: Walk, node: ir.Node) -> list[Reading]:
        shape = walk.shape(node.inputs[0])
        found = UNKNOWN if shape is None else Reading(low=0, high=max(shape[axis(node, len(shape))] - 1, 0))
        return [found] * len(node.outputs)

    return rule


def _axis(node: ir.Node, rank: int) -> int:
    return int(node.attributes["axis"])


def _top(walk: Walk, node: ir.Node) -> list[Reading]:
    return [_picked(walk, node)[0], *_place(_axis)(walk, node)][: len(node.outputs)]


def _same(walk: Walk, node: ir.Node) -> list[Reading]:
    if walk.network.values[node.outputs[0]].dtype == "bool":  # cast
        return [BOOLEAN] * len(node.outputs)
    return [walk.reading(node.inputs[0]), *[BOOLEAN] * (len(node.outputs) - 1)]


def _boolean(walk: Walk, node: ir.Node) -> list[Reading]:
    return [BOOLEAN] * len(node.outputs)


RULES: Rules[Rule] = Rules("input entries")
RULES.for_trait(Trait.COMPARES, _boolean)
RULES.add(_boolean, *_TRUTH)
RULES.for_trait(Trait.COPIES, _same)
RULES.add(_same, "Floor", "Ceil", "Round")
RULES.add(_moved(_reshape), "Reshape", "Squeeze", "Unsqueeze", "Flatten")
RULES.add(_moved(_expand), "Expand")
RULES.add(_moved(_transpose), "Transpose")
RULES.add(_moved(_tile), "Tile")
RULES.add(_moved(_slice), "Slice")
RULES.add(_split, "Split")
RULES.add(_concat, "Concat")
RULES.add(_gather, "Gather")
RULES.add(_picked, "GatherElements", "GatherND", "Compress", "Unique", "ReduceMax", "ReduceMin", "MaxPool")
RULES.add(_elements, "ScatterElements", "ScatterND")
RULES.add(_sum(1.0), "Add")
RULES.add(_sum(-1.0), "Sub")
RULES.add(_product, "Mul")
RULES.add(_quotient, "Div")
RULES.add(_remainder, "Mod")
RULES.add(_negated, "Neg")
RULES.add(_relu, "Relu")
RULES.add(_clip, "Clip")
RULES.add(_extreme(True), "Min")
RULES.add(_extreme(False), "Max")
RULES.add(_where, "Where")
RULES.add(_place(_axis), "ArgMax", "ArgMin")
RULES.add(_top, "TopK")
RULES.add(
    _mixed, "Abs", "Sign", "Pow", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "CumSum",
    "ReduceSum", "ReduceProd", "Sum", "Trilu", "Pad", "Sqrt", "Exp", "Log", "Sigmoid", "Tanh",
)  # fmt: skip
RULES.explain({NONE: "results are taken for unknown: integers that come out of it are not followed"})


def as_entries(places: ir.Array) -> Reading:
    """An input whose entries have these numbers."""
    return Reading((Entries(places, np.ones(()), np.zeros(())),))
