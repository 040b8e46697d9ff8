"""A block's sides, compiled: exponents of their entries, and which entries belong to which group.

A form is a sum of a few terms.  Term k of every entry lies in slot k, so that a side is a handful of index
vectors and nothing loops over channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from graphnorm.solver.arrays import Array, Arrays, add_at
from graphnorm.solver.problem import Floats, Integers

Profile = tuple[tuple[int, float], ...]
"""(group, sum of coefficients) pairs of a form."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One term of each form: `coefficient` (a number, or one for each entry) times variable `pick`.

    Entries without such a term pick the variable after the last, which is 0 for ever.
    """

    pick: Array | slice
    coefficient: Array | float


@dataclass(slots=True)
class Side:
    """exp(p form(z) - shift) of one side's entries, kept up to date by `refresh`.

    Attributes:
        size: number of entries.
        p: exponent of the norm.
        slots: terms of the forms.
        profile: entry -> index in `profiles`.
        factor: exp(p form - shift), at most 1.
        shift: the largest p form.
        version: number of refreshes.
    """

    size: int
    p: float
    slots: tuple[Slot, ...]
    profile: Integers
    profiles: tuple[Profile, ...]
    factor: Array
    shift: Array
    version: int = 0

    def exponent(self, z: Array) -> Array:
        """P form(z) of each entry; `z` ends with a 0."""
        total: Array = 0.0
        for slot in self.slots:
            total = total + (self.p * slot.coefficient) * z[slot.pick]
        return total

    def refresh(self, z: Array, xp: Any) -> None:
        """Take over new log-scales."""
        if self.slots:
            exponent = self.exponent(z)
            self.shift = exponent.max()
            self.factor = xp.exp(exponent - self.shift)
            self.version += 1

    def spread(self, values: Array, into: Array, power: int = 1) -> None:
        """Into += (p F)^T values, or with coefficients to a `power`; `into` ends with an unused place."""
        for slot in self.slots:
            weighted = (self.p * slot.coefficient) ** power * values
            if isinstance(slot.pick, slice):
                into[slot.pick] += weighted
            else:
                add_at(into, slot.pick, weighted)


def compile_side(forms: sp.csr_array, groups: Integers, p: float, arrays: Arrays) -> Side:
    """A side from its forms, which hold no inactive variable."""
    n, count = forms.shape
    slots = []
    for index, coefficient in slotted(forms):
        run = n > 0 and index[0] < count and index[-1] < count and bool((np.diff(index) == 1).all())
        pick = slice(int(index[0]), int(index[0]) + n) if run else arrays.array(index)
        present = coefficient[index < count]
        uniform = bool((present == present[0]).all())
        slots.append(Slot(pick, float(present[0]) if uniform else arrays.array(coefficient)))
    profile, profiles = _profiles(forms, groups)
    one = arrays.zeros(n) + 1.0
    return Side(n, p, tuple(slots), profile, profiles, one, arrays.zeros(1).sum())


def slotted(forms: sp.csr_array) -> list[tuple[Integers, Floats]]:
    """(variable, coefficient) of each entry's first term, second term...; larger coefficients first."""
    n, count = forms.shape
    lengths = np.diff(forms.indptr)
    width = int(lengths.max(initial=0))
    entry = np.repeat(np.arange(n), lengths)
    order = np.lexsort((forms.indices, -forms.data, entry)) if width > 1 else np.arange(forms.nnz)
    place = np.arange(forms.nnz) - np.repeat(forms.indptr[:-1], lengths)
    index = np.full((width, n), count, dtype=np.int64)
    coefficient = np.zeros((width, n))
    index[place, entry] = forms.indices[order]
    coefficient[place, entry] = forms.data[order]
    return list(zip(index, coefficient, strict=True))


def in_one_group(forms: sp.csr_array, groups: Integers) -> int | None:
    """The group that every form's single term lies in; None if forms have other terms or none."""
    if not forms.nnz or forms.nnz != forms.shape[0] or (np.diff(forms.indptr) != 1).any():
        return None
    mine = groups[forms.indices]
    return int(mine[0]) if (mine == mine[0]).all() else None


def _profiles(forms: sp.csr_array, groups: Integers) -> tuple[Integers, tuple[Profile, ...]]:
    n = forms.shape[0]
    one = in_one_group(forms, groups)
    if one is not None and (forms.data == forms.data[0]).all():
        return np.zeros(n, dtype=np.int64), (((one, float(forms.data[0])),),)
    count = int(groups.max(initial=0)) + 1
    by_group = sp.csr_array((forms.data, groups[forms.indices], forms.indptr), shape=(n, count))
    if (np.diff(forms.indptr) > 1).any():
        by_group = by_group.copy()
        by_group.sum_duplicates()
    slots = slotted(by_group)
    if not slots:
        return np.zeros(n, dtype=np.int64), ((),)
    key = np.stack([part for pair in slots for part in pair])
    if len(slots) == 1 and len(np.unique(key[1])) == 1:
        _, first, inverse = np.unique(key[0], return_index=True, return_inverse=True)
    else:
        _, first, inverse = np.unique(key, axis=1, return_index=True, return_inverse=True)
    profiles = [
        tuple((int(index[i]), float(c[i])) for index, c in slots if index[i] < count) for i in first.tolist()
    ]
    return inverse.reshape(-1), tuple(profiles)
