"""Why the objective has no minimum along a scale.

The mass that grows with a channel's scale is that of the weights which produce the channel, the mass that
shrinks that of the weights which read it.  Where one of them is 0 the other shrinks without limit.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.rescaling.objective import build_problem
from graphnorm.solver.problem import flows
from graphnorm.solver.solve import solve
from graphnorm.util.typing import Integers

DEAD = "no non-zero weight produces it, none reads it"
NO_WAY_IN = "no non-zero weight produces it"
NO_WAY_OUT = "no non-zero weight reads it"
NO_WAY_THROUGH = "on one side non-zero weights join it only to channels without a minimum"
_REASONS = (DEAD, NO_WAY_IN, NO_WAY_OUT, NO_WAY_THROUGH)  # 2 * (mass that grows) + (mass that shrinks)


class MissingMinimum:
    """The variables without a minimiser, and the masses on both their sides."""

    def __init__(self, graph: RescalingGraph) -> None:
        problem = build_problem(graph)
        self.variables: Integers = solve(problem, max_cycles=0).degenerate
        self._degenerate = np.zeros(problem.count, dtype=np.bool_)
        self._degenerate[self.variables] = True
        self._rising, self._falling = (flow > 0 for flow in flows(problem, np.zeros(problem.count)))
        self._basis = graph.solution.basis

    def reasons(self, labels: Integers) -> dict[str, int]:
        """Reason -> number of labels that depend on degenerate variables alone, in the order of `labels`."""
        if not len(self.variables):
            return {}
        forms = self._basis[labels]
        lengths = np.diff(forms.indptr)
        entry = np.repeat(np.arange(len(labels)), lengths)
        others = np.bincount(entry[~self._degenerate[forms.indices]], minlength=len(labels))
        first = forms.indptr[:-1][(lengths > 0) & (others == 0)]
        kinds, start, counts = np.unique(self._kinds(forms, first), return_index=True, return_counts=True)
        return {_REASONS[kinds[i]]: int(counts[i]) for i in np.argsort(start)}

    def _kinds(self, forms: sp.csr_array, entries: Integers) -> Integers:
        """Index in `_REASONS` for a form's first term; one of negative sign swaps what grows and shrinks."""
        variables, negative = forms.indices[entries], forms.data[entries] < 0
        rising, falling = self._rising[variables], self._falling[variables]
        grows = np.where(negative, falling, rising)
        shrinks = np.where(negative, rising, falling)
        return np.asarray(2 * grows.astype(np.int64) + shrinks)
