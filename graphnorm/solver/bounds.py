"""How far a minimiser can be from a point, and which variables have none.

Where Phi is at most its value V at a point, every exponent is at most log(V / mass).  From node 0, whose
log-scale is 0, these inequalities bound one variable after the other.  Phi attains its minimum exactly if no
direction keeps every exponent with mass <= 0 and makes some < 0; in the balancing case that is strong
connectivity of the rescaling graph.  A variable that stays unbounded on a side could shrink some weights for
ever (a dead neuron, for one): it is degenerate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from graphnorm.solver.blocks import CompiledBlock
from graphnorm.solver.descent import Descent
from graphnorm.solver.problem import Bools, Floats, Integers


@dataclass(frozen=True, slots=True)
class Bounds:
    """Box (log-scale) around a point that holds every minimiser; infinite where nothing bounds a variable.

    Attributes:
        lower, upper: bounds of the displacement of each variable, shape (count,).
    """

    lower: Floats
    upper: Floats

    @property
    def finite(self) -> Bools:
        """Variables that have a minimiser."""
        return np.asarray(np.isfinite(self.lower) & np.isfinite(self.upper))


def bounds(at: Descent) -> Bounds:
    """The box around the current point, for the active variables."""
    found = _Search(at)
    forward = True
    while True:
        before = found.known
        for view in found.views if forward else reversed(found.views):
            for axis in (0, 1):
                found.learn(view, axis)
        if found.known == before and not forward:
            return Bounds(found.lower, found.upper)
        forward = not forward


@dataclass(slots=True)
class _View:
    """A block, and its level on the host."""

    block: CompiledBlock
    level: float


class _Search:
    def __init__(self, at: Descent) -> None:
        self._at = at
        self.views = [_View(block, float(at.level(block))) for block in at.blocks]
        with np.errstate(divide="ignore"):
            logs = [float(np.log(float(total))) + float(level) for total, level in at.block_totals()]
        self._log_total = float(np.logaddexp.reduce(logs)) if logs else 0.0
        self.lower = np.full(at.count, -np.inf)
        self.upper = np.full(at.count, np.inf)

    @property
    def known(self) -> int:
        return int(np.isfinite(self.lower).sum() + np.isfinite(self.upper).sum())

    def learn(self, view: _View, axis: int) -> None:
        """Bound side `axis` from above through what is known of the other side from below."""
        near, far = view.block.forms[axis], view.block.forms[1 - axis]
        if not near.nnz or self._all_known(near):
            return
        least = self._least(far)
        known = np.isfinite(least)
        if not known.any():
            return
        mass = self._sums(view, axis, known)
        hit = np.flatnonzero(mass > 0)
        log_mass = np.log(mass[hit]) + view.level
        most = (self._log_total + np.log(known.sum()) - log_mass) / self._at.p - least[known].min()
        self._bound(near, hit, most)

    def _all_known(self, forms: sp.csr_array) -> bool:
        index = forms.indices
        return bool(np.isfinite(self.lower[index]).all() and np.isfinite(self.upper[index]).all())

    def _sums(self, view: _View, axis: int, known: Bools) -> Floats:
        arrays, block = self._at.arrays, view.block
        near, far = block.sides[axis], block.sides[1 - axis]
        if known.all():
            masses = block.product(axis)
        else:
            chosen = far.factor * arrays.array(known.astype(np.float64))
            masses = block.mass.right(chosen) if axis == 0 else block.mass.left(chosen)
        found = np.asarray(arrays.host(near.factor * masses))
        return found

    def _term_least(self, forms: sp.csr_array) -> Floats:
        index, data = forms.indices, forms.data
        return np.asarray(data * np.where(data > 0, self.lower[index], self.upper[index]))

    def _least(self, forms: sp.csr_array) -> Floats:
        """Lower bound of each form; -inf if a term has none."""
        least = np.zeros(forms.shape[0])
        np.add.at(least, _entries(forms), self._term_least(forms))
        return least

    def _bound(self, forms: sp.csr_array, entries: Integers, most: Floats) -> None:
        """Forms `entries` are at most `most`: bounds for terms whose companions are bounded from below."""
        limit = np.full(forms.shape[0], np.inf)
        limit[entries] = most
        entry, term = _entries(forms), self._term_least(forms)
        missing = ~np.isfinite(term)
        others_missing = np.bincount(entry[missing], minlength=len(limit))[entry] - missing
        total = np.zeros(len(limit))
        np.add.at(total, entry[~missing], term[~missing])
        others = total[entry] - np.where(missing, 0.0, term)
        ready = (others_missing == 0) & np.isfinite(limit[entry])
        index, data = forms.indices[ready], forms.data[ready]
        value = (limit[entry] - others)[ready] / data
        up = (data > 0) & ~np.isfinite(self.upper[index])
        down = (data < 0) & ~np.isfinite(self.lower[index])
        self.upper[index[up]] = value[up]
        self.lower[index[down]] = value[down]


def _entries(forms: sp.csr_array) -> Integers:
    return np.repeat(np.arange(forms.shape[0]), np.diff(forms.indptr))
