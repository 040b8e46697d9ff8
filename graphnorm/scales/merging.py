"""Labels that are equal up to sign, merged by connected components until nothing changes.

Pins and equalities are nearly all of the equations.  ``q + k = 0`` of an attention merges with a sign; two
equations that differ in one label only make those labels equal (congruence), which undoes the labels that
scales varying along positions would multiply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from graphnorm.scales.constraints import Rows
from graphnorm.scales.labels import FREE
from graphnorm.util.typing import Integers

Table = tuple[npt.NDArray[np.float64], Integers]
"""Equations as coefficients and labels, (rows, terms) each."""
_ROUNDING = 1e-12  # coefficients are simple fractions: the residue of a sum that should be 0


@dataclass(frozen=True, slots=True)
class Classes:
    """Labels that are equal up to sign: ``x[label] = sign[label] * x[representative[label]]``."""

    representative: Integers
    sign: npt.NDArray[np.float64]


def merge_all(count: int, rows: Sequence[Rows]) -> tuple[Classes, list[Table]]:
    """Merge labels that are equal up to sign: the classes, and the remaining equations."""
    classes = Classes(np.arange(count, dtype=np.int64), np.ones(count))
    tables = [
        (np.broadcast_to(np.array(batch.coefficients), batch.labels.shape), batch.labels) for batch in rows
    ]
    while True:
        merges, tables = _simplify(tables, classes)
        if not len(merges):
            merges = _congruent(tables)
        if not len(merges):
            break
        classes = _merge(classes, merges)
    return classes, tables


def representatives(count: int, rows: Sequence[Rows]) -> Integers:
    """The first label that each is known to equal, to be indexed by labels, `FREE` included."""
    classes, _ = merge_all(count, rows)
    own = np.arange(count, dtype=np.int64)
    return np.append(np.where(classes.sign > 0, classes.representative, own), FREE)


def _merge(classes: Classes, merges: Integers) -> Classes:
    """Merge pairs (a, b, s) that state x[a] = s x[b], in the graph of all labels and their negatives."""
    count = len(classes.representative)
    first, second, negative = merges[:, 0], merges[:, 1], (merges[:, 2] < 0).astype(np.int64)
    ends = np.concatenate(
        [
            np.stack([2 * first, 2 * second + negative], axis=1),
            np.stack([2 * first + 1, 2 * second + 1 - negative], axis=1),
            [[0, 1]],  # 0 is its own negative
        ]
    )
    ones = np.ones(len(ends), dtype=np.int8)
    graph = sp.coo_array((ones, (ends[:, 0], ends[:, 1])), shape=(2 * count, 2 * count))
    _, component = connected_components(graph, directed=False)
    lowest = np.full(component.max() + 1, 2 * count, dtype=np.int64)
    np.minimum.at(lowest, component, np.arange(2 * count))
    found = lowest[component].reshape(count, 2)  # of each label and of its negative
    root = found.min(axis=1) // 2
    zero = component[0::2] == component[1::2]
    root[zero] = 0
    sign = np.where(zero | (found[:, 0] <= found[:, 1]), 1.0, -1.0)
    old = classes.representative
    return Classes(root[old], classes.sign * sign[old])


def _simplify(tables: list[Table], classes: Classes) -> tuple[Integers, list[Table]]:
    """Substitute representatives; split rows into merges (a, b, sign) and what stays linear."""
    merges: list[Integers] = []
    linear: list[Table] = []
    for coefficients, labels in tables:
        coefficients = coefficients * classes.sign[labels]
        labels = classes.representative[labels]
        if labels.shape[1] == 1:
            merges.append(_pins(labels[:, 0]))
            continue
        coefficients, labels = _combine(coefficients, labels)
        present = (coefficients != 0).sum(axis=1)
        one = present == 1
        if one.any():
            which = (coefficients[one] != 0).argmax(axis=1)
            merges.append(_pins(labels[one, :][np.arange(int(one.sum())), which]))
        pair = np.flatnonzero(present == 2)
        used = coefficients[pair] != 0
        values = coefficients[pair][used].reshape(-1, 2)
        equal = np.abs(values[:, 0]) == np.abs(values[:, 1])
        if equal.any():
            ends = labels[pair][used].reshape(-1, 2)[equal]
            signs = np.where(values[equal, 0] == values[equal, 1], -1, 1)
            merges.append(np.column_stack([ends, signs]))
        rest = present > 1
        rest[pair[equal]] = False
        if rest.any():
            linear.append((coefficients[rest], labels[rest]))
    found = np.concatenate(merges) if merges else np.empty((0, 3), dtype=np.int64)
    return found[(found[:, 0] != found[:, 1]) | (found[:, 2] < 0)], linear


def _pins(labels: Integers) -> Integers:
    return np.column_stack([labels, np.zeros_like(labels), np.ones_like(labels)])


def _congruent(tables: Sequence[Table]) -> Integers:
    """Equations that differ in one label only make these labels equal: (a, b, 1)."""
    merges: list[Integers] = []
    by_width: dict[int, list[Table]] = {}
    for coefficients, labels in tables:
        by_width.setdefault(labels.shape[1], []).append((coefficients, labels))
    for width, parts in by_width.items():
        coefficients = np.concatenate([c for c, _ in parts])
        labels = np.where(coefficients != 0, np.concatenate([found for _, found in parts]), 0)
        keys, own = [], []
        for column in range(width):  # solved for that column: its label, and the key of all else
            used = coefficients[:, column] != 0
            others = [i for i in range(width) if i != column]
            scaled = coefficients[used][:, others] / coefficients[used, column][:, None]
            bits = (scaled + 0.0).view(np.int64)  # equal or not: no tolerance
            keys.append(np.column_stack([labels[used][:, others], bits]))
            own.append(labels[used, column])
        key, label = np.concatenate(keys), np.concatenate(own)
        order = np.lexsort(key.T)
        same = (key[order][1:] == key[order][:-1]).all(axis=1)
        pairs = np.column_stack([label[order][1:], label[order][:-1]])[same]
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        merges.append(np.column_stack([pairs, np.ones(len(pairs), dtype=np.int64)]))
    return np.concatenate(merges) if merges else np.empty((0, 3), dtype=np.int64)


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
    coefficients[(labels == 0) | (np.abs(coefficients) < _ROUNDING)] = 0
    return coefficients, labels
