"""Which values are never infinite, over the reals: inputs and weights are finite, x / 0 and exp are not.

Together with a lower bound of each value's entries, so that ``x / (norm + 1e-6)`` is seen to be finite.
Bounds come from numbers of the program and from signs; no rescaling changes either.  NaN is not considered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from graphnorm.ir import FLOAT_TYPES, Array, Graph, Node, float_format
from graphnorm.ops.table import having
from graphnorm.ops.traits import Trait

_NEAR = 0.88  # of the largest number: float32 masks and clamps at 3e38 mean infinity, too

_BOUNDED = having(Trait.BOUNDED)  # whatever the operand is
_FINITE = having(Trait.FINITE)
_WITHIN = having(Trait.WITHIN)
_MAGNITUDES = frozenset({"Relu", "Abs", "Sqrt", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Softplus"})
_NORMALISES = having(Trait.NORMALISES, without=Trait.UNARY)


class Finite:
    """The walk; `holds(name)` afterwards."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._infinite: set[str] = set()
        self._least: dict[str, float] = {}
        self._arrays = {**graph.weights, **graph.constants}
        for name, array in self._arrays.items():
            if array.dtype.name in FLOAT_TYPES and array.size:
                self._array(name, array)
        for node in graph.nodes:
            self._visit(node)

    def holds(self, name: str) -> bool:
        """Whether no entry can be infinite, or so large that it may stand for infinity."""
        return name not in self._infinite

    def least(self, name: str) -> float:
        """A lower bound of the entries; -inf if none is known."""
        return self._least.get(name, -math.inf)

    def _array(self, name: str, array: Array) -> None:
        low, high = float(array.min()), float(array.max())
        if not max(abs(low), abs(high)) < huge(array.dtype.name):
            self._infinite.add(name)
        if name in self._graph.constants:
            self._least[name] = low
        elif low >= 0:
            self._least[name] = 0.0  # a rescaling changes all but the sign

    def _visit(self, node: Node) -> None:
        operands = [name for name in node.inputs if name and self._graph.values[name].is_float]
        finite = self._finite(node, operands)
        rule = _LEAST.get(node.op)
        least = -math.inf if rule is None else rule(self, node, operands)
        for name in node.outputs:
            if not name or not self._graph.values[name].is_float:
                continue
            if not finite:
                self._infinite.add(name)
            normal = float_format(self._graph.values[name].dtype).smallest_normal
            self._least[name] = 0.0 if 0 < least < normal else least

    def _finite(self, node: Node, operands: Sequence[str]) -> bool:
        known = all(map(self.holds, operands))
        if node.op in _BOUNDED:
            return True
        if node.op in _FINITE:
            return known
        if node.op in _NORMALISES:
            return known and float(node.attributes["epsilon"]) > 0
        if node.op == "Clip":
            limit = huge(self._graph.values[node.outputs[0]].dtype)
            low, high = bounds_of(self._graph, node)
            low = max(self.least(node.inputs[0]), -math.inf if low is None else low)
            return known or (-limit < low and high is not None and high < limit)
        if node.op == "Pad":
            return known and bool(np.isfinite(float(node.attributes.get("value", 0.0))))
        if node.op == "ConstantOfShape":
            return bool(np.isfinite(np.asarray(node.attributes.get("value", 0.0), np.float64)).all())
        if node.op == "Attention":
            return self.holds(node.inputs[2])  # a mean of values, whatever the mask
        if node.op == "Div":
            return known and self._nonzero(node.inputs[1])
        if node.op == "Reciprocal":
            return known and self._nonzero(node.inputs[0])
        if node.op == "Pow":
            exponent = self._graph.constants.get(node.inputs[1])
            if exponent is None or not exponent.size:
                return False
            return known and (float(exponent.min()) >= 0 or self._nonzero(node.inputs[0]))
        return not operands and node.op in {"RandomNormal", "RandomUniform", "Range"}

    def _nonzero(self, name: str) -> bool:
        """Whether no entry is 0, nor becomes 0 by a rescaling."""
        array = self._arrays.get(name)
        return bool((array != 0).all()) if array is not None else self.least(name) > 0


