"""Path-norms by one forward pass: the l_p norm of the vector of products of weights along all paths.

    ||Phi||_p^p = sum over paths of prod |w|^p

is the sum of the outputs of the network with weights |w|^p on an input of ones, without activations and
with sums in place of maxima (Neyshabur et al. 2015; Gonon et al. 2024, "A path-norm toolkit").  Biases start
paths of their own; means are edges of weight 1 / n.  Where a value saturates, or is squared or rooted by a
normalisation, its scale is fixed: paths end there, and new ones begin with 1.

No rescaling may change it.  So a walk is made with rescaled weights as well: each tensor of sums must follow
its tensor's scale, or there is no path-norm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from graphnorm import ir
from graphnorm.errors import NoPathNormError
from graphnorm.fingerprint.windows import convolution, window_count, window_sum
from graphnorm.ops.rules import Rules
from graphnorm.ops.traits import NONE, Trait
from graphnorm.permutation.matching import rebalanced
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.scales.labels import FREE
from graphnorm.util.defects import DEFECTS, defect

Floats = ir.Array
_SPREAD = 0.7  # of log-scales
_EXACT = 1e-6  # relative; sums of positive numbers in float64


def path_norm(graph: RescalingGraph, p: float) -> float:
    """The l_p path-norm of a normal form.

    Raises:
        NoPathNormError: an operator has no paths, or the sum is not a positive float64.
    """
    walk = _Walk(graph, p)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        found = float(walk.run() ** (1 / p))
    if not (np.isfinite(found) and found > 0):
        raise NoPathNormError("it overflows" if found else "no path carries anything")
    return found


def check_paths(graph: RescalingGraph) -> None:
    """Walk with the weights and with rescaled ones, side by side.

    Raises:
        NoPathNormError: an operator has no paths, or some whose sums do not scale with its result.
    """
    z = np.random.default_rng(0).uniform(-_SPREAD, _SPREAD, graph.solution.count)
    x = graph.log_scales(z)
    walk, other = _Walk(graph, 1.0), _Walk(graph, 1.0, rebalanced(graph, z))
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for node in graph.network.nodes:
            walk.step(node)
            other.step(node)
            for name in node.outputs:
                labels = graph.scales.labels.get(name)
                if labels is None or not graph.network.values[name].is_float:
                    continue
                one, two = (np.asarray(found.values[name]) for found in (walk, other))
                expected = np.where(labels == FREE, np.nan, np.exp(x[labels])) * one
                off = np.abs(two - expected) > _EXACT * expected
                if off.any():
                    raise NoPathNormError(f"the paths through {node.op} {node.label} do not scale with it")


class _Walk:
    def __init__(self, graph: RescalingGraph, p: float, weights: Mapping[str, Floats] | None = None) -> None:
        self.graph, self.network, self.p = graph, graph.network, p
        self.values: dict[str, Floats] = {}
        self.ended = 0.0
        free = np.diff(graph.solution.basis.indptr) > 0
        self.moves = {
            name: bool(free[np.maximum(labels, 0)].any()) for name, labels in graph.scales.labels.items()
        }
        for name in self.network.inputs:
            self.values[name] = np.ones(self.network.values[name].shape or ())
        held = self.network.weights if weights is None else weights
        for name, array in (*held.items(), *self.network.constants.items()):
            if array.dtype.name in ir.FLOAT_TYPES:
                self.values[name] = np.nan_to_num(np.abs(array.astype(np.float64)) ** p, posinf=0.0)

    def run(self) -> float:
        for node in self.network.nodes:
            self.step(node)
        return self.ended + sum(float(self.values[name].sum()) for name in self.network.outputs)

    def step(self, node: ir.Node) -> None:
        """Sums over the paths that end in a node's results."""
        try:
            self._visit(node)
        except DEFECTS as error:
            said = defect("path-norm", node.op, node.label, error, "without paths")
            raise NoPathNormError(said) from error

    def _visit(self, node: ir.Node) -> None:
        found = self._result(node)
        if found is not None:
            self.values[node.outputs[0]] = found
            return
        operands = [name for name in node.inputs if name]
        if any(self.moves.get(name, False) for name in (*operands, *node.outputs) if name):
            raise NoPathNormError(f"{node.op} {node.label} moves with its operands, and has no paths")
        self.ended += sum(float(self.values[name].sum()) for name in operands if name in self.moves)
        for name in node.outputs:
            if name:
                self.values[name] = np.ones(self.network.values[name].shape or ())

    def _result(self, node: ir.Node) -> Floats | None:
        """The sum over paths that end in a node's result; None where paths end."""
        value = self.network.values[node.outputs[0]]
        if not value.is_float or value.shape is None or len(node.outputs) > 1:
            return None
        rule = RULES.get(node.op)
        if rule is not None:
            return rule(self, node, value.shape)
        return None


