"""Which equations fix a label, and which equations link two labels.

Pins follow by unit propagation: an equation whose labels are all known to be 0 but one fixes that one.
This is what makes a chain of causes a derivation: with an equation of three labels (a product) the chain
goes on only when the other two are fixed.  What needs several equations at once (Gaussian elimination) is
attributed to one of them.  Ties are paths over the equations between labels that can move.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.csgraph import breadth_first_order

from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.scales.constraints import Rows
from graphnorm.scales.labels import PINNED
from graphnorm.util.typing import Bools, Integers

_NONE = -1  # no such equation or label


class Equations:
    """The constraints of a rescaling graph as a sparse matrix (equations, labels); label 0 is left out."""

    def __init__(self, graph: RescalingGraph) -> None:
        constraints = graph.scales.constraints
        self.batches = constraints.rows
        self._starts = np.cumsum([0, *(len(batch.labels) for batch in self.batches)])
        rows, columns, data = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)], [np.empty(0)]
        for batch, start in zip(self.batches, self._starts, strict=False):
            count, terms = batch.labels.shape
            rows.append(np.repeat(start + np.arange(count), terms))
            columns.append(batch.labels.ravel())
            data.append(np.tile(np.array(batch.coefficients), count))
        shape = (int(self._starts[-1]), constraints.count)
        joined = np.concatenate(rows), np.concatenate(columns), np.concatenate(data)
        kept = joined[1] != PINNED
        entries = sp.coo_array((joined[2][kept], (joined[0][kept], joined[1][kept])), shape=shape)
        self.matrix = sp.csr_array(entries)  # adds up the coefficients of a label that occurs twice
        self.matrix.eliminate_zeros()
        self._by_label = self.matrix.tocsc()
        self.pinned: Bools = np.diff(graph.solution.basis.indptr) == 0

    def batch(self, equation: int) -> Rows:
        """The rows that an equation belongs to: its node and reason."""
        return self.batches[int(np.searchsorted(self._starts, equation, side="right")) - 1]

    def labels(self, equation: int) -> Integers:
        """The distinct labels of an equation, without label 0."""
        indptr = self.matrix.indptr
        return np.asarray(self.matrix.indices[indptr[equation] : indptr[equation + 1]], dtype=np.int64)

    @cached_property
    def _derived(self) -> tuple[Integers, Integers]:
        """Per label, the equation that fixes it and the round in which it does."""
        by = np.full(self.matrix.shape[1], _NONE, dtype=np.int64)
        level = np.full(self.matrix.shape[1], _NONE, dtype=np.int64)
        for number, (labels, equations) in enumerate(_propagate(self.matrix, self._by_label, self.pinned)):
            by[labels], level[labels] = equations, number
        return by, level

    def fixing(self, label: int) -> list[int]:
        """The equations that fix a label in its round; empty if none does."""
        by, level = self._derived
        found = []
        for equation in self._by_label.indices[
            self._by_label.indptr[label] : self._by_label.indptr[label + 1]
        ]:
            others = level[self.labels(int(equation))]
            if (others != _NONE).all() and (others < level[label]).sum() == len(others) - 1:
                found.append(int(equation))
        return found or [int(by[label])] * int(by[label] != _NONE)

    def before(self, label: int, equation: int) -> int | None:
        """The label on which `label` depends through an equation.

        Of several the one that another operator fixes, and of those the one that was fixed last.
        """
        by, level = self._derived
        others = self.labels(equation)
        others = others[(level[others] < level[label]) & (level[others] != _NONE)]
        here = self.batch(equation).node
        order = [(self.batch(int(by[other])).node != here, int(level[other]), other) for other in others]
        return int(max(order)[2]) if order else None

    def nearest(self, labels: Integers) -> int | None:
        """The label (not label 0) that is fixed in the fewest rounds, if one is."""
        _, level = self._derived
        known = labels[(labels != PINNED) & (level[labels] != _NONE)]
        return int(known[level[known].argmin()]) if len(known) else None

    def tie_path(self, start: int, ends: Sequence[Integers]) -> tuple[int, list[tuple[int, int]]] | None:
        """Shortest path from a label that can move to the nearest of several sets of labels.

        Equations that tie two labels come first.

        Returns:
            The number of the set, and pairs (equation, next label); None if there is no path.
        """
        for search in (self._pairs, self._free):
            order, before = breadth_first_order(search, start, directed=False)
            rank = np.full(search.shape[0], len(order))
            rank[order] = np.arange(len(order))
            best = [int(rank[labels].min(initial=len(order))) for labels in ends]
            nearest = int(np.argmin(best))
            if best[nearest] < len(order):
                return nearest, self._walk(int(order[best[nearest]]), start, before)
        return None

    def _walk(self, vertex: int, start: int, before: npt.NDArray[np.int32]) -> list[tuple[int, int]]:
        path = []
        while vertex != start:
            equation = int(before[vertex])
            path.append((equation - self.matrix.shape[1], vertex))
            vertex = int(before[equation])
        return path[::-1]

    @cached_property
    def _free(self) -> sp.csr_array:
        """The bipartite graph of labels that can move and equations; equation e is vertex labels + e."""
        return self._bipartite(only_pairs=False)

    @cached_property
    def _pairs(self) -> sp.csr_array:
        return self._bipartite(only_pairs=True)

    def _bipartite(self, only_pairs: bool) -> sp.csr_array:
        count = self.matrix.shape[1]
        entries = self.matrix.tocoo()
        kept = ~self.pinned[entries.col]
        if only_pairs:
            kept &= np.bincount(entries.row[kept], minlength=self.matrix.shape[0])[entries.row] == 2
        ends = entries.col[kept], count + entries.row[kept].astype(np.int64)
        size = count + self.matrix.shape[0]
        return sp.csr_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(size, size))


def _propagate(
    matrix: sp.csr_array, by_label: sp.csc_array, pinned: Bools
) -> Iterator[tuple[Integers, Integers]]:
    """Rounds of unit propagation: the labels fixed in each, and the equations that fix them."""
    unknown = np.diff(matrix.indptr).astype(np.int64)  # per equation: labels not yet fixed
    total = np.zeros(len(unknown), dtype=np.int64)  # and their sum: the label itself, once it is alone
    np.add.at(total, np.repeat(np.arange(len(unknown)), unknown), matrix.indices)
    fixed = np.zeros(matrix.shape[1], dtype=bool)
    touched: Integers = np.arange(len(unknown))
    while True:
        alone = touched[unknown[touched] == 1]
        labels, equations = total[alone], alone
        if not len(alone):
            labels, equations = _stalled(matrix, pinned, fixed)
            if not len(labels):
                return
        labels, first = np.unique(labels, return_index=True)
        yield labels, equations[first]
        fixed[labels] = True
        columns = by_label[:, labels]
        hit = columns.indices
        np.subtract.at(unknown, hit, 1)
        np.subtract.at(total, hit, np.repeat(labels, np.diff(columns.indptr)))
        touched = np.unique(hit)


def _stalled(matrix: sp.csr_array, pinned: Bools, fixed: Bools) -> tuple[Integers, Integers]:
    """Labels that only several equations together fix, each with one of those equations.

    Equations without a label that can move come first, and among them those with a label fixed before.
    """
    entries = matrix.tocoo()
    missing = (pinned & ~fixed)[entries.col]
    count = matrix.shape[0]
    open_ = np.bincount(entries.row, missing, count) > 0
    closed = open_ & (np.bincount(entries.row, ~pinned[entries.col], count) == 0)
    known = closed & (np.bincount(entries.row, fixed[entries.col], count) > 0)
    chosen = next((mask for mask in (known, closed, open_) if mask.any()), open_)
    kept = missing & chosen[entries.row]
    return entries.col[kept].astype(np.int64), entries.row[kept].astype(np.int64)