def huge(dtype: str) -> float:
    """Numbers beyond this stand for infinity in a format; in float16, where values overflow, none do."""
    return math.inf if dtype == "float16" else _NEAR * float_format(dtype).largest


def bounds_of(graph: Graph, node: Node) -> tuple[float | None, float | None]:
    """The numbers at which a Clip cuts, each None where it is absent or not one known number."""
    found: list[float | None] = []
    for index, attribute in ((1, "min"), (2, "max")):
        name = node.inputs[index] if index < len(node.inputs) else ""
        given = node.attributes.get(attribute, graph.constants.get(name) if name else None)
        found.append(float(np.ravel(given)[0]) if given is not None and np.size(given) == 1 else None)
    return found[0], found[1]


_Least = Callable[[Finite, Node, Sequence[str]], float]


def _of_operands(walk: Finite, node: Node, operands: Sequence[str]) -> float:
    return min(map(walk.least, operands), default=-math.inf)


def _of_sum(walk: Finite, node: Node, operands: Sequence[str]) -> float:
    lows = [walk.least(name) for name in operands]
    return sum(lows) if all(map(math.isfinite, lows)) else -math.inf


def _of_product(walk: Finite, node: Node, operands: Sequence[str]) -> float:
    lows = [walk.least(name) for name in operands]
    if len(operands) == 2 and operands[0] == operands[1]:
        return max(lows[0], 0.0) ** 2
    return math.prod(lows) if min(lows, default=-1.0) >= 0 and max(lows) < math.inf else -math.inf


def _of_clip(walk: Finite, node: Node, operands: Sequence[str]) -> float:
    low, high = bounds_of(walk._graph, node)
    if len(operands) > 1 + sum(bound is not None for bound in (low, high)):
        return -math.inf  # a bound that is computed
    least = max(walk.least(node.inputs[0]), -math.inf if low is None else low)
    return least if high is None else min(least, high)


def _of_largest(walk: Finite, node: Node, operands: Sequence[str]) -> float:
    return max(map(walk.least, operands), default=-math.inf)


def _of_power(walk: Finite, node: Node, operands: Sequence[str]) -> float:
    exponent = walk._graph.constants.get(node.inputs[1])
    if exponent is None or exponent.size != 1:
        return -math.inf
    k, low = float(exponent.reshape(-1)[0]), walk.least(node.inputs[0])
    if low > 0 and k > 0:
        return float(low**k)
    return 0.0 if low >= 0 or k % 2 == 0 else -math.inf


def _of_root(walk: Finite, node: Node, operands: Sequence[str]) -> float:
    return math.sqrt(max(walk.least(node.inputs[0]), 0.0))


def _of_magnitude(walk: Finite, node: Node, operands: Sequence[str]) -> float:
    low = walk.least(node.inputs[0])
    return max(low, 0.0) if node.op in {"Relu", "Abs", "ReduceL1"} else 0.0


def _nonnegative(walk: Finite, node: Node, operands: Sequence[str]) -> float:
    return 0.0


def _if_nonnegative(walk: Finite, node: Node, operands: Sequence[str]) -> float:
    low = walk.least(node.inputs[0])
    return low if low >= 0 else -math.inf


_LEAST: dict[str, _Least] = {
    **dict.fromkeys(_WITHIN, _of_operands),
    **dict.fromkeys(_MAGNITUDES, _of_magnitude),
    **dict.fromkeys(having(Trait.NONNEGATIVE) - _MAGNITUDES, _nonnegative),
    "Add": _of_sum,
    "Sum": _of_sum,
    "Mul": _of_product,
    "Clip": _of_clip,
    "Max": _of_largest,
    "Min": _of_operands,
    "Pow": _of_power,
    "Sqrt": _of_root,
    "ReduceSum": _if_nonnegative,
}
