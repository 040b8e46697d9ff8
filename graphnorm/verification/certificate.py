"""The certificate: a proof of equivalence that covers all inputs, over the reals.

Given the constraints that the rules state for a network, log-scales x of its labels and two sets of
weights, equivalence follows from two checks on arrays: x satisfies every equation, and each new weight is
the old one times the demanded coefficient, correctly rounded (no error at all where coefficients are
powers of two) and without losing what counts below the normal range (see `underflow`).  Weights without a
coefficient must be the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphnorm import ir
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.scales.demands import Demand
from graphnorm.scales.labels import align
from graphnorm.util.typing import Floats
from graphnorm.weights.coefficients import LOG2, coefficient
from graphnorm.weights.underflow import underflowed

_COUNTING = 1e-6  # of what is admitted: distances are computed in float64, from products that are rounded
_WHOLE = 1e-6  # distance of a power of two's exponent from an integer
_ROUNDINGS = 2.0  # half ulps of a slice that may underflow, whatever is admitted elsewhere
_EQUATION_TOLERANCE = 1e-9  # log-scales are float64; the largest |x| in practice is below 100


@dataclass(frozen=True, slots=True)
class Computed:
    """Bounds on the rounding of a weight that a normal form computed from the models' own weights.

    Attributes:
        old: sums of absolute values behind each entry, of the original.
        new: of the other network.
        eps: precision of the finer of both models' float types.
    """

    old: Floats
    new: Floats
    eps: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """Outcome of a certificate check.

    Attributes:
        valid: whether the proof holds.
        exact: whether every entry is the product without rounding.
        worst_ulp: largest distance of a new weight from its product, in units of half an ulp.
        failure: what failed, and where; empty if nothing.
        remark: further information for the reader.
    """

    valid: bool
    exact: bool
    worst_ulp: float
    failure: str = ""
    remark: str = ""


def check_certificate(
    graph: RescalingGraph,
    new: Mapping[str, ir.Array],
    x: Floats,
    exact: bool = False,
    slack: float = 1.0,
    computed: Mapping[str, Computed] | None = None,
) -> Certificate:
    """Check that `new` are the weights of `graph`'s network under label log-scales `x`.

    Args:
        graph: the analysed original.
        new: all weights of the other network, by name.
        x: log-scale of each label.
        exact: coefficients are powers of two.
        slack: admitted rounding, in half ulps (1 for weights rounded once).
        computed: weights that were computed: theirs are half ulps of the sums behind them, and twice as many.
    """
    failure = violated_equation(graph, x) or (_no_power_of_two(graph, x) if exact else "")
    if failure:
        return Certificate(False, False, np.inf, failure)
    demands: dict[str, list[Demand]] = {}
    for demand in graph.demands:
        demands.setdefault(demand.weight, []).append(demand)
    worst, all_exact = 0.0, True
    for name, old in graph.network.weights.items():
        other, sums = new.get(name), (computed or {}).get(name)
        if other is None or other.shape != old.shape or (sums is None and other.dtype != old.dtype):
            return Certificate(
                False, False, np.inf, f"weight {name!r} has no counterpart of its shape and type"
            )
        factor = coefficient(graph, demands[name], x, exact) if name in demands else np.ones(1)
        if sums is not None:
            distance, exactly = _distance_of_sums(old, other, factor, sums) / 2, False
        else:
            distance, exactly = _distance(old, other, factor)
        pinned = sums is None and _moves_pinned(graph, demands.get(name, []), old, other, factor)
        below = None if sums is not None else underflowed(old, other, [factor], min(slack, _ROUNDINGS))
        if below is not None:
            lost = (
                f"{int(below.sum())} of {old.size} entries, which fall below the normal range of {old.dtype}"
            )
            return Certificate(False, False, distance, f"weight {name!r} loses what counts of {lost}")
        if pinned or not distance <= slack * (1 + _COUNTING):
            return Certificate(
                False,
                False,
                distance,
                f"weight {name!r} is {distance:.3g} half ulps off its coefficient{', which is 1' * pinned}",
            )
        worst, all_exact = max(worst, distance), all_exact and exactly
    return Certificate(True, all_exact, worst)


def violated_equation(graph: RescalingGraph, x: Floats) -> str:
    """The first equation that log-scales do not satisfy; empty if they satisfy all."""
    if x[0] != 0.0:
        return "the pinned label has a scale"
    for batch in graph.scales.constraints.rows:
        scales = x[batch.labels]
        residual = np.abs(scales @ np.array(batch.coefficients))
        # Row by row: a large scale must not hide an error in another.
        wrong = ~(residual <= _EQUATION_TOLERANCE * (1 + np.abs(scales).max(axis=-1, initial=0.0)))
        if wrong.any():
            worst = residual[wrong].max()
            return f"equation of {graph.node_label(batch.node)} ({batch.reason}) is off by {worst:.3g}"
    return ""


def _no_power_of_two(graph: RescalingGraph, x: Floats) -> str:
    """Rounding to powers of two keeps the equations only where there is nothing to round."""
    fractional = (d for d in graph.demands if any(c != round(c) for c, _ in d.terms))
    for scales in (x, *(graph.demand_scale(demand, x) for demand in fractional)):
        powers = np.asarray(scales) / LOG2
        off = np.abs(powers - np.rint(powers)).max(initial=0.0)
        if not off <= _WHOLE:
            return f"a coefficient is not a power of two: its exponent is off by {off:.3g}"
    return ""


def _moves_pinned(
    graph: RescalingGraph, demands: Sequence[Demand], old: ir.Array, new: ir.Array, factor: Floats
) -> bool:
    """Whether an entry differs that no rescaling may change: its consumer may not be continuous."""
    changed = (old != new) & ((old == old) | (new == new)) & (factor == 1.0)
    if not changed.any():
        return False
    free = np.diff(graph.solution.basis.indptr) > 0  # labels that are not 0 in all solutions
    index = np.arange(old.size).reshape(old.shape)
    loose = np.zeros(old.size, dtype=bool)
    for demand in demands:
        region = demand.region(index)
        for _, labels in demand.terms:
            loose[region.ravel()] |= np.broadcast_to(align(free[labels], region.ndim), region.shape).ravel()
    return bool((changed.ravel() & ~loose).any())


def _distance(old: ir.Array, new: ir.Array, factor: Floats) -> tuple[float, bool]:
    """Largest |new - old * factor| in half ulps of the product, and whether all are exact."""
    if factor.size == 1 and factor.flat[0] == 1.0:
        same = np.array_equal(old, new, equal_nan=True)
        return (0.0, True) if same else (_half_ulps(old.astype(np.float64), new), False)
    return _half_ulps(old.astype(np.float64) * factor, new), bool(
        (old.astype(np.float64) * factor == new).all()
    )


def _distance_of_sums(old: ir.Array, new: ir.Array, factor: Floats, sums: Computed) -> float:
    """Largest |new - old * factor| in half ulps of the larger sum of absolute values."""
    expected = old.astype(np.float64) * factor
    size = np.maximum(sums.old * factor, sums.new)
    with np.errstate(all="ignore"):
        off = np.abs(new.astype(np.float64) - expected) / (size * sums.eps / 2)
    return float(np.where(new == expected, 0.0, off).max(initial=0.0))


def _half_ulps(expected: Floats, new: ir.Array) -> float:
    info = ir.float_format(new.dtype)
    magnitude = np.maximum(np.abs(expected), info.smallest_normal)
    half_ulp = np.exp2(np.floor(np.log2(magnitude)) - 1) * info.eps
    off = np.abs(new.astype(np.float64) - expected)
    if new.dtype == np.float64:  # the product itself is rounded in float64
        half_ulp = half_ulp * 2
    wrong = ~(off <= 0)  # NaN too
    return float((off[wrong] / half_ulp[wrong]).max(initial=0.0))
