"""How far a minimiser can be from a point, and which variables have none.

Where Phi is at most its value V at a point, every exponent is at most log(V / mass).  From node 0, whose
log-scale is 0, these inequalities bound one variable after the other.  Phi attains its minimum exactly if no
direction keeps every exponent with mass <= 0 and makes some < 0; in the balancing case that is strong
connectivity of the rescaling graph.  A variable that stays unbounded on a side could shrink some weights
without limit (a dead neuron, for one): it is degenerate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphnorm.solver.blocks import CompiledBlock
from graphnorm.solver.descent import Descent
from graphnorm.solver.terms import Term, uniform
from graphnorm.util.typing import Bools, Floats, Integers


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
    forward, known, before = True, 0, -1
    while before < known < 2 * found.active:  # a pass that learns nothing is the last
        with np.errstate(divide="ignore", invalid="ignore"):
            for view in found.views if forward else reversed(found.views):
                for axis in (0, 1):
                    found.learn(view, axis)
        before, known, forward = known, found.known, not forward
    return Bounds(found.lower[:-1], found.upper[:-1])


def bounded(at: Descent) -> Bools:
    """The variables that have a minimiser, shape (count,): by whole groups where that decides it."""
    return np.ones(at.count, dtype=bool) if _groups_bounded(at) else bounds(at).finite


def _groups_bounded(at: Descent) -> bool:
    """Whether the same inequalities, taken for whole groups at once, bound every active variable.

    Only sides whose forms are alike count, and only where every entry has mass.
    """
    known: set[tuple[int, bool]] = set()  # (group, from above)
    sizes = {group.index: group.size for group in at.groups}
    facts = [fact for block in at.blocks for fact in _facts(at, block, sizes)]
    before = -1
    while before < len(known):
        before = len(known)
        for near, far in [*facts, *reversed(facts)]:  # what is known spreads both ways
            if all((g, c < 0) in known for g, c in far):
                for k, (g, c) in enumerate(near):
                    if all((other, d < 0) in known for i, (other, d) in enumerate(near) if i != k):
                        known.add((g, c > 0))
    return len(known) == 2 * len(at.groups)


Pairs = tuple[tuple[int, float], ...]


def _facts(at: Descent, block: CompiledBlock, sizes: Mapping[int, int]) -> Iterator[tuple[Pairs, Pairs]]:
    """(group, coefficient) pairs of a side that the block bounds, and those of the other side."""
    rows, columns = (uniform(side.terms) for side in block.sides)
    if rows is None or columns is None or not np.isfinite(float(at.level(block))):
        return
    for axis, (near, far) in enumerate(((rows, columns), (columns, rows))):
        if near and all(
            _count(t.index) == sizes[g] for t, (g, _) in zip(block.sides[axis].terms, near, strict=True)
        ):
            masses = at.arrays.host(block.product(axis))
            if bool(((masses > 0) & (masses < np.inf)).all()):
                yield near, far


def _count(index: Integers) -> int:
    """Number of different variables."""
    return len(index) if bool((np.diff(index) > 0).all()) else len(np.unique(index))


@dataclass(slots=True)
class _View:
    """A block, and its level on the host."""

    block: CompiledBlock
    level: float


class _Search:
    def __init__(self, at: Descent) -> None:
        self._at = at
        self.active = int(at.arrays.host(at.active).sum())
        self.views = [_View(block, float(at.level(block))) for block in at.blocks]
        with np.errstate(divide="ignore"):
            logs = [float(np.log(float(total))) + float(level) for total, level in at.block_totals()]
        self._log_total = float(np.logaddexp.reduce(logs)) if logs else 0.0
        self.lower = np.append(np.full(at.count, -np.inf), 0.0)  # at the end: terms that a form lacks
        self.upper = np.append(np.full(at.count, np.inf), 0.0)

    @property
    def known(self) -> int:
        return int(np.isfinite(self.lower[:-1]).sum() + np.isfinite(self.upper[:-1]).sum())

    def learn(self, view: _View, axis: int) -> None:
        """Bound side `axis` from above through what is known of the other side from below."""
        near, far = view.block.sides[axis], view.block.sides[1 - axis]
        if all(self._all_known(term) for term in near.terms):
            return
        least = np.zeros(far.size)
        for term in far.terms:
            least += self._least(term)
        known = np.isfinite(least)
        if not known.any():
            return
        mass = self._sums(view, axis, known)
        log_mass = np.log(mass) + view.level  # -inf: no bound
        most = (self._log_total + np.log(known.sum()) - log_mass) / self._at.p - least[known].min()
        self._bound(near.terms, most)

    def _all_known(self, term: Term) -> bool:
        return bool(np.isfinite(self.lower[term.index]).all() and np.isfinite(self.upper[term.index]).all())

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

    def _least(self, term: Term) -> Floats:
        """Lower bound of a term of each form; -inf if it has none."""
        rises = term.coefficient >= 0
        bound = np.where(rises, self.lower[term.index], self.upper[term.index])
        return np.asarray(term.coefficient * bound)

    def _bound(self, terms: Sequence[Term], most: Floats) -> None:
        """Forms are at most `most`: bounds for terms whose companions are bounded from below."""
        least = [self._least(term) for term in terms]
        for k, term in enumerate(terms):
            others = sum((bound for i, bound in enumerate(least) if i != k), np.zeros(len(most)))
            ready = np.isfinite(others) & np.isfinite(most) & (term.coefficient != 0)
            index, coefficient = term.index[ready], term.coefficient[ready]
            value = (most - others)[ready] / coefficient
            up = (coefficient > 0) & ~np.isfinite(self.upper[index])
            down = (coefficient < 0) & ~np.isfinite(self.lower[index])
            self.upper[index[up]] = value[up]
            self.lower[index[down]] = value[down]
