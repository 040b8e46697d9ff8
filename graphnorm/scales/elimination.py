"""Exact elimination of linear constraints: labels as combinations of independent variables.

Labels that are equal up to sign are merged first (`merging`).  The rest (``out = gate + up`` of a gated unit,
powers, parameters used twice) is solved for labels that occur once, while there are such labels, and the rest
is eliminated by sparse Gaussian elimination over the rationals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from graphnorm.scales.constraints import Rows
from graphnorm.scales.merging import Classes, Table, merge_all
from graphnorm.util.typing import Integers

_PEEL_ROUNDS = 64  # more would be a chain of products; Gaussian elimination does the rest


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
    classes, tables = merge_all(count, rows)
    remaining, peeled = _peel(count, tables)
    return _assemble(classes, _gauss(remaining), peeled)


def rank_free(count: int, rows: Sequence[Rows]) -> int:
    """The number of independent variables that `eliminate` would find."""
    classes, tables = merge_all(count, rows)
    remaining, peeled = _peel(count, tables)
    solved = len(_gauss(remaining)) + sum(len(labels) for _, labels in peeled)
    return len(np.unique(classes.representative)) - 1 - solved


def _peel(count: int, tables: Sequence[Table]) -> tuple[list[Table], list[Table]]:
    """Solve equations for labels that occur in no other equation, as long as there are some.

    In the solved ones the label that was solved for comes first, with coefficient 1; each batch may
    mention labels that later batches solve for.
    """
    remaining = list(tables)
    peeled: list[Table] = []
    for _ in range(_PEEL_ROUNDS):
        mentions = np.zeros(count, dtype=np.int64)
        for coefficients, labels in remaining:
            mentions += np.bincount(labels[coefficients != 0], minlength=count)
        kept: list[Table] = []
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


def _solved(coefficients: npt.NDArray[np.float64], labels: Integers, column: Integers) -> Table:
    """Equations with the chosen column in front, divided by its coefficient."""
    order = np.argsort(np.arange(labels.shape[1])[None] != column[:, None], axis=1, kind="stable")
    labels = np.take_along_axis(labels, order, axis=1)
    coefficients = np.take_along_axis(coefficients, order, axis=1)
    return coefficients / coefficients[:, :1], labels


def _gauss(tables: Sequence[Table]) -> dict[int, dict[int, Fraction]]:
    """Sparse Gaussian elimination; returns pivot label -> its combination of non-pivot labels."""
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
    classes: Classes, substitution: dict[int, dict[int, Fraction]], peeled: Sequence[Table]
) -> Solution:
    representative, count = classes.representative, len(classes.representative)
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
    basis = sp.csr_array(of_roots[representative])
    basis.data *= np.repeat(classes.sign, np.diff(basis.indptr))
    return Solution(basis=basis, variables=free)


def _substitute(coefficients: npt.NDArray[np.float64], labels: Integers, count: int) -> sp.csr_array:
    """Row of a solved label: minus the other terms of its equation."""
    target = np.broadcast_to(labels[:, :1], labels[:, 1:].shape)
    entries = (-coefficients[:, 1:].ravel(), (target.ravel(), labels[:, 1:].ravel()))
    return sp.csr_array(entries, shape=(count, count))
