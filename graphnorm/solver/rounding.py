"""Integer coordinate descent: the least Phi that coordinate moves reach on a lattice of log-scales.

Moving a variable with rising mass L, falling mass R by k units u costs L exp(p k u) + R exp(-p k u): convex
in k, so the best k is one of the two integers around log(R / L) / (2 p u).  All variables of a group move at
once, which is exact unless a weight joins the group to itself; there a move is undone if Phi rises.
"""

from __future__ import annotations

import numpy as np

from graphnorm.solver.arrays import Array, NumpyArrays
from graphnorm.solver.descent import Descent
from graphnorm.solver.groups import Group
from graphnorm.solver.problem import Problem, objective
from graphnorm.solver.solve import hold
from graphnorm.util.typing import Bools, Floats

_PASSES = 50  # over all groups; each lowers Phi, and few do in practice
_GAIN = 1e-12  # relative: a move must gain more than rounding, or two moves could undo each other for ever


def integer_descent(
    problem: Problem, z: Floats, units: Floats, movable: Bools, memory: int | None = None
) -> tuple[Floats, float]:
    """Improve log-scales on a lattice.

    Args:
        problem: masses and forms.
        z: a lattice point to start from, shape (count,).
        units: lattice spacing of each variable (log-scale); infinite where it may not move.
        movable: variables that may move.
        memory: bytes for masses.

    Returns:
        The best point found, and Phi there.
    """
    problem = hold(problem, np.dtype(np.float64), memory)
    at = Descent(problem, movable & np.isfinite(units), NumpyArrays(), z * 0.0)
    at.move_to(z)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(_PASSES):
            if not sum(_improve(at, group, units[group.variables]) for group in at.groups):
                break
        best = np.array(at.z)
        return best, objective(problem, best)


def _improve(at: Descent, group: Group, unit: Floats) -> bool:
    rising, falling, _ = at.meeting(group)
    move = best_moves(rising, falling, at.p * unit) * unit
    if not move.any():
        return False
    before = at.objective() if group.degree > 1.0 else np.inf
    at.shift_group(group, move)
    if group.degree > 1.0 and not at.objective() < before:
        at.shift_group(group, -move)
        return False
    return True


def best_moves(rising: Array, falling: Array, spacing: Array) -> Array:
    """Integers k that minimise rising exp(k spacing) + falling exp(-k spacing); 0 in doubt.

    Where nothing rises or nothing falls the minimum is at infinity and its cost NaN, which is not better.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        ideal = (np.log(falling) - np.log(rising)) / (2.0 * spacing)
        found = np.zeros_like(ideal)
        least = (rising + falling) * (1 - _GAIN)
        for k in (np.floor(ideal), np.ceil(ideal)):
            cost = rising * np.exp(k * spacing) + falling * np.exp(-k * spacing)
            better = cost < least
            found, least = np.where(better, k, found), np.where(better, cost, least)
        return found
