"""Linear constraints between scale variables, collected as arrays.

A rule states that a linear form in labels vanishes at every entry of a tensor:

    sum_t  coefficient_t * x[labels_t[i]]  =  0      for all index tuples i

with label arrays that broadcast against each other.  The terms need not vary along the same axes
(``q[n] + k[m] = 0`` for all n, m); enumerating the full grid would be wasteful.  By the anchored
(cut-point) decomposition of a function of several variables, a sum of functions of the axis sets
S_1..S_T vanishes everywhere exactly if it vanishes wherever the axes outside some one S_t are at
index 0.  So one block of rows per maximal axis set is enough, and its size is that of a label array.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphnorm.scales.labels import FREE, PINNED, Labels, align, varying_axes

Term = tuple[float, Labels]
"""A coefficient and a label array."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Equations ``sum_t coefficients[t] * x[labels[r, t]] = 0``, one a row, and the node they come from."""

    coefficients: tuple[float, ...]
    labels: npt.NDArray[np.int64]
    node: int
    reason: str


class Constraints:
    """All labels created so far and the equations between them, in the order in which rules state them.

    ``defects``: one sentence per operator that is pinned because its rule failed.
    """

    def __init__(self) -> None:
        self.rows: list[Rows] = []
        self.families: list[tuple[int, int, str]] = []  # first label, node, what it is
        self.count = 1  # label 0 is the constant 0
        self.defects: dict[str, None] = {}

    def fresh(self, shape: Sequence[int], node: int, what: str) -> Labels:
        """New labels, one per entry of `shape`: one family, a candidate channel group."""
        size = int(np.prod(shape, dtype=np.int64))
        labels = np.arange(self.count, self.count + size, dtype=np.int64).reshape(tuple(shape))
        self.families.append((self.count, node, what))
        self.count += size
        return labels

    def family_of(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Index into `families` of each label (the label must not be `PINNED`)."""
        starts = np.array([first for first, _, _ in self.families], dtype=np.int64)
        return np.searchsorted(starts, labels, side="right") - 1

    def equation(self, terms: Sequence[Term], node: int, reason: str) -> None:
        """State that the sum of `terms` vanishes at every entry (see the module's docstring)."""
        terms = [(c, labels) for c, labels in terms if c != 0 and not (labels == PINNED).all()]
        if not terms:
            return
        rank = max(labels.ndim for _, labels in terms)
        aligned = [align(labels, rank) for _, labels in terms]
        coefficients = tuple(c for c, _ in terms)
        for axes in _maximal([varying_axes(labels) for labels in aligned]):
            self._enumerate(coefficients, aligned, axes, node, reason)

    def tie(self, first: Labels, second: Labels, node: int, reason: str) -> None:
        """State that two label arrays are equal, entry by entry."""
        if first is not second:
            self.equation([(1.0, first), (-1.0, second)], node, reason)

    def pin(self, labels: Labels, node: int, reason: str) -> None:
        """State that every label is 0."""
        self.equation([(1.0, labels)], node, reason)

    def uniform(self, labels: Labels, axes: Sequence[int], node: int, reason: str) -> Labels:
        """Make the scale constant along `axes`; returns the shrunk label array.

        Where some entries are `FREE` the first constrained one stands for the others.
        """
        for axis in axes:
            if not labels.shape[axis]:  # no entries, so nothing to state
                labels = np.full((*labels.shape[:axis], 1, *labels.shape[axis + 1 :]), PINNED)
            if labels.shape[axis] <= 1:
                continue
            first = labels.take([0], axis=axis)
            if (labels == FREE).any():
                chosen = np.expand_dims((labels != FREE).argmax(axis=axis), axis)
                first = np.take_along_axis(labels, chosen, axis=axis)
            self.tie(labels, first, node, reason)
            labels = first
        return labels

    def _enumerate(
        self,
        coefficients: tuple[float, ...],
        aligned: Sequence[Labels],
        axes: frozenset[int],
        node: int,
        reason: str,
    ) -> None:
        # FREE entries make the anchor unusable: enumerate those equations on the full grid.
        anchored = [
            labels if varying_axes(labels) <= axes or (labels == FREE).any() else _anchor(labels, axes)
            for labels in aligned
        ]
        columns = [column.ravel() for column in np.broadcast_arrays(*anchored)]
        table = np.stack(columns, axis=1)
        table = table[(table != FREE).all(axis=1)]
        if len(coefficients) == 2 and coefficients[0] == -coefficients[1]:
            table = table[table[:, 0] != table[:, 1]]
        if len(table):
            self.rows.append(Rows(coefficients, _unique_rows(table), node, reason))


def _anchor(labels: Labels, axes: frozenset[int]) -> Labels:
    index = tuple(slice(None) if axis in axes else slice(0, 1) for axis in range(labels.ndim))
    return labels[index]


def _maximal(sets: Sequence[frozenset[int]]) -> Iterator[frozenset[int]]:
    distinct = set(sets)
    for candidate in sorted(distinct, key=sorted):
        if not any(candidate < other for other in distinct):
            yield candidate


def _unique_rows(table: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    if len(table) == 1:
        return table
    order = np.lexsort(table.T[::-1])
    ordered = table[order]
    keep = np.ones(len(ordered), dtype=bool)
    keep[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return ordered[keep]
