"""Two normal forms walked together from their outputs: which values, weights and constants correspond."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphnorm import ir
from graphnorm.ops.table import having
from graphnorm.ops.traits import Trait

COMMUTATIVE = having(Trait.COMMUTATIVE)
# Operator -> operands that only say which entries, axes or sizes: there the integer type is only storage.
# Everywhere else it is arithmetic, including overflow.
_PLACES: dict[str, frozenset[int]] = {
    "ConstantOfShape": frozenset({0}),
    "CumSum": frozenset({1}),
    "Expand": frozenset({1}),
    "Gather": frozenset({1}),
    "GatherElements": frozenset({1}),
    "GatherND": frozenset({1}),
    "OneHot": frozenset({0, 1}),
    "Pad": frozenset({1, 3}),
    "ReduceMax": frozenset({1}),
    "ReduceMean": frozenset({1}),
    "ReduceMin": frozenset({1}),
    "ReduceSum": frozenset({1}),
    "Reshape": frozenset({1}),
    "ScatterElements": frozenset({1}),
    "ScatterND": frozenset({1}),
    "Slice": frozenset({1, 2, 3, 4}),
    "Split": frozenset({1}),
    "Squeeze": frozenset({1}),
    "Tile": frozenset({1}),
    "TopK": frozenset({1}),
    "Trilu": frozenset({1}),
    "Unsqueeze": frozenset({1}),
}
# Relative distance of equal numbers of a program, which may be computed from others.
_CLOSE, _CLOSE_DOUBLE = 1e-6, 1e-14


@dataclass(frozen=True)
class Matching:
    """Values of one network and their counterparts.

    Attributes:
        values: value of A -> value of B, weights and constants included; where the graphs differ, those
            above a node of which only the arguments differ, too.
        failure: where the walk stopped; empty if all outputs match.
        nodes: number of nodes that were matched.
        defects: of the normal forms, where those were matched.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""
    nodes: int = 0
    defects: tuple[str, ...] = ()


def match(a: ir.Graph, b: ir.Graph, double: bool = False) -> Matching:
    """Walk both graphs from their outputs backwards; `double`: something is computed in float64."""
    walk = _Walk(a, b, _CLOSE_DOUBLE if double else _CLOSE)
    if len(a.outputs) != len(b.outputs):
        return Matching({}, f"the networks have {len(a.outputs)} and {len(b.outputs)} outputs")
    for one, two in zip(a.outputs, b.outputs, strict=True):
        if one not in a.values or two not in b.values:  # folded into a layer, too
            return Matching({}, f"output {one!r} is a weight")
        kinds = a.values[one].dtype, b.values[two].dtype
        if kinds[0] != kinds[1]:
            return Matching({}, f"output {one!r} is {kinds[0]} in A and {kinds[1]} in B")
    walk.stack = list(zip(a.outputs, b.outputs, strict=True))[::-1]
    failure, nodes = "", 0
    while walk.stack:
        found = walk.step(*walk.stack.pop())
        if found and not failure:  # pairs from here on are only for comparing hidden values
            failure, nodes = found, walk.nodes
    return Matching(walk.forward, failure, nodes if failure else walk.nodes)


