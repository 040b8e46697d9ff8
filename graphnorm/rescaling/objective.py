"""The l_p objective of a rescaling graph as a solver problem.

Phi = sum over multiplicative weights (kernels, matrices, gains) of lambda |w|^p, with
lambda = c^(p h), h the number of weight layers after the weight on the longest path to the output
(asymmetric ENorm-c: a cycle multiplies by d = sqrt(R / (c L)) with p-norms L, R).  Biases follow; or they
count as well, each one more term exp(p u) |b|^p, which leaves Phi convex and its minimum unique.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from graphnorm import ir
from graphnorm.ops.table import having
from graphnorm.ops.traits import Trait
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.rescaling.powers import WeightPowers, power_sum
from graphnorm.scales.constraints import Term
from graphnorm.scales.demands import Demand, Role
from graphnorm.scales.labels import align, varying_axes
from graphnorm.scales.regions import each_entry_once
from graphnorm.solver.edges import sparse
from graphnorm.solver.masses import Gather
from graphnorm.solver.problem import Block, Problem, merged
from graphnorm.solver.streamed import Streamed
from graphnorm.util.typing import Integers

CONTRACTIONS = having(Trait.CONTRACTS | Trait.MULTILINEAR) | {"Gather"}  # of a table: a product with a choice
_LAYERS = CONTRACTIONS | having(Trait.CONTRACTS) | having(Trait.RECURRENT)


def build_problem(graph: RescalingGraph, p: float = 2.0, c: float = 1.0, biases: bool = False) -> Problem:
    """Forms and masses of every multiplicative weight that can move; of biases too if they count.

    Masses of layers stay in the weights (`Streamed`) until the solver holds them.

    Args:
        graph: the rescaling graph.
        p: exponent of the norm; ``inf`` balances the largest absolute values.
        c: asymmetry of ENorm-c.
        biases: whether what is added counts: biases, running means, initial states.
    """
    groups = np.zeros(graph.solution.count, dtype=np.int64)
    for group in graph.groups:
        groups[group.variables] = group.index
    depth = layers_after(graph.network, graph.demands) if c != 1.0 else {}
    blocks = []
    sides = _Sides(graph.solution.basis)
    roles = (Role.WEIGHT, Role.BIAS) if biases else (Role.WEIGHT,)
    counted = [demand for demand in graph.movable() if demand.role in roles]
    for demand, region in each_entry_once(graph.network.weights, counted):
        h = depth.get(demand.node, 0)
        factor = c ** (p * h if np.isfinite(p) else h)
        block = _block(demand, region, p, factor, sides)
        if block is not None:
            blocks.append(block)
    return Problem(graph.solution.count, groups, tuple(blocks), p)


def _block(demand: Demand, region: ir.Array, p: float, factor: float, sides: _Sides) -> Block | None:
    terms = _two_sides([(k, align(labels, region.ndim)) for k, labels in demand.terms])
    axes = [sorted(frozenset().union(*(varying_axes(labels) for _, labels in side))) for side in terms]
    forms = [
        sides.of(side, [region.shape[a] for a in which], which)
        for side, which in zip(terms, axes, strict=True)
    ]
    if not any(form.nnz for _, form in forms):
        return None
    if set(axes[0]) & set(axes[1]):
        edges = _edges(region, axes, p, factor)
        gains = sparse(edges, bool(np.isfinite(p))).merged(forms[0][0], forms[1][0])
        return Block(demand.weight, gains, forms[0][1], forms[1][1])
    if 0 in axes[1]:  # rows are the side that is outermost in memory
        axes, forms = axes[::-1], forms[::-1]
    (rows, row_forms), (columns, column_forms) = forms
    powers = WeightPowers(region, tuple(axes[0]), tuple(axes[1]), p, factor, columns)
    mass = Streamed((row_forms.shape[0], column_forms.shape[0]), powers.chunks, rows, bool(np.isfinite(p)))
    return Block(demand.weight, mass, row_forms, column_forms)


def _two_sides(terms: Sequence[Term]) -> tuple[list[Term], list[Term]]:
    """Terms that vary along the first term's axes, and the others."""
    if not terms:
        return [], []
    lead = varying_axes(terms[0][1])
    first = [term for term in terms if varying_axes(term[1]) <= lead]
    rest = [term for term in terms if not varying_axes(term[1]) <= lead]
    return first, rest


