"""Exact elimination of linear constraints: labels as combinations of independent variables.

Equalities and pins are merged at once with connected components.  What is left (``q + k = 0`` of an
attention, ``out = gate + up`` of a gated unit, twice-used parameters) is substituted, merged again as
long as that gives new equalities, and finally eliminated by sparse Gauss elimination over the rationals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from graphnorm.scales.constraints import Rows

Integers = npt.NDArray[np.int64]
_PEEL_ROUNDS = 64  # more would be a chain of products; Gauss elimination takes what is left
_Table = tuple[npt.NDArray[np.float64], Integers]  # coefficients and labels, (rows, terms) each


@dataclass(frozen=True, slots=True)
class Solution:
    """All solutions of the constraints: ``x = basis @ z`` for arbitrary ``z``.

    Attributes:
        basis: sparse (labels, variables), entries usually 0, 1 or -1.
        variables: the label that stands for each variable.
    """

    basis: sp.csr_array
    variables: Integers

    @property
    def count(self) -> int:
        return len(self.variables)


def eliminate(count: int, rows: Sequence[Rows]) -> Solution:
    """Solve the homogeneous equations `rows` over `count` labels, label 0 being the constant 0."""
    representative, tables, peeled = _reduced(count, rows)
    return _assemble(representative, _gauss(tables), peeled)


def rank_free(count: int, rows: Sequence[Rows]) -> int:
    """The number of independent variables that `eliminate` would find."""
    representative, tables, peeled = _reduced(count, rows)
    solved = len(_gauss(tables)) + sum(len(labels) for _, labels in peeled)
    return len(np.unique(representative)) - 1 - solved


def _reduced(count: int, rows: Sequence[Rows]) -> tuple[Integers, list[_Table], list[_Table]]:
    """Merge what is equal, then peel: representatives, equations left, and equations solved for a label."""
    representative = np.arange(count, dtype=np.int64)
    tables = [
        (np.broadcast_to(np.array(batch.coefficients), batch.labels.shape), batch.labels) for batch in rows
    ]
    while True:
        merges, tables = _simplify(tables, representative)
        if not len(merges):
            break
        representative = _merge(representative, merges)
    tables, peeled = _peel(count, tables)
    return representative, tables, peeled


def _merge(representative: Integers, merges: Integers) -> Integers:
    count = len(representative)
    ones = np.ones(len(merges), dtype=np.int8)
    graph = sp.coo_array((ones, (merges[:, 0], merges[:, 1])), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    lowest = np.full(component.max() + 1, count, dtype=np.int64)
    np.minimum.at(lowest, component, np.arange(count))
    return np.asarray(lowest[component][representative])


def _simplify(tables: list[_Table], representative: Integers) -> tuple[Integers, list[_Table]]:
    """Substitute representatives; split rows into merges (pairs of labels) and what stays linear."""
    merges: list[Integers] = []
    linear: list[_Table] = []
    for coefficients, labels in tables:
        terms = labels.shape[1]
        labels = representative[labels]
        if terms == 1:
            merges.append(np.stack([labels[:, 0], np.zeros(len(labels), dtype=np.int64)], axis=1))
            continue
        coefficients, labels = _combine(coefficients, labels)
        present = (coefficients != 0).sum(axis=1)
        one = present == 1
        if one.any():
            which = (coefficients[one] != 0).argmax(axis=1)
            pins = labels[one, :][np.arange(int(one.sum())), which]
            merges.append(np.stack([pins, np.zeros_like(pins)], axis=1))
        equal = (present == 2) & (coefficients.sum(axis=1) == 0)
        if equal.any():
            used = coefficients[equal] != 0
            merges.append(labels[equal][used].reshape(-1, 2))
        rest = (present > 1) & ~equal
        if rest.any():
            linear.append((coefficients[rest], labels[rest]))
    pairs = np.concatenate(merges) if merges else np.empty((0, 2), dtype=np.int64)
    return pairs[pairs[:, 0] != pairs[:, 1]], linear


def _combine(
    coefficients: npt.NDArray[np.float64], labels: Integers
) -> tuple[npt.NDArray[np.float64], Integers]:
    """Add the coefficients of equal labels within a row; label 0 contributes nothing."""
    order = np.argsort(labels, axis=1, kind="stable")
    labels = np.take_along_axis(labels, order, axis=1)
    coefficients = np.take_along_axis(coefficients, order, axis=1).copy()
    for column in range(1, labels.shape[1]):
        same = labels[:, column] == labels[:, column - 1]
        coefficients[same, column] += coefficients[same, column - 1]
        coefficients[same, column - 1] = 0
    coefficients[labels == 0] = 0
    return coefficients, labels


def _peel(count: int, tables: Sequence[_Table]) -> tuple[list[_Table], list[_Table]]:
    """Solve equations for labels that occur in no other equation, as long as there are some.

    In the solved ones the label that was solved for comes first, with coefficient 1; each batch may
    mention labels that later batches solve for.
    """
    remaining = list(tables)
    peeled: list[_Table] = []
    for _ in range(_PEEL_ROUNDS):
        mentions = np.zeros(count, dtype=np.int64)
        for coefficients, labels in remaining:
            mentions += np.bincount(labels[coefficients != 0], minlength=count)
        kept: list[_Table] = []
        before = len(peeled)
        for coefficients, labels in remaining:
            alone = (coefficients != 0) & (mentions[labels] == 1)
            hit = alone.any(axis=1)
            if hit.any():
                peeled.append(_solved(coefficients[hit], labels[hit], alone[hit].argmax(axis=1)))
            if not hit.all():
                kept.append((coefficients[~hit], labels[~hit]))
        remaining = kept
        if len(peeled) == before:
            break
    return remaining, peeled


def _solved(coefficients: npt.NDArray[np.float64], labels: Integers, column: Integers) -> _Table:
    """Equations with the chosen column in front, divided by its coefficient."""
    order = np.argsort(np.arange(labels.shape[1])[None] != column[:, None], axis=1, kind="stable")
    labels = np.take_along_axis(labels, order, axis=1)
    coefficients = np.take_along_axis(coefficients, order, axis=1)
    return coefficients / coefficients[:, :1], labels


def _gauss(tables: Sequence[_Table]) -> dict[int, dict[int, Fraction]]:
    """Sparse Gauss elimination; returns pivot label -> its combination of non-pivot labels."""
    pivots: dict[int, dict[int, Fraction]] = {}
    for coefficients, labels in tables:
        for row_coefficients, row_labels in zip(coefficients.tolist(), labels.tolist(), strict=True):
            row: dict[int, Fraction] = {}
            for c, label in zip(row_coefficients, row_labels, strict=True):
                if c:
                    _add(row, label, Fraction(c).limit_denominator(10**6))
            row = _reduce(row, pivots)
            if row:
                pivot = max(row)
                scale = -1 / row.pop(pivot)
                pivots[pivot] = {label: c * scale for label, c in row.items()}
    for pivot in sorted(pivots):  # a pivot is the largest label of its row: one ascending pass resolves all
        pivots[pivot] = _reduce(pivots[pivot], pivots)
    return pivots


def _reduce(row: dict[int, Fraction], pivots: dict[int, dict[int, Fraction]]) -> dict[int, Fraction]:
    while True:
        hit = [label for label in row if label in pivots]
        if not hit:
            return row
        row = dict(row)
        for pivot in hit:
            factor = row.pop(pivot, None)
            if factor is not None:
                for label, c in pivots[pivot].items():
                    _add(row, label, c * factor)


def _add(row: dict[int, Fraction], label: int, c: Fraction) -> None:
    total = row.get(label, Fraction(0)) + c
    if total:
        row[label] = total
    else:
        row.pop(label, None)


def _assemble(
    representative: Integers, substitution: dict[int, dict[int, Fraction]], peeled: Sequence[_Table]
) -> Solution:
    count = len(representative)
    solved = np.zeros(count, dtype=np.bool_)
    solved[[0, *substitution]] = True
    for _, labels in peeled:
        solved[labels[:, 0]] = True
    roots = np.unique(representative)
    free = roots[~solved[roots]]
    position = np.full(count, -1, dtype=np.int64)
    position[free] = np.arange(len(free))
    rows = [free]
    columns = [np.arange(len(free))]
    data = [np.ones(len(free))]
    for label, combination in substitution.items():
        rows.append(np.full(len(combination), label, dtype=np.int64))
        columns.append(position[np.array(list(combination), dtype=np.int64)])
        data.append(np.array([float(c) for c in combination.values()]))
    shape = (count, len(free))
    entries = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    of_roots = sp.csr_array(entries, shape=shape)
    for coefficients, labels in reversed(peeled):
        of_roots = sp.csr_array(of_roots + _substitute(coefficients, labels, count) @ of_roots)
    of_roots.sum_duplicates()
    of_roots.eliminate_zeros()
    return Solution(basis=sp.csr_array(of_roots[representative]), variables=free)


def _substitute(coefficients: npt.NDArray[np.float64], labels: Integers, count: int) -> sp.csr_array:
    """Row of a solved label: minus the other terms of its equation."""
    target = np.broadcast_to(labels[:, :1], labels[:, 1:].shape)
    entries = (-coefficients[:, 1:].ravel(), (target.ravel(), labels[:, 1:].ravel()))
    return sp.csr_array(entries, shape=(count, count))
