"""From log-scales to new weights: W' = W * exp(scale), computed in float64 and rounded once.

In exact mode every coefficient is a power of two, so the product is exact unless it leaves the range of
the weight's float format.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from graphnorm import ir
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.scales.demands import Demand
from graphnorm.scales.labels import align
from graphnorm.util.threads import side_by_side
from graphnorm.util.typing import Floats
from graphnorm.weights.products import multiplied
from graphnorm.weights.underflow import underflowed

LOG2 = float(np.log(2.0))


@dataclass(frozen=True, slots=True)
class Rescaled:
    """New weights, and what they were multiplied by.

    Attributes:
        weights: name -> new values (only weights that change).
        coefficients: name -> float64 factors, broadcastable to the weight; made when they are asked for.
        lost: variables whose coefficient made an entry overflow or underflow (exact mode: made it inexact).
        involved: those, and the others in the coefficients of such entries.
    """

    weights: Mapping[str, ir.Array]
    coefficients: Mapping[str, Floats]
    lost: npt.NDArray[np.int64]
    involved: npt.NDArray[np.int64]


class Coefficients(Mapping[str, Floats]):
    """Weight name -> factors (not log-scales), float64, broadcastable to the weight.

    Factors of a matrix are as large as twice its float32 entries: they are recomputed at each access.
    """

    def __init__(
        self, graph: RescalingGraph, demands: Mapping[str, list[Demand]], x: Floats, exact: bool
    ) -> None:
        self._graph, self._demands, self._x, self._exact = graph, demands, x, exact

    def __getitem__(self, name: str) -> Floats:
        return coefficient(self._graph, self._demands[name], self._x, self._exact)

    def __iter__(self) -> Iterator[str]:
        return iter(self._demands)

    def __len__(self) -> int:
        return len(self._demands)


def rescale(graph: RescalingGraph, z: Floats, exact: bool = False) -> Rescaled:
    """Apply the rescaling with log-scales `z` to the weights of `graph`."""
    x = graph.log_scales(z)
    by_weight: dict[str, list[Demand]] = {}
    for demand in graph.movable():
        by_weight.setdefault(demand.weight, []).append(demand)

    def one(name: str) -> tuple[ir.Array, npt.NDArray[np.bool_] | None] | None:
        old = graph.network.weights[name]
        factors = factors_of(graph, by_weight[name], x, exact)
        if all((factor == 1.0).all() for factor in factors):
            return None
        new, bad = multiplied(old, factors, exact)
        return new, underflowed(old, new, factors) if bad is None else bad

    done = dict(zip(by_weight, side_by_side(one, by_weight), strict=True))
    changed = {name: result for name, result in done.items() if result is not None}
    marked = [
        (demand, bad) for name, (_, bad) in changed.items() if bad is not None for demand in by_weight[name]
    ]
    lost = _joined(_variables_at(graph, demand, bad, most=True) for demand, bad in marked)
    involved = _joined(_variables_at(graph, demand, bad) for demand, bad in marked)
    kept = {name: by_weight[name] for name in changed}
    weights = {name: new for name, (new, _) in changed.items()}
    return Rescaled(weights, Coefficients(graph, kept, x, exact), lost if len(lost) else involved, involved)


def coefficient(graph: RescalingGraph, demands: list[Demand], x: Floats, exact: bool = False) -> Floats:
    """The factors of one weight, broadcastable to it, from the label log-scales `x`."""
    return np.asarray(functools.reduce(np.multiply, factors_of(graph, demands, x, exact)))


def factors_of(graph: RescalingGraph, demands: list[Demand], x: Floats, exact: bool = False) -> list[Floats]:
    """Factors whose product is `coefficient`: one for each term of a demand, so that none is a matrix."""
    weight = graph.network.weights[demands[0].weight]
    if len(demands) == 1 and not demands[0].path:
        return [
            np.asarray(f).reshape((1,) * (weight.ndim - f.ndim) + f.shape)
            for f in _terms(graph, demands[0], x, exact)
        ]
    index = np.arange(weight.size).reshape(weight.shape)
    factor = np.ones(index.size)
    for demand in demands:
        region = demand.region(index)
        scale = functools.reduce(np.multiply, _terms(graph, demand, x, exact))
        factor[region.ravel()] = np.broadcast_to(scale, region.shape).ravel()
    return [factor.reshape(weight.shape)]


def _terms(graph: RescalingGraph, demand: Demand, x: Floats, exact: bool) -> list[Floats]:
    if exact and any(
        c != round(c) for c, _ in demand.terms
    ):  # half a power of two has to meet its other half
        return [np.exp2(np.rint(graph.demand_scale(demand, x) / LOG2))]
    if exact:
        return [np.exp2(c * np.rint(x[labels] / LOG2)) for c, labels in demand.terms] or [np.ones(())]
    return [np.exp(c * x[labels]) for c, labels in demand.terms] or [np.ones(())]


def _variables_at(
    graph: RescalingGraph, demand: Demand, bad: npt.NDArray[np.bool_], most: bool = False
) -> npt.NDArray[np.int64]:
    """The variables in scales of marked entries of a weight; `most`: of labels with most entries marked."""
    hit = demand.region(np.asarray(bad))
    found = []
    for _, array in demand.terms:
        labels = np.broadcast_to(align(array, hit.ndim), hit.shape)
        if most:
            used = demand.region(graph.network.weights[demand.weight]) != 0
            counts = [np.bincount(labels[at], minlength=graph.scales.constraints.count) for at in (hit, used)]
            found.append(np.flatnonzero((counts[0] > 0) & (2 * counts[0] >= counts[1])))
        else:
            found.append(np.unique(labels[hit]))
    if not found:
        return np.empty(0, dtype=np.int64)
    forms = sp.csr_array(graph.solution.basis[np.unique(np.concatenate(found))])
    return np.asarray(forms.indices, dtype=np.int64)


def _joined(parts: Iterable[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *parts]))


def lattice(graph: RescalingGraph) -> Floats:
    """Spacing of each log-scale for which every label's coefficient is a power of two; inf if none is."""
    basis = graph.solution.basis.tocsc()
    step = np.ones(basis.shape[1])
    fractional = basis.data != np.rint(basis.data)
    for variable in np.unique(np.repeat(np.arange(len(step)), np.diff(basis.indptr))[fractional]):
        entries = basis.data[basis.indptr[variable] : basis.indptr[variable + 1]]
        step[variable] = next((q for q in range(2, 65) if _integral(entries * q)), np.inf)
    return step * LOG2


def powers_of_two(graph: RescalingGraph, z: Floats) -> Floats:
    """Round log-scales so that every label's coefficient is a power of two."""
    step = lattice(graph)
    with np.errstate(invalid="ignore"):
        rounded = np.rint(z / step) * step
    return np.where(np.isfinite(step), rounded, 0.0)


def _integral(values: Floats) -> bool:
    return bool((np.abs(values - np.rint(values)) < 1e-9).all())
