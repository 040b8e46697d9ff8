"""Cyclic coordinate descent (Stock et al. 2019, algorithm 1), a channel group at a time.

For a variable with rising mass L and falling mass R the exact minimiser is  z <- z + log(R / L) / (2 p).  All
variables of a group move at once; if D is the largest sum of |coefficients| of one exponent within the
group, dividing the step by D keeps Phi from rising (weighted arithmetic-geometric mean inequality;
D = 1 unless a weight joins a group to itself).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphnorm.solver.arrays import Array
from graphnorm.solver.descent import Descent
from graphnorm.solver.groups import Group
from graphnorm.solver.method import Limits, Run


def sweep(at: Descent, groups: Sequence[Group], relax: float = 1.0) -> float:
    """Update every group once, in the given order; returns the largest |log(in / out)| met on the way."""
    worst = [update(at, group, *at.meeting(group)[:2], relax) for group in groups]
    return float(at.xp.stack(worst).max()) if worst else 0.0  # the cycle's one synchronisation


def update(at: Descent, group: Group, rising: Array, falling: Array, relax: float = 1.0) -> Array:
    """Move a group to its minimiser; the largest |log(in / out)| before."""
    step, worst = at.arrays.log_ratio(falling, rising)
    at.shift_group(group, step * (relax / (2.0 * at.p * group.degree)))
    return worst


def cyclic(at: Descent, limits: Limits) -> Run:
    """Sweeps alone, in the order of the network: hundreds of them in deep networks."""
    return sweeps(at, limits, at.groups)


def sweeps(
    at: Descent, limits: Limits, groups: Sequence[Group], correct: Callable[[], None] | None = None
) -> Run:
    """Sweeps over the groups in the given order, each after a correction if there is one."""
    cycles, left = 0, at.imbalance()
    while left > limits.tol and cycles < limits.max_cycles:
        if correct is not None:
            correct()
        seen = sweep(at, groups)
        cycles += 1
        limits.tell(at, cycles, seen)
        if seen <= limits.tol or cycles == limits.max_cycles:
            left = at.imbalance()
    return Run(cycles, left)
