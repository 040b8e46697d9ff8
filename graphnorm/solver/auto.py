"""The default method: coarse cycles, finished by Newton-CG where they converge slowly."""

from __future__ import annotations

import math

from graphnorm.solver.coarse import Coarse
from graphnorm.solver.cyclic import sweep
from graphnorm.solver.descent import Descent
from graphnorm.solver.method import Limits, Run
from graphnorm.solver.newton import step

_FIRST = 4  # cycles before Newton: far from the optimum its step is cut short
_PATIENCE = 4  # cycles that may still follow before Newton is cheaper
_STALLED = 6  # cycles without a better imbalance, near the optimum: rounding is all that is left


def auto(at: Descent, limits: Limits) -> Run:
    """Coarse correction, Newton step if the cycles to come are too many, sweep."""
    correction = Coarse(at)
    cycles, left = 0, at.imbalance()
    seen, rate, best, since = math.inf, 0.0, math.inf, 0
    while left > limits.tol and cycles < limits.max_cycles and since < _STALLED:
        at.move_to(at.z + correction.shift())
        if cycles >= _FIRST and seen * rate**_PATIENCE > limits.tol and cycles + 1 < limits.max_cycles:
            step(at)
            cycles += 1
        previous, seen = seen, sweep(at)
        rate = seen / previous if math.isfinite(previous) and previous > 0 else 0.0
        cycles += 1
        limits.tell(at, cycles, seen)
        since = 0 if seen < 0.9 * best or seen > 1e-3 else since + 1
        best = min(best, seen)
        if seen <= limits.tol or cycles >= limits.max_cycles or since >= _STALLED:
            left = at.imbalance()
    return Run(cycles, left)
