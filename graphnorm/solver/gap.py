"""Certificate of optimality: how far Phi is above its minimum, at most.

With masses Phi_e = A_e exp(G_e z) and y = G x, every lambda >= 0 gives, for all x,

    Phi(z + x) >= sum_e lambda_e (1 - log(lambda_e / Phi_e)) + (G^T lambda) . x .

Take lambda = Phi (1 + delta), delta = G d, with H d = -g solved once: G^T lambda = g + H d = rho is almost 0,
and

    Phi(z) - Phi* <= sum_e Phi_e [(1 + delta) log(1 + delta) - delta] - rho . x* .

The sum is at most kappa d^T H d, kappa the bracket over delta^2 at the smallest delta; |x*| is bounded by
`bounds`.  However d was found, the bound holds.
"""

from __future__ import annotations

import math

import numpy as np

from graphnorm.solver.bounds import bounds
from graphnorm.solver.coarse import Coarse
from graphnorm.solver.descent import Descent
from graphnorm.solver.laplacian import Laplacian
from graphnorm.solver.newton import conjugate_gradient, two_levels

_REFINEMENTS = 3  # each gains the tolerance of a solve, 1e-8; two reach rounding
_ITERATIONS = 300  # of conjugate gradients; the bound is valid however far they get
_ENOUGH = 1e-15  # below the rounding of Phi itself


def relative_gap(at: Descent, fast: Descent | None = None) -> float:
    """Certified bound of (Phi - Phi*) / Phi at the current point; inf if there is none (too far away).

    Args:
        at: the point, with masses in float64.
        fast: the same point with masses in lower precision, for the solve.
    """
    if not at.any_active or not at.blocks:
        return 0.0
    exact = Laplacian(at)
    rough = exact if fast is None else Laplacian(fast)
    scale = math.exp(rough.level - exact.level)
    box = bounds(at)
    radius = np.maximum(np.abs(box.lower), np.abs(box.upper))
    radius[~at.arrays.host(at.active)] = 0.0
    reach = at.arrays.array(radius)
    precondition = two_levels(rough, Coarse(at if fast is None else fast))
    d = at.arrays.zeros(at.count)
    residual, best = exact.gradient, math.inf
    for _ in range(_REFINEMENTS):
        d = d + conjugate_gradient(
            lambda v: rough.product(v) * scale, -residual, precondition, _ITERATIONS, tolerance=1e-8
        )
        image = exact.product(d)
        residual = exact.gradient + image
        bound = _bound(at, d, float((d * image).sum()), float((abs(residual) * reach).sum()))
        best = min(best, bound / exact.value)
        if best <= _ENOUGH or not math.isfinite(best):
            break
    return best


def _bound(at: Descent, d: object, quadratic: float, outside: float) -> float:
    extended = at.arrays.zeros(at.count + 1)
    extended[:-1] = d
    largest = max(
        sum(float(abs(side.exponent(extended)).max()) for side in block.sides if side.slots)
        for block in at.blocks
    )
    if largest >= 1.0:
        return math.inf
    return _kappa(largest) * max(quadratic, 0.0) + outside


def _kappa(largest: float) -> float:
    """[(1 + t) log(1 + t) - t] / t^2 at t = -largest, its largest value for |t| <= largest < 1."""
    if largest < 1e-3:  # series: 1/2 + largest/6 + ..., without cancellation
        return 0.5 + largest / 3
    return ((1 - largest) * math.log1p(-largest) + largest) / largest**2
