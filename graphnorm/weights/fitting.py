"""Solving within the range of a float format: overflowing channels stay, exact mode is rounded."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.solver.problem import Problem, objective
from graphnorm.solver.rounding import integer_descent
from graphnorm.solver.solve import Solution
from graphnorm.util.typing import Floats
from graphnorm.weights.coefficients import LOG2, Rescaled, lattice, powers_of_two, rescale

ROUNDS = 8  # of freezing channels whose coefficients leave the float format


@dataclass(frozen=True, slots=True)
class Fit:
    """A solution that the float formats of all weights hold.

    Attributes:
        solution: the solver's.
        rescaled: the new weights; `lost` are the variables that were held at 1.
        x: log-scale of each label, a multiple of log 2 in exact mode.
        objective: at `x`.
    """

    solution: Solution
    rescaled: Rescaled
    x: Floats
    objective: float


def fit(
    graph: RescalingGraph,
    problem: Problem,
    exact: bool,
    solved: Callable[[npt.NDArray[np.bool_]], Solution],
    held: npt.NDArray[np.bool_],
    memory: int,
) -> Fit:
    """Solve and apply; channels that are `held` or don't fit the float format stay at 1."""
    frozen = held.copy()
    for attempt in itertools.count():
        solution = solved(frozen)
        z, final = solution.z, solution.after
        if exact:
            z, final = _rounded(graph, problem, solution, frozen, memory)
        rescaled = rescale(graph, z, exact)
        if not len(rescaled.involved):
            break
        misfit = rescaled.lost if not frozen[rescaled.lost].all() else rescaled.involved
        if attempt >= ROUNDS:
            misfit = np.flatnonzero(np.isin(problem.groups, problem.groups[misfit]))
        if frozen[misfit].all():
            misfit = np.arange(problem.count)
        frozen[misfit] = True
    x = graph.log_scales(z)
    if exact:
        x = np.asarray(np.rint(x / LOG2) * LOG2)
    return Fit(solution, replace(rescaled, lost=np.flatnonzero(frozen)), x, final)


def _rounded(
    graph: RescalingGraph, problem: Problem, solution: Solution, frozen: npt.NDArray[np.bool_], memory: int
) -> tuple[Floats, float]:
    """The best powers of two that integer descent finds near the optimum; never worse than no change."""
    movable = ~frozen
    movable[solution.degenerate] = False
    if not np.isfinite(problem.p):
        z = powers_of_two(graph, solution.z)
        final = objective(problem, z)
    else:
        z, final = integer_descent(problem, powers_of_two(graph, solution.z), lattice(graph), movable, memory)
    return (z, final) if final <= solution.before else (np.zeros_like(z), solution.before)
