"""Which permutation of hidden channels maps A's weights to B's.

Both are first brought to the minimum of their l_2 norm over all rescalings, so that equivalent ones differ by
a permutation alone.  Channels are then matched factor by factor: by invariants under the permutations of all
other factors (power sums along the other axes), as a linear assignment; and, where invariants are ambiguous,
by the entries themselves given the other factors' permutations (weight matching, Ainsworth et al. 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from graphnorm import ir
from graphnorm.permutation.symmetry import Permutation, Symmetry, symmetry
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.rescaling.objective import build_problem
from graphnorm.scales.demands import Demand
from graphnorm.solver.solve import solve
from graphnorm.util.typing import Floats, Integers
from graphnorm.weights.coefficients import coefficient

_ROUNDS = 8  # of matching by entries
_BALANCED = 1e-3  # imbalance: log-scales are then off by about as much, channels differ by much more
# Relative distance of tensors that count as matched: ten times the residue of balancing, and less than the
# distance sqrt(4 / n) of tensors in which two of n channels are swapped, for n up to 40,000.
_CLOSE = 10 * _BALANCED
Weights = Mapping[str, Floats]


def find_permutation(graph: RescalingGraph, other: Mapping[str, ir.Array]) -> tuple[Symmetry, Permutation]:
    """The permutation of A's channels whose rescaling comes closest to B.

    Args:
        graph: the analysed A.
        other: B's weights under A's names.
    """
    allowed = symmetry(graph.network)
    if not allowed.sizes:
        return allowed, {}
    first = balanced(graph)
    second = balanced(replace(graph, network=replace(graph.network, weights=dict(other))))
    places = occurrences(allowed)
    found: Permutation = {}
    for factor, size in allowed.sizes.items():
        one, two = (invariants(weights, places[factor]) for weights in (first, second))
        found[factor] = _assigned(cdist(two, one)) if one.size else np.arange(size)
    found = _refined(allowed, first, second, places, found)
    return allowed, {f: order for f, order in found.items() if (order != np.arange(len(order))).any()}


def balanced(graph: RescalingGraph, tol: float = _BALANCED) -> dict[str, Floats]:
    """The weights at the least sum of squares over all rescalings, in float64."""
    return rebalanced(graph, solve(build_problem(graph), tol, 100).z)


def rebalanced(graph: RescalingGraph, z: Floats) -> dict[str, Floats]:
    """All weights under the rescaling `z`, in float64."""
    x = graph.log_scales(z)
    demands: dict[str, list[Demand]] = {}
    for demand in graph.movable():
        demands.setdefault(demand.weight, []).append(demand)
    found: dict[str, Floats] = {}
    for name, array in graph.network.weights.items():
        factor = coefficient(graph, demands[name], x) if name in demands else 1.0
        found[name] = np.asarray(array.astype(np.float64) * factor)
    return found


Place = tuple[str, int, int, tuple[int, ...], int]
"""Weight, axis, first index of a segment, sizes of the segment's factors, position of the factor."""


def occurrences(allowed: Symmetry) -> dict[int, list[Place]]:
    """Factor -> where it occurs."""
    found: dict[int, list[Place]] = {f: [] for f in allowed.sizes}
    for name, axes in allowed.axes.items():
        for position, axis in enumerate(axes):
            start = 0
            for segment in axis:
                sizes = tuple(allowed.lengths[factor] for factor in segment)
                for place, factor in enumerate(segment):
                    if factor in found:
                        found[factor].append((name, position, start, sizes, place))
                start += int(np.prod(sizes, dtype=np.int64))
    return found


def rows(weights: Weights, place: Place) -> Floats:
    """The entries of a weight by the index of a factor: (size of the factor, all others)."""
    name, axis, start, sizes, position = place
    count = int(np.prod(sizes, dtype=np.int64))
    part = np.moveaxis(weights[name], axis, 0)[start : start + count]
    split = part.reshape((*sizes, -1))
    return np.moveaxis(split, position, 0).reshape(sizes[position], -1)


def invariants(weights: Weights, places: list[Place]) -> Floats:
    """Power sums along all other axes, tensor by tensor: (size of the factor, 4 * tensors)."""
    columns: list[Floats] = []
    for place in places:
        table = rows(weights, place)
        if table.size:  # of zeros too: the other model's may have entries there
            table = table / (np.sqrt(np.mean(table**2)) or 1.0)
            square = table**2
            sums = [table.sum(1), np.abs(table).sum(1), square.sum(1), (square * table).sum(1)]
            columns += [column / np.sqrt(table.shape[1]) for column in sums]
    return np.stack(columns, axis=1) if columns else np.empty((0, 0))


def _assigned(cost: Floats) -> Integers:
    """For each row the column that a least-cost assignment gives it."""
    nearest = cost.argmin(axis=1)
    if len(np.unique(nearest)) == len(nearest):
        return np.asarray(nearest, dtype=np.int64)
    return np.asarray(linear_sum_assignment(cost)[1], dtype=np.int64)


def _refined(
    allowed: Symmetry,
    first: Weights,
    second: Weights,
    places: Mapping[int, list[Place]],
    found: Permutation,
) -> Permutation:
    """Match by entries, as long as tensors differ, given the permutations of the other factors."""
    for _ in range(_ROUNDS):
        moved = allowed.apply(found, first)
        wrong = {name for name in moved if _distance(moved[name], second[name]) > _CLOSE}
        if not wrong:
            break
        before = {factor: order.copy() for factor, order in found.items()}
        for factor in allowed.sizes:
            hit = [place for place in places[factor] if place[0] in wrong]
            if hit:
                identity = {**found, factor: np.arange(allowed.sizes[factor])}
                names = {place[0]: first[place[0]] for place in hit}
                held = allowed.apply(identity, names)
                gain = sum(_correlation(rows(second, place), rows(held, place)) for place in hit)
                found[factor] = np.asarray(linear_sum_assignment(-np.asarray(gain))[1], dtype=np.int64)
        if all((before[factor] == found[factor]).all() for factor in found):
            break
    return found


def _correlation(one: Floats, two: Floats) -> Floats:
    size = float(np.mean(one**2)) or 1.0
    return np.asarray(one @ two.T) / size


def _distance(one: Floats, two: Floats) -> float:
    size = float(np.sqrt(np.mean(two**2))) if two.size else 0.0
    off = float(np.sqrt(np.mean((one - two) ** 2))) if two.size else 0.0
    return off / size if size else (np.inf if off else 0.0)
