"""Cyclic coordinate descent (Stock et al. 2019, algorithm 1) by channel group, with coarse correction.

For a variable with rising mass L and falling mass R the exact minimiser is  z <- z + log(R / L) / (2 p).  All
variables of a group move at once; if D is the largest sum of |coefficients| of one exponent within the
group, dividing the step by D keeps Phi from rising (weighted arithmetic-geometric mean inequality;
D = 1 unless a weight joins a group to itself).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphnorm.solver.coarse import coarse_shift
from graphnorm.solver.degenerate import bounded
from graphnorm.solver.newton import newton_step
from graphnorm.solver.problem import (
    Block,
    Floats,
    Integers,
    Problem,
    Side,
    add_flow,
    flows,
    imbalance,
    objective,
    restrict,
)

_SWEEPS_FIRST = 4  # Newton is for the end: far from the optimum its step is cut short
_PATIENCE = 4  # sweeps that may still follow before Newton is cheaper


@dataclass(frozen=True)
class Solution:
    """A minimiser and how it was reached.

    Attributes:
        z: log-scales of the variables; degenerate and irrelevant ones are 0.
        cycles: sweeps over all groups, Newton steps counted too.
        imbalance: max |log(in / out)| at `z`.
        before: objective at 0.
        after: objective at `z`.
        converged: whether `imbalance` reached the tolerance.
        degenerate: variables without a minimiser, left at 0.
    """

    z: Floats
    cycles: int
    imbalance: float
    before: float
    after: float
    converged: bool
    degenerate: Integers


def solve(
    problem: Problem,
    tol: float = 1e-8,
    max_cycles: int = 1000,
    coarse: bool = True,
    frozen: npt.NDArray[np.bool_] | None = None,
) -> Solution:
    """Minimise Phi.

    Args:
        problem: masses and forms.
        tol: stop when max |log(in / out)| <= tol.
        max_cycles: at most so many sweeps.
        coarse: follow each sweep by a coarse correction.
        frozen: variables to hold at 0.
    """
    start = np.zeros(problem.count)
    before = objective(problem, start)
    touched = np.zeros(problem.count, dtype=bool)
    for block in problem.blocks:
        touched[block.rows.forms.indices] = True
        touched[block.columns.forms.indices] = True
    held = np.zeros(problem.count, dtype=bool) if frozen is None else frozen
    inner = restrict(problem, ~held) if held.any() else problem
    active = bounded(inner) & touched & ~held
    degenerate = np.flatnonzero(touched & ~held & ~active)
    inner = restrict(inner, active) if len(degenerate) else inner
    z, cycles, left = _descend(inner, active, tol, max_cycles, coarse)
    return Solution(z, cycles, left, before, objective(problem, z), left <= tol, degenerate)


def _descend(
    problem: Problem, active: npt.NDArray[np.bool_], tol: float, max_cycles: int, coarse: bool
) -> tuple[Floats, int, float]:
    z = np.zeros(problem.count)
    left = imbalance(*flows(problem, z), active)
    sweeps = _incidences(problem)
    cycles, seen, rate = 0, np.inf, 0.0
    while left > tol and cycles < max_cycles:
        if coarse:
            z = z + np.where(active, coarse_shift(problem, z), 0.0)
            if cycles >= _SWEEPS_FIRST and seen * rate**_PATIENCE > tol:
                z = newton_step(problem, z, active)
                cycles += 1
        previous = seen
        seen = _sweep(problem, sweeps, z)
        rate = seen / previous if np.isfinite(previous) and previous > 0 else 0.0
        cycles += 1
        if seen <= tol or not coarse or cycles == max_cycles:
            left = imbalance(*flows(problem, z), active)
    return z, cycles, left


@dataclass(frozen=True)
class _Group:
    """What one group's update reads: (block, axis, entries) and its variables."""

    variables: Integers
    parts: tuple[tuple[Block, int, slice], ...]
    degree: float


def _incidences(problem: Problem) -> list[_Group]:
    parts: list[list[tuple[Block, int, slice]]] = [[] for _ in range(problem.group_count)]
    degree = np.ones(problem.group_count)
    for block in problem.blocks:
        for axis, side in enumerate((block.rows, block.columns)):
            for part, profile in zip(side.segments, side.profiles, strict=True):
                for group, _ in profile:
                    parts[group].append((block, axis, part))
        rows, columns = (_largest(side, problem.groups) for side in (block.rows, block.columns))
        for group in rows.keys() | columns.keys():
            degree[group] = max(degree[group], rows.get(group, 0.0) + columns.get(group, 0.0))
    order = np.argsort(problem.groups, kind="stable")
    bounds = np.searchsorted(problem.groups[order], np.arange(problem.group_count + 1))
    return [
        _Group(order[bounds[g] : bounds[g + 1]], tuple(parts[g]), float(degree[g]))
        for g in range(problem.group_count)
        if parts[g]
    ]


def _largest(side: Side, groups: Integers) -> dict[int, float]:
    """Per group, the largest sum of |coefficients| in one form of this side."""
    found: dict[int, float] = {}
    for part in side.segments:
        at = slice(side.forms.indptr[part.start], side.forms.indptr[part.start + 1])
        totals: dict[int, float] = {}
        for group, c in zip(
            groups[side.forms.indices[at]].tolist(), side.forms.data[at].tolist(), strict=True
        ):
            totals[group] = totals.get(group, 0.0) + abs(c)
        for group, total in totals.items():
            found[group] = max(found.get(group, 0.0), total)
    return found


def _sweep(problem: Problem, groups: list[_Group], z: Floats) -> float:
    """Update every group once, in place; returns the largest imbalance met on the way."""
    worst = 0.0
    p = problem.p
    rising, falling = np.zeros(problem.count), np.zeros(problem.count)
    for group in groups:
        mine = group.variables
        rising[:] = 0.0
        falling[:] = 0.0
        for block, axis, part in group.parts:
            near, far = (block.rows, block.columns) if axis == 0 else (block.columns, block.rows)
            forms = near.forms[part]
            other = p * (far.forms @ z)
            shift = other.max(initial=0.0)
            mass = (block.segment(axis, part) @ np.exp(other - shift)) * np.exp(p * (forms @ z) + shift)
            add_flow(forms, mass, rising, falling)
        live = (rising[mine] > 0) & (falling[mine] > 0)
        moved = mine[live]
        step = np.log(falling[moved]) - np.log(rising[moved])
        worst = max(worst, float(np.abs(step).max(initial=0.0)))
        z[moved] += step / (2.0 * p * group.degree)
    return worst
