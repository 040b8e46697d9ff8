"""Bounded activations (ReLU6, Hardtanh, Clip, Min with a number) whose bounds could be weights.

min(max(x, lo), hi) commutes with no rescaling while lo and hi are numbers of the program.  As weights,
one per channel, they follow it: with d > 0, min(max(d x, d lo), d hi) = d min(max(x, lo), hi).  What is
found here says which clips could be rescaled that way, and along which axes their bounds must vary.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from graphnorm.ir import Array, Graph, Node
from graphnorm.rescaling.graph import build
from graphnorm.scales.labels import FREE, Labels, align
from graphnorm.scales.registry import Apply, Registry, Rule
from graphnorm.scales.rules.table import default_registry

if TYPE_CHECKING:
    from graphnorm.rescaling.graph import RescalingGraph
    from graphnorm.scales.context import Context

_INFINITE = 3e38  # beyond, a bound per channel would overflow when it is moved
PINNED_ANYWAY = "its channels could not be rescaled either way"


@dataclass(frozen=True)
class Rewriting:
    """A model whose clips got bounds that are weights.

    Attributes:
        model: of the kind that was given; the given one itself if there was nothing to rewrite.
        rewritten: names of the clips that were.
        left: ``"name: reason"`` of every bounded clip that was not.
    """

    model: Any
    rewritten: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def is_bound(number: float | None) -> bool:
    """Whether a limit cuts at a value that a rescaling would have to move."""
    return number is not None and number != 0 and abs(number) <= _INFINITE


def bounded_clips(network: Graph) -> Iterator[Node]:
    """Nodes that cut a float tensor at a known number that a rescaling would have to move."""
    for node in network.nodes:
        if any(map(is_bound, limits(network, node))) and network.values[node.outputs[0]].is_float:
            yield node


def limits(network: Graph, node: Node) -> tuple[float | None, float | None]:
    """The known numbers at which a Clip, Max or Min cuts from below and above; None where there is none."""
    if node.op == "Clip":
        names = [*node.inputs[1:], "", ""][:2]
        arrays = [network.constants.get(name, network.weights.get(name)) for name in names]
        if any(name and _number(array) is None for name, array in zip(names, arrays, strict=True)):
            return None, None  # computed
        given = [node.attributes.get("min", arrays[0]), node.attributes.get("max", arrays[1])]
        return _number(given[0]), _number(given[1])
    numbers = [_number(network.constants.get(name)) for name in node.inputs]
    if node.op not in {"Max", "Min"} or len(numbers) != 2 or numbers.count(None) != 1:
        return None, None
    number = numbers[0] if numbers[1] is None else numbers[1]
    return (number, None) if node.op == "Max" else (None, number)


def _number(value: Array | float | None) -> float | None:
    return float(np.ravel(value)[0]) if value is not None and np.size(value) == 1 else None


def movable_clips(network: Graph, fixed: Container[str] = ()) -> dict[str, tuple[int, ...]]:
    """The clips whose channels could be rescaled if the bounds of all clips were weights.

    Args:
        network: the network as it is.
        fixed: names of nodes whose bounds stay numbers.

    Returns:
        Node name -> shape of its bounds, at least (1,) and broadcastable to the clip's input: the sizes
        of the axes along which scales may differ, 1 elsewhere, without leading 1s.
    """
    loose = [node.name for node in bounded_clips(network) if node.name not in fixed]
    if not loose:
        return {}
    registry = default_registry()
    for operator in ("Clip", "Max", "Min"):
        registry = _loosened(registry, operator, loose)
    graph = build(network, registry)
    labels = {node.name: graph.scales.labels.get(node.outputs[0]) for node in network.nodes}
    shapes = {name: _bound_shape(graph, labels[name]) for name in loose}
    return {name: shape for name, shape in shapes.items() if shape is not None}


def _loosened(registry: Registry, operator: str, loose: Container[str]) -> Registry:
    """A registry in which the nodes `loose` of that operator pass scales on."""
    rule = registry[operator]
    return registry.replaced(Rule(rule.signature, _passing(rule, loose), rule.reason), operator)


def _passing(rule: Rule, loose: Container[str]) -> Apply:
    def apply(ctx: Context, node: Node) -> None:
        if node.name not in loose:
            rule.apply(ctx, node)
            return
        for name in node.inputs:
            ctx.asked(name)
        data = next(name for name in node.inputs if ctx.is_data(name))
        labels = align(ctx.labels(data), ctx.rank(node.outputs[0]))
        if (labels == FREE).any():  # where a known 0 was, a bound may now stand
            labels = np.where(labels == FREE, ctx.fresh(labels.shape, "clipped"), labels)
        ctx.set(node.outputs[0], labels)

    return apply


def _bound_shape(graph: RescalingGraph, labels: Labels | None) -> tuple[int, ...] | None:
    """Shape of the solved scales of a tensor, None if all are pinned (or it is computed from weights)."""
    if labels is None:
        return None
    unique, where = np.unique(labels, return_inverse=True)
    rows = graph.solution.basis[unique]
    rows.sort_indices()
    ends = rows.indptr.tolist()
    kinds: dict[tuple[bytes, bytes], int] = {}
    kind = np.array([
        kinds.setdefault((rows.indices[a:b].tobytes(), rows.data[a:b].tobytes()), len(kinds))
        for a, b in pairwise(ends)
    ])  # fmt: skip
    if rows.nnz == 0:
        return None
    scales = kind[where].reshape(labels.shape)
    varies = [bool((scales != scales.take([0], axis=axis)).any()) for axis in range(scales.ndim)]
    shape = [size if varied else 1 for size, varied in zip(labels.shape, varies, strict=True)]
    while len(shape) > 1 and shape[0] == 1:
        del shape[0]
    return tuple(shape) or (1,)
