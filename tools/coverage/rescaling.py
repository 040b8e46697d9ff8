"""A random element of a network's rescaling group, what it touches, and what it does to the outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from graphnorm.ir import Array
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.scales.demands import Demand
from graphnorm.util.typing import Floats
from graphnorm.weights.coefficients import coefficient
from tools.coverage.records import Record

LARGEST = 3.0  # log-scale: coefficients stay within a factor of 20
PROBES = 3


def random_element(graph: RescalingGraph, typical: float = 0.4, seed: int = 0) -> Floats:
    """Independent variables, normally distributed; labels' log-scales have the root mean square `typical`."""
    z: Floats = np.random.default_rng(seed).normal(size=graph.solution.count)
    x = graph.log_scales(z)
    moved = np.abs(x[x != 0])
    if not moved.size:
        return z
    return z * min(typical / float(np.sqrt(np.mean(moved**2))), LARGEST / float(moved.max()))


class Coefficients(Mapping[str, Floats]):
    """The factors of each weight under a rescaling, computed when asked for: together they may be large."""

    def __init__(self, graph: RescalingGraph, z: Floats) -> None:
        self._graph, self._x = graph, graph.log_scales(z)
        self._demands: dict[str, list[Demand]] = {}
        for demand in graph.movable():
            self._demands.setdefault(demand.weight, []).append(demand)

    def __getitem__(self, name: str) -> Floats:
        return coefficient(self._graph, self._demands[name], self._x)

    def __iter__(self) -> Iterator[str]:
        return iter(self._demands)

    def __len__(self) -> int:
        return len(self._demands)


def describe(record: Record, graph: RescalingGraph, coefficients: Mapping[str, Floats]) -> None:
    """Fill in sizes, what moves, and operators without a rule."""
    weights = graph.network.weights
    record.nodes, record.dimension = len(graph.network.nodes), graph.dimension
    record.tensors, record.entries = len(weights), sum(array.size for array in weights.values())
    record.unknown = {operator: len(where) for operator, where in graph.scales.unknown.items()}
    record.moved_tensors = len(coefficients)
    record.moved_entries = sum(
        int(np.count_nonzero(np.broadcast_to(factor != 1.0, weights[name].shape)))
        for name, factor in coefficients.items()
    )


def probes(weights: Iterable[str]) -> list[str]:
    """A few weights, from the first to the last: rescaled alone, each should change the outputs."""
    names = list(weights)
    chosen = np.linspace(0, len(names) - 1, min(PROBES, len(names))).round().astype(int)
    return [names[index] for index in chosen]


def difference(before: Sequence[Array], after: Sequence[Array]) -> float:
    """Largest relative difference of an output.

    Infinite where integers, shapes or non-finite entries differ, and where there is nothing to compare.
    """
    if [array.shape for array in before] != [array.shape for array in after]:
        return np.inf
    return max((_distance(*pair) for pair in zip(before, after, strict=True)), default=np.inf)


def _distance(one: Array, two: Array) -> float:
    if not np.issubdtype(one.dtype, np.inexact):
        return 0.0 if np.array_equal(one, two) else np.inf
    finite = np.isfinite(one)
    if not np.array_equal(one[~finite], two[~finite], equal_nan=True) or (one.size and not finite.any()):
        return np.inf
    off = float(np.linalg.norm(two[finite] - one[finite]))
    if off == 0.0:
        return 0.0
    return off / max(float(np.linalg.norm(one[finite])), 1e-300) if np.isfinite(off) else np.inf
