"""Forms of one side, a term at a time: term k of all is two vectors, and nothing loops over channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from graphnorm.util.typing import Floats, Integers


@dataclass(frozen=True, slots=True)
class Term:
    """One term of each form: `coefficient` times variable `index` (the number of variables: no such term).

    Attributes:
        index: (forms,).
        coefficient: (forms,).
        group: the group of all these variables; None if there are several, or forms without such a term.
        number: the coefficient of all; None if they differ.
    """

    index: Integers
    coefficient: Floats
    group: int | None
    number: float | None


def uniform(terms: Sequence[Term]) -> tuple[tuple[int, float], ...] | None:
    """(group, coefficient) of each term if these are the same in all forms; else None."""
    pairs = [(t.group, t.number) for t in terms if t.group is not None and t.number is not None]
    return tuple(pairs) if len(pairs) == len(terms) else None


def terms_of(forms: sp.csr_array, groups: Integers) -> tuple[Term, ...]:
    """The forms' first terms, their second terms...; larger coefficients first."""
    return tuple(_term(index, coefficient, groups) for index, coefficient in slotted(forms))


def _term(index: Integers, coefficient: Floats, groups: Integers) -> Term:
    present = index < len(groups)
    everywhere = bool(present.all())
    mine = groups[index] if everywhere else groups[:0]
    group = int(mine[0]) if len(mine) and bool((mine == mine[0]).all()) else None
    values = coefficient if everywhere else coefficient[present]
    number = float(values[0]) if bool((values == values[0]).all()) else None
    return Term(index, coefficient, group, number)


def slotted(forms: sp.csr_array) -> list[tuple[Integers, Floats]]:
    """(variable, coefficient) of each form's first term, second term...; larger coefficients first."""
    n, count = forms.shape
    lengths = np.diff(forms.indptr)
    width = int(lengths.max(initial=0))
    if width and (lengths == width).all() and forms.has_sorted_indices:
        index, coefficient = forms.indices.reshape(n, width), forms.data.reshape(n, width)
        if width == 1 or (coefficient == coefficient[0]).all():
            order = np.argsort(-coefficient[0], kind="stable").tolist()
            return [(index[:, k].astype(np.int64), coefficient[:, k].copy()) for k in order]
    entry = np.repeat(np.arange(n), lengths)
    sequence = np.lexsort((forms.indices, -forms.data, entry)) if width > 1 else np.arange(forms.nnz)
    place = np.arange(forms.nnz) - np.repeat(forms.indptr[:-1], lengths)
    index = np.full((width, n), count, dtype=np.int64)
    coefficient = np.zeros((width, n))
    index[place, entry] = forms.indices[sequence]
    coefficient[place, entry] = forms.data[sequence]
    return list(zip(index, coefficient, strict=True))