class _Sides:
    """Forms of the sides of blocks, merged; equal ones are one object, which blocks share."""

    def __init__(self, basis: sp.csr_array) -> None:
        self._basis = basis
        self._known: dict[Any, tuple[Gather | None, sp.csr_array]] = {}

    def of(
        self, side: Sequence[Term], shape: Sequence[int], axes: Sequence[int]
    ) -> tuple[Gather | None, sp.csr_array]:
        """Which entries meet, and the forms that are left, of a side whose terms vary along `axes`."""
        terms = []
        for k, labels in side:
            shrunk = labels.transpose([*axes, *(a for a in range(labels.ndim) if a not in axes)])
            terms.append((k, shrunk.reshape(shrunk.shape[: len(axes)])))
        key = (tuple(shape), tuple((k, labels.shape, labels.tobytes()) for k, labels in terms))
        if key not in self._known:
            self._known[key] = merged(_forms(self._basis, terms, tuple(shape)))
        return self._known[key]


def _forms(basis: sp.csr_array, side: Sequence[Term], shape: tuple[int, ...]) -> sp.csr_array:
    total = None
    for k, labels in side:
        term = _picked(basis, np.broadcast_to(labels, shape).ravel(), k)
        total = term if total is None else total + term
    if total is None:
        return sp.csr_array((math.prod(shape), basis.shape[1]))
    if not total.data.all():
        total.eliminate_zeros()
    return total


def _picked(basis: sp.csr_array, rows: Integers, k: float) -> sp.csr_array:
    """K basis[rows]; scipy's own selection copies and checks several times."""
    start = basis.indptr[rows]
    lengths = basis.indptr[rows + 1] - start
    indptr = np.zeros(len(rows) + 1, dtype=basis.indptr.dtype)
    np.cumsum(lengths, out=indptr[1:])
    place = start if (lengths == 1).all() else np.arange(indptr[-1]) + np.repeat(start - indptr[:-1], lengths)
    data, indices = k * basis.data[place], basis.indices[place]
    return sp.csr_array((data, indices, indptr), shape=(len(rows), basis.shape[1]))


def _edges(region: ir.Array, axes: Sequence[Sequence[int]], p: float, factor: float) -> sp.csr_array:
    """Sides that share an axis (grouped, depthwise, gains): a sparse mass matrix."""
    kept = sorted({*axes[0], *axes[1]})
    mass = power_sum(region, kept, p) * factor
    index: list[Integers] = []
    sizes: list[int] = []
    for which in axes:
        shape = [mass.shape[kept.index(a)] for a in which]
        flat = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
        full = [mass.shape[i] if a in which else 1 for i, a in enumerate(kept)]
        index.append(np.broadcast_to(flat.reshape(full), mass.shape).ravel())
        sizes.append(flat.size)
    return sp.csr_array((mass.ravel(), (index[0], index[1])), shape=tuple(sizes))


def layers_after(network: ir.Graph, demands: Iterable[Demand]) -> dict[int, int]:
    """Node index -> number of weight layers after it on the longest path to an output."""
    nodes = network.nodes
    layers = {
        d.node
        for d in demands
        if d.role == Role.WEIGHT and d.node < len(nodes) and nodes[d.node].op in _LAYERS
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


class Change(NamedTuple):
    """A number before and after."""

    before: float
    after: float


def energy_by_weight(graph: RescalingGraph, new: Mapping[str, ir.Array], p: float) -> dict[str, Change]:
    """Weight name -> sum |w|^p before and after, for multiplicative weights in network order."""
    found: dict[str, Change] = {}
    for demand in sorted(graph.demands, key=lambda d: d.node):
        name = demand.weight
        if demand.role == Role.WEIGHT and name not in found:
            before = float(power_sum(graph.network.weights[name], [], p))
            after = float(power_sum(new[name], [], p)) if name in new else before
            found[name] = Change(before, after)
    return found
