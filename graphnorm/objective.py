"""The l_p objective of a rescaling graph as a solver problem.

Phi = sum over multiplicative weights (kernels, matrices, gains) of lambda |w|^p, with
lambda = c^(p h), h the number of weight layers after the weight on the longest path to the output
(asymmetric ENorm-c: a cycle multiplies by d = sqrt(R / (c L)) with p-norms L, R).  Biases follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import scipy.sparse as sp

from graphnorm import ir
from graphnorm.graph import Floats, RescalingGraph
from graphnorm.scales.constraints import Term
from graphnorm.scales.demands import Demand
from graphnorm.scales.labels import align, varying_axes
from graphnorm.solver.problem import Block, Problem, make_block

CONTRACTIONS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "Gather"})


def build_problem(graph: RescalingGraph, p: float = 2.0, c: float = 1.0) -> Problem:
    """Masses and forms of every multiplicative weight that can move."""
    groups = np.zeros(graph.solution.count, dtype=np.int64)
    for group in graph.groups:
        groups[group.variables] = group.index
    depth = layers_after(graph.network, graph.demands) if c != 1.0 else {}
    blocks = []
    for demand in graph.movable():
        if demand.role == "weight":
            factor = c ** (p * depth.get(demand.node, 0))
            block = _block(graph, demand, p, factor, groups)
            if block is not None:
                blocks.append(block)
    return Problem(graph.solution.count, groups, tuple(blocks), p)


def _block(
    graph: RescalingGraph, demand: Demand, p: float, factor: float, groups: np.ndarray
) -> Block | None:
    region = demand.region(graph.network.weights[demand.weight])
    terms = [(k, align(labels, region.ndim)) for k, labels in demand.terms]
    sides = _two_sides(terms)
    axes = [sorted(frozenset().union(*(varying_axes(labels) for _, labels in side))) for side in sides]
    kept = sorted({*axes[0], *axes[1]})
    mass = _power_sum(region, kept, p) * factor
    forms = [
        _forms(graph.solution.basis, side, [region.shape[a] for a in which], which)
        for side, which in zip(sides, axes, strict=True)
    ]
    if set(axes[0]) & set(axes[1]):
        mass = _edges(mass, kept, axes, [form.shape[0] for form in forms])
    else:
        order = [kept.index(axis) for axis in (*axes[0], *axes[1])]
        mass = mass.transpose(order).reshape(forms[0].shape[0], forms[1].shape[0])
    return make_block(demand.weight, mass, forms[0], forms[1], groups)


def _two_sides(terms: Sequence[Term]) -> tuple[list[Term], list[Term]]:
    """Terms that vary along the first term's axes, and the others."""
    if not terms:
        return [], []
    lead = varying_axes(terms[0][1])
    first = [term for term in terms if varying_axes(term[1]) <= lead]
    rest = [term for term in terms if not varying_axes(term[1]) <= lead]
    return first, rest


def _power_sum(region: ir.Array, kept: Sequence[int], p: float) -> Floats:
    """Sum of |w|^p over the axes that are not kept, in float64."""
    values = np.abs(region.astype(np.float64))
    powered = np.square(values) if p == 2.0 else values if p == 1.0 else values**p
    gone = tuple(axis for axis in range(region.ndim) if axis not in kept)
    return np.asarray(powered.sum(axis=gone) if gone else powered)


def _forms(
    basis: sp.csr_array, side: Sequence[Term], shape: Sequence[int], axes: Sequence[int]
) -> sp.csr_array:
    size = int(np.prod(shape, dtype=np.int64))
    total = sp.csr_array((size, basis.shape[1]))
    for k, labels in side:
        shrunk = labels.transpose([*axes, *(a for a in range(labels.ndim) if a not in axes)])
        shrunk = shrunk.reshape(shrunk.shape[: len(axes)])
        total = total + k * basis[np.broadcast_to(shrunk, tuple(shape)).ravel()]
    total = sp.csr_array(total)
    total.eliminate_zeros()
    return total


def _edges(
    mass: Floats, kept: Sequence[int], axes: Sequence[Sequence[int]], sizes: Sequence[int]
) -> sp.csr_array:
    """Sides that share an axis (grouped, depthwise, gains): a sparse mass matrix."""
    index = []
    for which in axes:
        shape = [mass.shape[kept.index(a)] for a in which]
        flat = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
        full = [mass.shape[i] if a in which else 1 for i, a in enumerate(kept)]
        index.append(np.broadcast_to(flat.reshape(full), mass.shape).ravel())
    return sp.csr_array((mass.ravel(), (index[0], index[1])), shape=tuple(sizes))


def layers_after(network: ir.Graph, demands: Iterable[Demand]) -> dict[int, int]:
    """Node index -> number of weight layers after it on the longest path to an output."""
    nodes = network.nodes
    layers = {
        d.node
        for d in demands
        if d.role == "weight" and d.node < len(nodes) and nodes[d.node].op in CONTRACTIONS
    }
    after: dict[str, int] = {}
    found: dict[int, int] = {}
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        found[index] = max((after.get(out, 0) for out in node.outputs), default=0)
        here = found[index] + (index in layers)
        for name in node.inputs:
            if name:
                after[name] = max(after.get(name, 0), here)
    return found


def energy_by_weight(
    graph: RescalingGraph, new: Mapping[str, ir.Array], p: float
) -> dict[str, tuple[float, float]]:
    """Weight name -> sum |w|^p before and after, for multiplicative weights in network order."""
    found: dict[str, tuple[float, float]] = {}
    for demand in sorted(graph.demands, key=lambda d: d.node):
        name = demand.weight
        if demand.role == "weight" and name not in found:
            before = float(_power_sum(graph.network.weights[name], [], p))
            after = float(_power_sum(new[name], [], p)) if name in new else before
            found[name] = (before, after)
    return found
