"""Which entries a graph's inputs may have.

A walk over the graph follows input entries through movements and arithmetic with known numbers to where they
are used: an entry that picks a row of a table lies within its rows, one that decides a shape or enters an
operator in an unknown way is left as it was given, all others are free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from graphnorm import ir
from graphnorm.ops.rules import Rules
from graphnorm.ops.traits import NONE, Trait
from graphnorm.verification.inputs.entries import BOOLEAN, Entries, Reading
from graphnorm.verification.inputs.entry_rules import COMPARISONS, RULES, Walk, as_entries, read

_MOST_ENTRIES = 1 << 23  # of all inputs that are followed
_LANDMARKS = 256  # per input

# Operators that take any integer, as any operand.
_NUMBERS = frozenset(
    {
        "Identity", "Cast", "CastLike", "Dropout", "Floor", "Ceil", "Round", "Flatten", "Transpose", "Concat",
        "Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Sign", "Relu", "Pow", "Clip", "Min", "Max", "Where",
        "Sum", "Shape", "Size", "ArgMax", "ArgMin", "NonZero", "Unique", "MatMul", "Gemm", "MatMulInteger",
        "ConvInteger", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "DequantizeLinear", "Einsum",
        "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "MaxPool", "Compress",
        *COMPARISONS,
    }
)  # fmt: skip
# Those that take any as these operands; their others say where or how much.
_DATA: Mapping[str, frozenset[int]] = {
    **dict.fromkeys(
        ("Reshape", "Squeeze", "Unsqueeze", "Expand", "Tile", "Slice", "Split", "Gather", "GatherElements",
         "GatherND", "TopK", "CumSum", "Resize", "OneHot", "ReduceSum", "ReduceMax", "ReduceMin",
         "ReduceProd", "ReduceMean"),
        frozenset({0}),
    ),
    **dict.fromkeys(("ScatterElements", "ScatterND", "Pad"), frozenset({0, 2})),
    "Trilu": frozenset({0, 1}),
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A weight whose rows inputs pick.

    Attributes:
        name: of the weight.
        axis: along which it is picked from.
        rows: which row each input entry picks, if the entry is ``(row - shift) / scale``.
    """

    name: str
    axis: int
    rows: Entries


@dataclass(frozen=True)
class Ranges:
    """What the entries of each input may be.

    Attributes:
        low: least, per input and entry; -inf if free.
        high: greatest, likewise.
        held: entries that stay as they were given.
        landmarks: numbers with which the graph compares an input's entries.
        tables: weights whose rows are picked.
        starts: number of each input's first entry; entries that are not followed have none.
    """

    low: tuple[ir.Array, ...]
    high: tuple[ir.Array, ...]
    held: tuple[ir.Array, ...]
    landmarks: tuple[ir.Array, ...]
    tables: tuple[Table, ...]
    starts: tuple[int, ...]


def input_ranges(network: ir.Graph) -> Ranges:
    """Follow the inputs of a network to where they are used."""
    return _Following(network).found()


