"""The certificate: a proof of equivalence that covers all inputs, over the reals.

Given the constraints that the rules state for a network, log-scales x of its labels and two sets of
weights, equivalence follows from two checks on arrays: x satisfies every equation, and each new weight is
the old one times the demanded coefficient, correctly rounded (no error at all where coefficients are
powers of two).  Weights without a coefficient must be the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graphnorm import ir
from graphnorm.coefficients import coefficient
from graphnorm.graph import Floats, RescalingGraph
from graphnorm.scales.demands import Demand

_EQUATION_TOLERANCE = 1e-9  # log-scales are float64; the largest |x| in practice is below 100


@dataclass(frozen=True, slots=True)
class Computed:
    """A weight that a normal form computed from the models' own, and what its rounding is judged by.

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
        failure: what broke, and where; empty if nothing.
    """

    valid: bool
    exact: bool
    worst_ulp: float
    failure: str = ""


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
    failure = _violated_equation(graph, x)
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
        if not distance <= slack * (1 + 1e-6):
            return Certificate(
                False, False, distance, f"weight {name!r} is {distance:.3g} half ulps off its coefficient"
            )
        worst, all_exact = max(worst, distance), all_exact and exactly
    return Certificate(True, all_exact, worst)


def _violated_equation(graph: RescalingGraph, x: Floats) -> str:
    if x[0] != 0.0:
        return "the pinned label has a scale"
    for batch in graph.scales.constraints.rows:
        residual = np.abs(x[batch.labels] @ np.array(batch.coefficients)).max(initial=0.0)
        if not residual <= _EQUATION_TOLERANCE * (1 + np.abs(x[batch.labels]).max(initial=0.0)):
            return f"equation of {graph.node_label(batch.node)} ({batch.reason}) is off by {residual:.3g}"
    return ""


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
