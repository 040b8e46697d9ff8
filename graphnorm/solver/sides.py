"""A block's sides, compiled: exponents of their entries, and which entries belong to which group.

A form is a sum of a few terms (`terms.Term`), each a slot here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from graphnorm.solver.arrays import Array, Arrays, add_at
from graphnorm.solver.terms import Term, slotted, terms_of, uniform
from graphnorm.util.typing import Integers

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
        terms: terms of the forms, on the host.
        slots: the same on the device.
        profile: entry -> index in `profiles`.
        factor: exp(p form - shift), at most 1.
        shift: the largest p form.
        version: number of refreshes.
    """

    size: int
    p: float
    terms: tuple[Term, ...]
    slots: tuple[Slot, ...]
    profile: Integers
    profiles: tuple[Profile, ...]
    factor: Array
    shift: Array
    version: int = 0

    def exponent(self, z: Array) -> Array:
        """P form(z) of each entry; `z` ends with a 0."""
        total: Array = 0.0
        for k, slot in enumerate(self.slots):
            term = (self.p * slot.coefficient) * z[slot.pick]
            total = total + term if k else term
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
    n = forms.shape[0]
    terms = terms_of(forms, groups)
    slots = tuple(_slot(term, len(groups), arrays) for term in terms)
    profile, profiles = _profiles(forms, terms, groups)
    one = arrays.zeros(n) + 1.0
    return Side(n, p, terms, slots, profile, profiles, one, arrays.zeros(1).sum())


def _slot(term: Term, count: int, arrays: Arrays) -> Slot:
    index = term.index
    first, last = int(index[0]), int(index[-1])
    run = last < count and last - first == len(index) - 1 and bool((np.diff(index) == 1).all())
    pick = slice(first, last + 1) if run else arrays.array(index)
    return Slot(pick, arrays.array(term.coefficient) if term.number is None else term.number)


def _profiles(
    forms: sp.csr_array, terms: Sequence[Term], groups: Integers
) -> tuple[Integers, tuple[Profile, ...]]:
    n = forms.shape[0]
    profile = uniform(terms)
    if profile is not None and len(dict(profile)) == len(profile):
        return np.zeros(n, dtype=np.int64), (profile,)
    count = int(groups.max(initial=0)) + 1
    by_group = sp.csr_array((forms.data, groups[forms.indices], forms.indptr), shape=(n, count))
    if (np.diff(forms.indptr) > 1).any():
        by_group = by_group.copy()
        by_group.sum_duplicates()
    slots = slotted(by_group)
    key = np.stack([part for pair in slots for part in pair])
    if len(slots) == 1 and len(np.unique(key[1])) == 1:
        _, first, inverse = np.unique(key[0], return_index=True, return_inverse=True)
    else:
        _, first, inverse = np.unique(key, axis=1, return_index=True, return_inverse=True)
    profiles = [
        tuple((int(index[i]), float(c[i])) for index, c in slots if index[i] < count) for i in first.tolist()
    ]
    return inverse.reshape(-1), tuple(profiles)
