"""The default method: coarse cycles, finished by Newton-CG where they converge slowly."""

from __future__ import annotations

import math

from graphnorm.solver.coarse import Coarse
from graphnorm.solver.cyclic import sweep
from graphnorm.solver.descent import Descent
from graphnorm.solver.method import Limits, Run
from graphnorm.solver.newton import step

_FIRST = 5  # cycles before Newton: far from the optimum its step is cut short
_PATIENCE = 12  # cycles that may still follow before a Newton step is cheaper
_RELAX_FROM = 4  # cycles after which the rate is trusted
_RELAX_MOST = 1.3  # the rate is an estimate; too large a factor oscillates, 2 is the limit of descent
_LITTLE = 0.01  # of the imbalance: a correction by less makes the next one superfluous
_STALLED = 6  # cycles without a better imbalance, near the optimum: only rounding is left


def auto(at: Descent, limits: Limits) -> Run:
    """Coarse correction, Newton step if the cycles to come are too many, over-relaxed sweep.

    For a rate rho of plain sweeps the best relaxation is 2 / (1 + sqrt(1 - rho)) (Young 1954); below 2 it
    never lets Phi rise, since Phi is a hyperbolic cosine of each step.
    """
    correction = Coarse(at)
    cycles, left = 0, at.imbalance()
    seen, rate, best, since, relax, rest = math.inf, 0.0, math.inf, 0, 1.0, False
    while left > limits.tol and cycles < limits.max_cycles and since < _STALLED:
        if rest:
            rest = False
        else:
            shift = correction.shift()
            at.move_to(at.z + shift)
            rest = at.p * float(abs(shift).max()) < _LITTLE * seen < math.inf
        if cycles >= _FIRST and seen * rate**_PATIENCE > limits.tol and cycles + 1 < limits.max_cycles:
            step(at, correction, limits.tol / seen)
            cycles, relax = cycles + 1, 1.0
        previous, seen = seen, sweep(at, at.coloured, relax)
        rate = seen / previous if math.isfinite(previous) and previous > 0 else 0.0
        cycles += 1
        if cycles == _RELAX_FROM and rate < 1.0:
            relax = min(2.0 / (1.0 + math.sqrt(1.0 - rate)), _RELAX_MOST)
        limits.tell(at, cycles, seen)
        since = 0 if seen < 0.9 * best or seen > 1e-3 else since + 1
        best = min(best, seen)
        expected = seen * min(rate, 1.0)  # `seen` is from before the sweep's steps; 0 after the first sweep
        if expected <= limits.tol or cycles >= limits.max_cycles or since >= _STALLED:
            left = at.imbalance()
    return Run(cycles, left)
