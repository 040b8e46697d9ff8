"""A block's sides, compiled: exponents of their entries, and which entries belong to which group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from graphnorm.solver.arrays import Array, Arrays
from graphnorm.solver.problem import Integers

Profile = tuple[tuple[int, float], ...]
"""(group, sum of coefficients) pairs of a form."""


@dataclass(slots=True)
class Side:
    """exp(p form(z) - shift) of one side's entries, kept up to date by `refresh`.

    Attributes:
        size: number of entries.
        pick: entry -> variable (the last one is 0 for ever), where every form is one variable or none.
        sign: the coefficient of those variables, times p.
        forms, transposed, squared: general forms times p on the device, with the transposed matrix, also of
            the squares.
        profile: entry -> index in `profiles`.
        factor: exp(p form - shift), at most 1.
        shift: the largest p form.
    """

    size: int
    pick: Array | None
    sign: float
    forms: Any
    transposed: Any
    squared: Any
    profile: Integers
    profiles: tuple[Profile, ...]
    factor: Array
    shift: Array

    def exponent(self, z: Array) -> Array:
        """p form(z) of each entry; `z` ends with a 0."""
        return self.sign * z[self.pick] if self.pick is not None else self.forms @ z[:-1]

    def refresh(self, z: Array, xp: Any) -> None:
        """Take over new log-scales."""
        exponent = self.exponent(z)
        self.shift = exponent.max()
        self.factor = xp.exp(exponent - self.shift)


def compile_side(forms: sp.csr_array, groups: Integers, p: float, arrays: Arrays) -> Side:
    """A side from its forms, which hold no inactive variable."""
    n, count = forms.shape
    lengths = np.diff(forms.indptr)
    single = bool((lengths <= 1).all() and (not forms.nnz or (forms.data == forms.data[0]).all()))
    pick: Any = None
    if single:
        index = np.full(n, count, dtype=np.int64)
        index[lengths == 1] = forms.indices
        run = n > 0 and lengths.all() and (np.diff(index) == 1).all()
        pick = slice(int(index[0]), int(index[0]) + n) if run else arrays.array(index)
    profile, profiles = _profiles(forms, groups, lengths)
    sign = p * float(forms.data[0]) if forms.nnz else p
    general = [None] * 3
    if not single:
        scaled = sp.csr_array(p * forms)
        turned = sp.csr_array(scaled.T)
        general = [arrays.sparse(m) for m in (scaled, turned, sp.csr_array(turned.power(2)))]
    blank = arrays.zeros(n)
    return Side(n, pick, sign, *general, profile, profiles, blank, blank.sum())


def _profiles(
    forms: sp.csr_array, groups: Integers, lengths: Integers
) -> tuple[Integers, tuple[Profile, ...]]:
    by_group = sp.csr_array((forms.data, groups[forms.indices], forms.indptr), shape=forms.shape)
    by_group.sum_duplicates()
    if (lengths <= 1).all():  # the usual case, without Python per entry
        key = np.full(forms.shape[0], -1, dtype=np.int64)
        key[lengths == 1] = groups[forms.indices]
        if forms.nnz and (forms.data != forms.data[0]).any():
            _, kind = np.unique(forms.data, return_inverse=True)
            key[lengths == 1] += (int(groups.max()) + 1) * kind
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        return inverse.reshape(-1), tuple(_profile(by_group, i) for i in first)
    known: dict[Profile, int] = {}
    found = np.array([known.setdefault(_profile(by_group, i), len(known)) for i in range(forms.shape[0])])
    return found, tuple(known)


def _profile(by_group: sp.csr_array, entry: int) -> Profile:
    at = slice(by_group.indptr[entry], by_group.indptr[entry + 1])
    return tuple(zip(by_group.indices[at].tolist(), by_group.data[at].tolist(), strict=True))
