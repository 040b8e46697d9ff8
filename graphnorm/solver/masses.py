"""The masses of a block as an operator: products with vectors, whatever holds them.

    right(c) = A c     left(r) = A^T r     right_max, left_max: the same with maxima for sums

`Dense` holds an array, `edges.Sparse` a sparse one; `streamed.Streamed` recomputes the entries in every
product, a chunk at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from graphnorm.util.typing import Floats, Integers

Array = npt.NDArray[np.floating]
_SMALLEST, _LARGEST = 1e-28, 1e30  # sums in this range, so that float32 entries that matter are normal
# Rows of one float32 sum down a column, whose error grows with the length: BLAS adds up 16 sums side by side.
_BLAS_RUN, _RUN = 1024, 128
_LEAST_ENTRY = 1e-35  # where the row and the column with the least sums meet


@dataclass(frozen=True, slots=True)
class Gather:
    """Entry k belongs to merged entry `inverse[k]` of `count`."""

    inverse: Integers
    count: int

    def matrix(self, dtype: npt.DTypeLike = np.float64) -> sp.csr_array:
        """(merged, entries) matrix of ones."""
        n = len(self.inverse)
        return sp.csr_array((np.ones(n, dtype=dtype), (self.inverse, np.arange(n))), shape=(self.count, n))


class Mass(Protocol):
    """Non-negative (rows, columns) matrix."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def nbytes(self) -> int: ...
    def right(self, c: Floats, rows: slice = ...) -> Floats:
        """A[rows] c, also for a matrix c."""

    def left(self, r: Floats, columns: slice = ...) -> Floats:
        """A[:, columns]^T r."""

    def right_max(self, c: Floats, rows: slice = ...) -> Floats:
        """max_j A_ij c_j for i in rows."""

    def left_max(self, r: Floats, columns: slice = ...) -> Floats:
        """max_i A_ij r_i for j in columns."""

    def held(self, dtype: npt.DTypeLike) -> Held:
        """The same masses in memory, in `dtype` if its range suffices, else in float64."""


class Held(Mass, Protocol):
    """Masses in memory."""

    def merged(self, rows: Gather | None, columns: Gather | None) -> Held:
        """The masses with entries summed."""

    def scaled(self, r: Floats, c: Floats) -> Held:
        """r_i A_ij c_j."""

    def power(self, q: float, unit: float) -> Held:
        """(A / unit)^q."""

    def largest(self) -> float:
        """The largest mass."""


ALL = slice(None)


@dataclass(frozen=True, slots=True)
class Dense:
    """Masses in an array of float32 or float64; products are float64.

    `totals` are the sums of all rows and of all columns, where they are known.
    """

    array: Array
    sums: bool = True
    totals: tuple[Floats, Floats] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.array.shape[0], self.array.shape[1]

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    def right(self, c: Floats, rows: slice = ALL) -> Floats:
        return _float64(self.array[rows] @ c.astype(self.array.dtype, copy=False))

    def left(self, r: Floats, columns: slice = ALL) -> Floats:
        a, r = self.array[:, columns], r.astype(self.array.dtype, copy=False)
        if a.dtype == np.float64 or len(a) <= _BLAS_RUN:
            return _float64(a.T @ r)
        return np.asarray(np.sum([_float64(a[at].T @ r[at]) for at in _runs(len(a), _BLAS_RUN)], axis=0))

    def right_max(self, c: Floats, rows: slice = ALL) -> Floats:
        return np.asarray((self.array[rows] * c).max(axis=1, initial=0.0))

    def left_max(self, r: Floats, columns: slice = ALL) -> Floats:
        return np.asarray((self.array[:, columns] * r[:, None]).max(axis=0, initial=0.0))

    def merged(self, rows: Gather | None, columns: Gather | None) -> Dense:
        array = _merged(self.array, rows, self.sums)
        array = _merged(array.T, columns, self.sums).T
        return Dense(np.ascontiguousarray(array), self.sums)

    def held(self, dtype: npt.DTypeLike) -> Dense:
        return Dense(self.array.astype(dtype, copy=False), self.sums).fitting(dtype, self) or self

    def fitting(self, dtype: npt.DTypeLike, truth: Mass | None = None) -> Dense | None:
        """The same masses if row and column sums are 0 (in `truth`, too) or far from the limits of `dtype`.

        An entry whose row and column are both scaled down is scaled twice: it must stay a normal number, too.
        """
        if np.dtype(dtype) == np.float64:
            return self
        a = self.array
        rows = _float64(a.sum(axis=1))  # threads would wait for BLAS
        columns = np.sum([_float64(a[at].sum(axis=0)) for at in _runs(len(a), _RUN)], axis=0)
        least = [side.min(initial=np.inf, where=side > 0) for side in (rows, columns)]
        largest = max(rows.max(initial=0.0), columns.max(initial=0.0))
        if not (largest < _LARGEST and min(least) > _SMALLEST):  # not if one is NaN
            return None
        if np.isfinite(least[0]) and least[0] * least[1] < _LEAST_ENTRY * rows.sum():
            return None
        if truth is not None and not (rows.all() and columns.all()):
            true_rows, true_columns = truth.right(np.ones(len(columns))), truth.left(np.ones(len(rows)))
            if true_rows[rows == 0].any() or true_columns[columns == 0].any():
                return None
        return replace(self, totals=(rows, columns))

    def scaled(self, r: Floats, c: Floats) -> Dense:
        """r_i A_ij c_j."""
        return Dense(r[:, None] * self.array * c, self.sums)

    def power(self, q: float, unit: float) -> Dense:
        """(A / unit)^q."""
        return Dense((self.array / unit) ** q)

    def largest(self) -> float:
        """The largest mass."""
        return float(self.array.max(initial=0.0))


def _runs(count: int, length: int) -> list[slice]:
    return [slice(start, start + length) for start in range(0, max(count, 1), length)]


def _float64(values: Array) -> Floats:
    return values.astype(np.float64, copy=False)


def _merged(array: Array, gather: Gather | None, sums: bool) -> Array:
    if gather is None:
        return array
    found = np.zeros((gather.count, array.shape[1]), dtype=array.dtype)
    meet(found, gather.inverse, array, sums)
    return found


def meet(found: Array, at: slice | Integers, values: Array, sums: bool) -> None:
    """Add `values` to the rows `at`, or keep the larger one."""
    if isinstance(at, slice):
        found[at] = found[at] + values if sums else np.maximum(found[at], values)
    elif (at == at[0]).all():  # pinned rows are all one
        found[at[0]] = (
            found[at[0]] + values.sum(axis=0) if sums else np.maximum(found[at[0]], values.max(axis=0))
        )
    elif sums:
        np.add.at(found, at, values)
    else:
        np.maximum.at(found, at, values)