def _same(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats:
    return walk.values[node.inputs[0]]


def _sum(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats:
    floats = [walk.values[n] for n in node.inputs if n and walk.network.values[n].is_float]
    return np.asarray(np.broadcast_to(sum(floats), shape))


def _product(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats:
    return np.asarray(walk.values[node.inputs[0]] * walk.values[node.inputs[1]])


def _clip(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats | None:
    return walk.values[node.inputs[0]] if node.attributes.get("min") == 0.0 else None


def _matmul(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats:
    return np.asarray(walk.values[node.inputs[0]] @ walk.values[node.inputs[1]])


def _conv(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats:
    x, weight = (walk.values[name] for name in node.inputs[:2])
    return convolution(node.op, x, weight, node.attributes, shape)


def _pool(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats:
    x = walk.values[node.inputs[0]]
    total = window_sum(x, node.attributes, shape)
    if node.op == "MaxPool":
        return total
    return np.asarray(total / window_count(x.shape[2:], node.attributes, shape[2:]) ** walk.p)


def _reduce(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats:
    x = walk.values[node.inputs[0]]
    axes = tuple(node.attributes["axes"])
    count = float(np.prod([x.shape[axis] for axis in axes])) if node.op == "ReduceMean" else 1.0
    return np.asarray(x.sum(axis=axes, keepdims=True) / count**walk.p)


def _reshape(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats:
    return walk.values[node.inputs[0]].reshape(shape)


def _transpose(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats:
    return walk.values[node.inputs[0]].transpose(node.attributes["perm"])


def _slice(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats | None:
    a = node.attributes
    if any(step < 0 for step in a.get("steps", (-1,))):
        return None
    region = [slice(None)] * len(shape)
    for axis, start, end, step in zip(a["axes"], a["starts"], a["ends"], a["steps"], strict=True):
        region[axis] = slice(start, end, step)
    return walk.values[node.inputs[0]][tuple(region)]


def _concat(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats:
    return np.concatenate([walk.values[name] for name in node.inputs], axis=node.attributes["axis"])


def _pad(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats | None:
    pads = node.attributes.get("pads")
    if pads is None or min(pads) < 0:
        return None
    mode = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}[
        node.attributes["mode"]
    ]
    widths = [(pads[i], pads[i + len(shape)]) for i in range(len(shape))]
    x = walk.values[node.inputs[0]]
    if mode == "constant":  # a number starts paths of its own, as a bias does
        number = abs(float(node.attributes["value"]))
        return np.pad(x, widths, constant_values=number**walk.p if np.isfinite(number) else 0.0)
    return np.asarray(np.pad(x, widths, mode=mode))  # type: ignore[call-overload]


def _expand(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats:
    return np.broadcast_to(walk.values[node.inputs[0]], shape)


def _resize(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats:
    """Whatever the interpolation, as if by the nearest entry."""
    x = walk.values[node.inputs[0]]
    for axis, size in enumerate(shape):
        if size != x.shape[axis]:
            x = np.take(x, np.arange(size) * x.shape[axis] // size, axis=axis)
    return x


def _gather(walk: _Walk, node: ir.Node, shape: tuple[int, ...]) -> Floats:
    """Any row may be picked: their mean; of known ones, these."""
    axis = int(node.attributes["axis"])
    x, index = walk.values[node.inputs[0]], walk.network.constants.get(node.inputs[1])
    if index is not None:
        return np.take(x, index.astype(np.int64), axis)
    rank = len(walk.network.values[node.inputs[1]].shape or ())
    mean = x.mean(axis=axis, keepdims=True)
    spread = mean.reshape(mean.shape[:axis] + (1,) * rank + mean.shape[axis + 1 :])
    return np.broadcast_to(spread, shape)


_Rule = Callable[[_Walk, ir.Node, tuple[int, ...]], "Floats | None"]
RULES: Rules[_Rule] = Rules("path-norms")
"""Operators of normal forms: the sum over paths that end in the result."""
RULES.for_trait(Trait.POINTWISE | Trait.UNARY | Trait.HOMOGENEOUS, _same)
RULES.add(_same, "PRelu", "Cast")
RULES.add(_sum, "Add", "Sub", "Max", "Min", "Sum", "Where")
RULES.add(_product, "Mul")
RULES.add(_clip, "Clip")
RULES.add(_matmul, "MatMul")
RULES.add(_conv, "Conv", "ConvTranspose")
RULES.add(_pool, "MaxPool", "AveragePool")
RULES.add(_reduce, "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
RULES.add(_reshape, "Reshape")
RULES.add(_transpose, "Transpose")
RULES.add(_slice, "Slice")
RULES.add(_concat, "Concat")
RULES.add(_pad, "Pad")
RULES.add(_expand, "Expand")
RULES.add(_resize, "Resize", "Upsample")
RULES.add(_gather, "Gather")
RULES.explain({
    NONE: "no operator of normal forms with paths: they end there if its operands' scales are fixed, and the "
    "network has no path-norm otherwise",
})  # fmt: skip
