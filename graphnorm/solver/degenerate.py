"""Which variables have a minimiser at all.

Phi attains its minimum exactly if no direction d makes every exponent with mass <= 0 and some < 0.  In the
balancing case that is strong connectivity: d_to <= d_from along every edge, d = 0 at the pinned node, so
d <= 0 on all that node 0 reaches and d >= 0 on all that reaches node 0; a variable in both is bounded.
The same two facts are propagated here through general forms too.  A variable that is bounded on one
side only could shrink some weights for ever (a dead neuron, for one): it is degenerate and stays at 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from graphnorm.solver.problem import Block, Problem

Bools = npt.NDArray[np.bool_]


def bounded(problem: Problem) -> Bools:
    """Mask of the variables that every minimising sequence keeps bounded on both sides."""
    facts = np.zeros((2, problem.count), dtype=bool)  # known <= 0, known >= 0 in every recession direction
    forward = True
    while True:
        before = facts.sum()
        for block in problem.blocks if forward else reversed(problem.blocks):
            _spread(block, facts)
        if facts.sum() == before and not forward:
            return np.asarray(facts.all(axis=0))
        forward = not forward


def _spread(block: Block, facts: Bools) -> None:
    """Row + column <= 0 wherever there is mass: a column form >= 0 makes the row form <= 0 and back."""
    row_low = (block.mass @ _form_at_least_zero(block.columns.forms, facts).astype(np.float64)) > 0
    _learn_at_most_zero(block.rows.forms, row_low, facts)
    column_low = (block.mass.T @ _form_at_least_zero(block.rows.forms, facts).astype(np.float64)) > 0
    _learn_at_most_zero(block.columns.forms, column_low, facts)


def _term_at_least_zero(forms: sp.csr_array, facts: Bools) -> Bools:
    return np.asarray(np.where(forms.data > 0, facts[1][forms.indices], facts[0][forms.indices]))


def _unknown_terms(forms: sp.csr_array, facts: Bools) -> npt.NDArray[np.int64]:
    entry = np.repeat(np.arange(forms.shape[0]), np.diff(forms.indptr))
    missing = ~_term_at_least_zero(forms, facts)
    return np.asarray(np.bincount(entry[missing], minlength=forms.shape[0]))


def _form_at_least_zero(forms: sp.csr_array, facts: Bools) -> Bools:
    return np.asarray(_unknown_terms(forms, facts) == 0)


def _learn_at_most_zero(forms: sp.csr_array, low: Bools, facts: Bools) -> None:
    """A form <= 0 whose other terms are all >= 0 makes the remaining term <= 0."""
    entry = np.repeat(np.arange(forms.shape[0]), np.diff(forms.indptr))
    missing = ~_term_at_least_zero(forms, facts)
    others = _unknown_terms(forms, facts)[entry] - missing
    known = low[entry] & (others == 0)
    positive = forms.data > 0
    facts[0][forms.indices[known & positive]] = True
    facts[1][forms.indices[known & ~positive]] = True