class _Walk:
    def __init__(self, a: ir.Graph, b: ir.Graph, close: float) -> None:
        self.close = close
        self.graphs = a, b
        self.makers = a.producers(), b.producers()
        self.signatures = signatures(a), signatures(b)
        self.forward: dict[str, str] = {"": ""}
        self.backward: dict[str, str] = {"": ""}
        self.stack: list[tuple[str, str]] = []
        self.nodes = 0

    def step(self, one: str, two: str) -> str:
        """Pair two values; returns why they cannot be."""
        if one in self.forward or two in self.backward:
            same = self.forward.get(one) == two and self.backward.get(two) == one
            return "" if same else f"{self._name(one)} is wired differently"
        a, b = self.graphs
        self.forward[one], self.backward[two] = two, one
        if one in a.inputs or two in b.inputs:
            same = one in a.inputs and two in b.inputs and a.inputs.index(one) == b.inputs.index(two)
            return "" if same else f"{self._name(one)} is wired differently"
        first, second = self.makers[0].get(one), self.makers[1].get(two)
        if first is None or second is None:
            return self._held(one, two)
        return self._nodes(first, second)

    def _nodes(self, first: ir.Node, second: ir.Node) -> str:
        where, other = f"{first.op} {first.label}", f"{second.op} {second.label}"
        if first.op != second.op:
            return f"{where} stands against {other}"
        different = different_attribute(first.attributes, second.attributes, self.close)
        if different:
            if len(first.inputs) == len(second.inputs):
                self.stack += list(zip(first.inputs, self._order(first, second), strict=True))[::-1]
            return f"{where} and {other} differ in their {different}"
        if len(first.inputs) != len(second.inputs) or len(first.outputs) != len(second.outputs):
            return f"{where} and {other} have different operands"
        self.nodes += 1
        results = [
            [(g.values[name].dtype, g.values[name].shape) for name in node.outputs if name]
            for g, node in zip(self.graphs, (first, second), strict=True)
        ]
        if results[0] != results[1]:
            return f"{where} computes {_types(results[0])}, {other} {_types(results[1])}"
        for pair in zip(first.outputs, second.outputs, strict=True):
            if self.forward.setdefault(pair[0], pair[1]) != pair[1]:
                return f"{where} is wired differently"
            if self.backward.setdefault(pair[1], pair[0]) != pair[0]:
                return f"{where} is wired differently"
        pairs = list(zip(first.inputs, self._order(first, second), strict=True))
        for index, pair in enumerate(pairs):
            if index not in _PLACES.get(first.op, ()) and self._integers_differ(*pair):
                return f"{where} and {other} compute in different integer types"
        self.stack += pairs[::-1]
        return ""

    def _integers_differ(self, one: str, two: str) -> bool:
        """Whether two constants of equal numbers may compute in another arithmetic."""
        held = self.graphs[0].constants.get(one), self.graphs[1].constants.get(two)
        kinds = [array.dtype.name for array in held if array is not None]
        return len(kinds) == 2 and kinds[0] != kinds[1] and not set(kinds) <= ir.FLOAT_TYPES

    def _order(self, first: ir.Node, second: ir.Node) -> tuple[str, ...]:
        """The second node's operands, in the order of the first's."""
        if first.op not in COMMUTATIVE or len(first.inputs) != 2:
            return second.inputs
        (a1, a2), (b1, b2) = first.inputs, second.inputs
        if b1 in self.backward or a1 in self.forward or b2 in self.backward or a2 in self.forward:
            crossed = self.forward.get(a1, b1) == b2 or self.forward.get(a2, b2) == b1
            return (b2, b1) if crossed and b1 != b2 else (b1, b2)
        one, two = self.signatures
        crossed = one[a1] == two[b2] and one[a2] == two[b1] and one[a1] != two[b1]
        return (b2, b1) if crossed else (b1, b2)

    def _held(self, one: str, two: str) -> str:
        """Weights and constants.  A constant of A must have B's value; weights are judged later."""
        a, b = self.graphs
        mine = a.weights.get(one, a.constants.get(one))
        other = b.weights.get(two, b.constants.get(two))
        if mine is None or other is None:
            return f"{self._name(one)} stands against {two!r}, which is computed"
        if one in a.weights:
            fits = mine.shape == other.shape
            return "" if fits else f"weight {one!r} has the shapes {mine.shape} and {other.shape}"
        return "" if same_constant(mine, other, self.close) else self._different(one, mine, other)

    def _different(self, one: str, mine: ir.Array, other: ir.Array) -> str:
        """Where a constant is read, and its value in both networks."""
        reader = next((node for node in self.graphs[0].nodes if one in node.inputs), None)
        said = f"constant {one!r} differs"
        if reader is not None:
            said += f": operand {reader.inputs.index(one)} of {reader.op} {reader.label}"
        kinds = [f"{array.dtype.name}{list(array.shape)}" for array in (mine, other)]
        if kinds[0] != kinds[1]:
            return f"{said} is {kinds[0]} in A and {kinds[1]} in B"
        places = [i for i in range(mine.size) if not same_constant(mine.flat[i], other.flat[i], self.close)]
        at = f" at entry {[int(i) for i in np.unravel_index(places[0], mine.shape)]}" if mine.size > 1 else ""
        return f"{said} is {mine.flat[places[0]]} in A and {other.flat[places[0]]} in B{at}"

    def _name(self, value: str) -> str:
        maker = self.makers[0].get(value)
        return f"{maker.op} {maker.label}" if maker is not None else repr(value)


def _types(results: Sequence[tuple[str, tuple[int, ...] | None]]) -> str:
    return ", ".join(f"{kind}{list(shape) if shape is not None else ''}" for kind, shape in results)


def same_constant(first: ir.Array, second: ir.Array, close: float) -> bool:
    """Equal numbers; floats up to a relative distance."""
    if first.shape != second.shape:
        return False
    kinds = [array.dtype.name in ir.FLOAT_TYPES for array in (first, second)]
    if kinds != [True, True]:
        return kinds == [False, False] and bool(np.array_equal(first, second))
    one, two = first.astype(np.float64), second.astype(np.float64)
    return bool(np.isclose(one, two, rtol=close, atol=0.0, equal_nan=True).all())


def different_attribute(first: Mapping[str, Any], second: Mapping[str, Any], close: float) -> str:
    """The name of an attribute in which two nodes differ, with both values; empty if none."""
    for key in sorted({*first, *second}):
        one, two = first.get(key), second.get(key)
        if one is None or two is None or not _same(one, two, close):
            return f"{key} ({one} and {two})"
    return ""


def _same(one: Any, two: Any, close: float) -> bool:
    if isinstance(one, float) and isinstance(two, float):
        return one == two or math.isclose(one, two, rel_tol=close)  # infinity is close to itself only
    return bool(np.array_equal(np.asarray(one), np.asarray(two)))


def signatures(graph: ir.Graph) -> dict[str, str]:
    """Value -> a hash of the computation that leads to it, whatever the values of weights and numbers."""
    found = {"": ""}
    for index, name in enumerate(graph.inputs):
        found[name] = _hash("input", index, graph.values[name].shape)
    for name, array in (*graph.weights.items(), *graph.constants.items()):
        found[name] = _hash("held", array.shape, _content(array))
    for node in graph.nodes:
        operands = [found[name] for name in node.inputs]
        if node.op in COMMUTATIVE:
            operands.sort()
        exact = [(k, "" if isinstance(v, float) else v) for k, v in sorted(node.attributes.items())]
        for position, name in enumerate(node.outputs):
            if name:
                found[name] = _hash(node.op, operands, exact, position, graph.values[name].shape)
    return found


def _content(array: ir.Array) -> bytes:
    """The values of integers and flags, regardless of width; floats are ignored."""
    if array.dtype.name in ir.FLOAT_TYPES:
        return b""
    wide = array.dtype.kind in "iu" and array.dtype.itemsize < 8
    return (array.astype(np.int64) if wide else array).tobytes()


def _hash(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
