"""From log-scales to new weights: W' = W * exp(scale), computed in float64 and rounded once.

In exact mode every coefficient is a power of two, so the product is exact unless it leaves the range of
the weight's float format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from graphnorm import ir
from graphnorm.graph import Floats, RescalingGraph
from graphnorm.scales.demands import Demand

LOG2 = float(np.log(2.0))


@dataclass(frozen=True, slots=True)
class Rescaled:
    """New weights, and what they were multiplied by.

    Attributes:
        weights: name -> new values (only weights that change).
        coefficients: name -> float64 factors, broadcastable to the weight.
        lost: variables whose coefficient made an entry overflow (exact mode: made it inexact).
    """

    weights: Mapping[str, ir.Array]
    coefficients: Mapping[str, Floats]
    lost: npt.NDArray[np.int64]


def rescale(graph: RescalingGraph, z: Floats, exact: bool = False) -> Rescaled:
    """Apply the rescaling with log-scales `z` to the weights of `graph`."""
    x = graph.log_scales(z)
    by_weight: dict[str, list[Demand]] = {}
    for demand in graph.movable():
        by_weight.setdefault(demand.weight, []).append(demand)
    weights: dict[str, ir.Array] = {}
    coefficients: dict[str, Floats] = {}
    lost: list[npt.NDArray[np.int64]] = []
    for name, demands in by_weight.items():
        old = graph.network.weights[name]
        factor = coefficient(graph, demands, x, exact)
        if (factor == 1.0).all():
            continue
        with np.errstate(over="ignore", under="ignore"):
            exact_value = old.astype(np.float64) * factor
            new = round_once(exact_value, old.dtype)
        bad = ~np.isfinite(new) & np.isfinite(exact_value)
        if exact:
            bad |= new.astype(np.float64) != exact_value
        if bad.any():
            lost += [_variables_at(graph, demand, bad) for demand in demands]
        weights[name], coefficients[name] = new, factor
    involved = np.unique(np.concatenate(lost)) if lost else np.empty(0, dtype=np.int64)
    return Rescaled(weights, coefficients, involved)


def round_once(values: Floats, dtype: np.dtype[Any]) -> ir.Array:
    """Round float64 to nearest, ties to even, in one step.

    NumPy's bfloat16 goes through float32, which rounds twice; rounding to odd there undoes the harm.
    """
    if dtype.name != "bfloat16":
        return np.asarray(values.astype(dtype))
    near = np.asarray(values.astype(np.float32))
    inexact = (near != values) & np.isfinite(near)
    toward_zero = np.where(np.abs(near) > np.abs(values), np.nextafter(near, np.float32(0.0)), near)
    odd = (toward_zero.view(np.int32) | 1).view(np.float32)
    return np.asarray(np.where(inexact, odd, near).astype(dtype))


def coefficient(graph: RescalingGraph, demands: list[Demand], x: Floats, exact: bool = False) -> Floats:
    """The factors of one weight, broadcastable to it, from the label log-scales `x`."""
    shape = graph.network.weights[demands[0].weight].shape
    if len(demands) == 1 and not demands[0].path:
        return _exponential(graph.demand_scale(demands[0], x), exact)
    index = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    factor = np.ones(index.size)
    for demand in demands:
        region = demand.region(index)
        scale = _exponential(graph.demand_scale(demand, x), exact)
        factor[region.ravel()] = np.broadcast_to(scale, region.shape).ravel()
    return factor.reshape(shape)


def _exponential(scale: Floats, exact: bool) -> Floats:
    if exact:
        return np.asarray(np.exp2(np.rint(scale / LOG2)))
    return np.asarray(np.exp(scale))


def _variables_at(graph: RescalingGraph, demand: Demand, bad: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The variables in the scales of the marked entries of a weight."""
    hit = demand.region(np.asarray(bad))
    labels = [np.broadcast_to(array, hit.shape)[hit] for _, array in demand.terms]
    forms = sp.csr_array(graph.solution.basis[np.unique(np.concatenate(labels))])
    return np.asarray(forms.indices, dtype=np.int64)


def powers_of_two(graph: RescalingGraph, z: Floats) -> Floats:
    """Round log-scales so that every label's coefficient is a power of two."""
    basis = graph.solution.basis.tocsc()
    step = np.ones(len(z))
    fractional = basis.data != np.rint(basis.data)
    for variable in np.unique(np.repeat(np.arange(len(z)), np.diff(basis.indptr))[fractional]):
        entries = basis.data[basis.indptr[variable] : basis.indptr[variable + 1]]
        step[variable] = next((q for q in range(2, 65) if _integral(entries * q)), np.inf)
    with np.errstate(invalid="ignore"):
        rounded = np.rint(z / (LOG2 * step)) * step * LOG2
    return np.where(np.isfinite(step), rounded, 0.0)


def _integral(values: Floats) -> bool:
    return bool((np.abs(values - np.rint(values)) < 1e-9).all())
