"""Why the objective has no minimum along a scale.

The mass that grows with a channel's scale is that of the weights which produce the channel, the mass that
shrinks that of the weights which read it.  Where one of them is 0 the other shrinks for ever.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from graphnorm.graph import RescalingGraph
from graphnorm.objective import build_problem
from graphnorm.solver.cyclic import solve
from graphnorm.solver.problem import flows

Integers = npt.NDArray[np.int64]

DEAD = "no non-zero weight produces it, none reads it"
NO_WAY_IN = "no non-zero weight produces it"
NO_WAY_OUT = "no non-zero weight reads it"
NO_WAY_THROUGH = "on one side non-zero weights join it only to channels without a minimum"


class MissingMinimum:
    """The variables without a minimiser, and the masses on both their sides."""

    def __init__(self, graph: RescalingGraph) -> None:
        problem = build_problem(graph)
        self.variables: Integers = solve(problem, max_cycles=0).degenerate
        self._rising, self._falling = flows(problem, np.zeros(problem.count))
        self._basis = graph.solution.basis

    def reasons(self, labels: Integers) -> dict[str, int]:
        """Reason -> number of labels that depend on degenerate variables alone."""
        found: Counter[str] = Counter()
        if len(self.variables):
            for label in labels.tolist():
                row = self._basis[[label]]
                if row.nnz and np.isin(row.indices, self.variables).all():
                    found[self._reason(int(row.indices[0]), float(row.data[0]))] += 1
        return dict(found)

    def _reason(self, variable: int, sign: float) -> str:
        rising, falling = self._rising[variable] > 0, self._falling[variable] > 0
        if sign < 0:
            rising, falling = falling, rising
        if rising and falling:
            return NO_WAY_THROUGH
        if rising or falling:
            return NO_WAY_OUT if rising else NO_WAY_IN
        return DEAD