class _Following:
    def __init__(self, network: ir.Graph) -> None:
        self.network = network
        self.walk = Walk(network)
        shapes = [network.values[name].shape or () for name in network.inputs]
        wanted = _wanted(network)
        sizes = [int(np.prod(s)) if n in wanted else 0 for n, s in zip(network.inputs, shapes, strict=True)]
        if sum(sizes) > _MOST_ENTRIES:
            sizes = [0] * len(sizes)
        self.starts = [0, *accumulate(sizes)]
        self.low = np.full(self.starts[-1], -np.inf)
        self.high = np.full(self.starts[-1], np.inf)
        self.held = np.zeros(self.starts[-1], dtype=bool)
        self.landmarks: list[list[ir.Array]] = [[] for _ in shapes]
        self.tables: list[Table] = []
        self.whole: set[int] = set()  # inputs that are held
        for i, (name, shape) in enumerate(zip(network.inputs, shapes, strict=True)):
            value = network.values[name]
            sources = frozenset() if value.is_float else frozenset({i})
            if value.dtype == "bool":
                self.walk.readings[name] = BOOLEAN
            elif sizes[i]:
                places = np.arange(self.starts[i], self.starts[i + 1]).reshape(shape)
                entries = as_entries(places)
                self.walk.readings[name] = Reading(entries.branches, sources)
            else:
                self.walk.readings[name] = Reading(sources=sources)

    def found(self) -> Ranges:
        for node in self.network.nodes:
            if any(self._followed(name) for name in node.inputs if name):
                self._used(node)
                for name, reading in zip(node.outputs, read(self.walk, node), strict=True):
                    if name:
                        self.walk.readings[name] = reading
        shapes = [self.network.values[name].shape or () for name in self.network.inputs]
        parts = [slice(*ends) for ends in pairwise(self.starts)]

        def per_input(array: ir.Array, default: float) -> tuple[ir.Array, ...]:
            return tuple(
                array[part].reshape(shape) if part.stop > part.start else np.full(shape, default, array.dtype)
                for part, shape in zip(parts, shapes, strict=True)
            )

        held = per_input(self.held, False)
        for i in self.whole:
            held[i][...] = True
        marks = tuple(np.unique(np.concatenate([*m, np.empty(0)]))[:_LANDMARKS] for m in self.landmarks)
        return Ranges(
            per_input(self.low, -np.inf),
            per_input(self.high, np.inf),
            held,
            marks,
            tuple(self.tables),
            tuple(self.starts),
        )

    def _followed(self, name: str) -> bool:
        reading = self.walk.readings.get(name)
        return reading is not None and bool(reading.branches or reading.sources)

    def _used(self, node: ir.Node) -> None:
        self._mark(node)
        limits = dict(_limits(self.walk, node))
        for position, name in enumerate(node.inputs):
            if not name or not self._followed(name):
                continue
            if position in limits:
                self._limit(node, name, *limits[position])
            elif self.network.values[name].dtype in ir.FLOAT_TYPES or _takes_any(node, position):
                continue
            else:
                self._hold(self.walk.readings[name])

    def _limit(self, node: ir.Node, name: str, low: ir.Array, high: ir.Array) -> None:
        """Entries of a value must lie between `low` and `high`."""
        reading = self.walk.readings[name]
        if reading.low >= low.max() and reading.high <= high.min():
            return
        covered: set[int] = set()
        for branch in reading.branches:
            covered |= set(self._inputs_of(branch))
            self._limit_entries(
                branch,
                low if reading.low < low.max() else np.full_like(low, -np.inf),
                high if reading.high > high.min() else np.full_like(high, np.inf),
            )
        if node.op == "Gather" and len(reading.branches) == 1 and node.inputs[0] in self.network.weights:
            axis = int(node.attributes["axis"])
            self.tables.append(Table(node.inputs[0], axis, reading.branches[0]))
        self.whole |= reading.sources - covered

    def _limit_entries(self, branch: Entries, low: ir.Array, high: ir.Array) -> None:
        shape = branch.places.shape
        scale, shift = (np.broadcast_to(array, shape) for array in (branch.scale, branch.shift))
        used = (branch.places >= 0) & (scale != 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            one = (np.broadcast_to(low, shape) - shift) / scale
            two = (np.broadcast_to(high, shape) - shift) / scale
        places = branch.places[used]
        np.maximum.at(self.low, places, np.minimum(one, two)[used])
        np.minimum.at(self.high, places, np.maximum(one, two)[used])

    def _hold(self, reading: Reading) -> None:
        self.whole |= reading.sources
        for branch in reading.branches:
            self.held[branch.places[branch.places >= 0]] = True

    def _mark(self, node: ir.Node) -> None:
        """Remember the numbers that an input's entries are compared with or bounded by."""
        if node.op not in COMPARISONS and node.op not in ("Min", "Max", "Clip", "Mod"):
            return
        numbers = [
            array for name in node.inputs if (array := self.walk.known(name)) is not None and array.size
        ]
        for name in node.inputs:
            for branch in self.walk.readings[name].branches if self._followed(name) else ():
                with np.errstate(divide="ignore", invalid="ignore"):
                    marks = [
                        (np.unique(array)[:_LANDMARKS, None].astype(np.float64) - _few(branch.shift))
                        / _few(branch.scale)
                        for array in numbers
                    ]
                for i in self._inputs_of(branch):
                    self.landmarks[i] += [mark[np.isfinite(mark)] for mark in marks]

    def _inputs_of(self, branch: Entries) -> Iterator[int]:
        places = branch.places[branch.places >= 0]
        if places.size:
            ends = np.searchsorted(self.starts, [places.min(), places.max()], side="right") - 1
            yield from range(int(ends[0]), int(ends[1]) + 1)


def _few(array: ir.Array) -> ir.Array:
    return np.unique(array)[:16]


def _takes_any(node: ir.Node, position: int) -> bool:
    return node.op in _NUMBERS or position in _DATA.get(node.op, frozenset())


def _wanted(network: ir.Graph) -> set[str]:
    """Values whose entries may be used as integers: all integers, and floats that are cast to some."""
    wanted = {name for name in network.inputs if network.values[name].dtype not in ir.FLOAT_TYPES | {"bool"}}
    for node in reversed(network.nodes):
        results = [network.values[name] for name in node.outputs if name in network.values]
        follows = node.op in RULES and node.op not in COMPARISONS
        cast = node.op == "Cast" and results and not results[0].is_float and results[0].dtype != "bool"
        if cast or (follows and any(value.name in wanted for value in results)):
            wanted.update(node.inputs)
    return wanted


Limit = tuple[int, tuple[ir.Array, ir.Array]]


def _limits(walk: Walk, node: ir.Node) -> Iterator[Limit]:
    """(operand, (least, greatest)) of the operands that must lie within a range."""
    data = walk.shape(node.inputs[0]) if node.inputs and node.inputs[0] else None
    rule = LIMITS.get(node.op)
    if rule is None or data is None:
        return
    for operand, low, high in rule(walk, node, data):
        if operand < len(node.inputs) and np.size(high) and np.min(high) >= np.min(low):
            yield operand, (np.asarray(low, np.float64), np.asarray(high, np.float64))


Bound = tuple[int, "int | ir.Array", "int | ir.Array"]
Limits = Callable[[Walk, ir.Node, Sequence[int]], Iterator[Bound]]


def _along(operand: int, attribute: str = "axis") -> Limits:
    """Positions along an axis of operand 0; the last one where no attribute says which."""

    def limits(walk: Walk, node: ir.Node, data: Sequence[int]) -> Iterator[Bound]:
        yield operand, 0, data[int(node.attributes[attribute]) if attribute else -1] - 1

    return limits


def _coordinates(walk: Walk, node: ir.Node, data: Sequence[int]) -> Iterator[Bound]:
    index = walk.shape(node.inputs[1])
    batch = int(node.attributes.get("batch_dims", 0))  # ScatterND has none
    if index is not None:
        yield 1, 0, np.array(data[batch : batch + index[-1]]) - 1


def _classes(walk: Walk, node: ir.Node, data: Sequence[int]) -> Iterator[Bound]:
    depth = walk.argument(node, 1)
    if depth is not None:
        yield 0, 0, int(depth.max()) - 1


def _steps(walk: Walk, node: ir.Node, data: Sequence[int]) -> Iterator[Bound]:
    """Lengths of the sequences of a recurrent layer."""
    yield 4, 1, data[1 if node.attributes["layout"] else 0]


def _reversed_steps(walk: Walk, node: ir.Node, data: Sequence[int]) -> Iterator[Bound]:
    yield 1, 1, data[int(node.attributes["time_axis"])]


def _rows_of(*pairs: tuple[int, int]) -> Limits:
    """(index, table): operands that pick rows of other operands."""

    def limits(walk: Walk, node: ir.Node, data: Sequence[int]) -> Iterator[Bound]:
        for operand, table in pairs:
            rows = walk.shape(node.inputs[table]) if table < len(node.inputs) and node.inputs[table] else None
            if rows:
                yield operand, 0, rows[0] - 1

    return limits


LIMITS: Rules[Limits] = Rules("ranges of operands")
LIMITS.add(_along(1), "Gather", "GatherElements", "ScatterElements")
LIMITS.add(_coordinates, "GatherND", "ScatterND")
LIMITS.add(_classes, "OneHot")
LIMITS.for_trait(Trait.LOSS, lambda walk, node, data: iter([(1, 0, data[1] - 1)]))
LIMITS.add(_reversed_steps, "ReverseSequence")
LIMITS.add(_steps, "LSTM", "GRU", "RNN")
LIMITS.add(_rows_of((3, 1)), "RotaryEmbedding")
LIMITS.add(_along(1, ""), "ai.onnx.ml::ArrayFeatureExtractor")
LIMITS.add(_rows_of((0, 2), (1, 4)), "com.microsoft::EmbedLayerNormalization")
LIMITS.add(_along(1, "gather_axis"), "com.microsoft::GatherBlockQuantized")
LIMITS.add(_rows_of((1, 2)), "com.microsoft::RotaryEmbedding")
LIMITS.explain({
    NONE: "no operand is a position in another, or it is an argument that no input may decide",
    "aten::_ctc_loss": "its classes are counted along another axis than those of ONNX's losses",
})  # fmt: skip
