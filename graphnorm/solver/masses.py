"""The masses of a block as an operator: products with vectors, whatever holds them.

    right(c) = A c     left(r) = A^T r     right_max, left_max: the same with maxima for sums

`Dense` and `Sparse` hold an array; `Streamed` makes the entries again, a chunk at a time, in every product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Array = npt.NDArray[np.floating]  # type: ignore[type-arg]
_SMALLEST, _LARGEST = 1e-28, 1e30  # sums in this range, so that float32 entries that matter are normal


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

    def merged(self, rows: Gather | None, columns: Gather | None) -> Mass:
        """The masses with entries summed."""

    def held(self, dtype: npt.DTypeLike) -> Any:
        """The same masses in memory, in `dtype` if its range suffices, else in float64."""


ALL = slice(None)


@dataclass(frozen=True, slots=True)
class Dense:
    """Masses in an array of float32 or float64; products are float64."""

    array: Array
    sums: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        return self.array.shape  # type: ignore[return-value]

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    def right(self, c: Floats, rows: slice = ALL) -> Floats:
        return _float64(self.array[rows] @ c.astype(self.array.dtype, copy=False))

    def left(self, r: Floats, columns: slice = ALL) -> Floats:
        return _float64(self.array.T[columns] @ r.astype(self.array.dtype, copy=False))

    def right_max(self, c: Floats, rows: slice = ALL) -> Floats:
        return np.asarray((self.array[rows] * c).max(axis=1, initial=0.0))

    def left_max(self, r: Floats, columns: slice = ALL) -> Floats:
        return np.asarray((self.array[:, columns] * r[:, None]).max(axis=0, initial=0.0))

    def merged(self, rows: Gather | None, columns: Gather | None) -> Mass:
        array = _merged(self.array, rows, self.sums)
        array = _merged(array.T, columns, self.sums).T
        return Dense(np.ascontiguousarray(array), self.sums)

    def held(self, dtype: npt.DTypeLike) -> Mass:
        return Dense(self.array.astype(dtype), self.sums) if _fits(self, dtype) else self

    def scaled(self, r: Floats, c: Floats) -> Dense:
        """r_i A_ij c_j."""
        return Dense(r[:, None] * self.array * c, self.sums)

    def power(self, q: float, unit: float) -> Dense:
        """(A / unit)^q."""
        return Dense((self.array / unit) ** q)

    def largest(self) -> float:
        """The largest mass."""
        return float(self.array.max(initial=0.0))


@dataclass(frozen=True, slots=True)
class Sparse:
    """Masses of sides that share an axis (grouped, depthwise, gains), by row and by column."""

    by_row: sp.csr_array
    by_column: sp.csr_array
    sums: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        return self.by_row.shape  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        return 2 * sum(a.nbytes for a in (self.by_row.data, self.by_row.indices, self.by_row.indptr))

    def right(self, c: Floats, rows: slice = ALL) -> Floats:
        return np.asarray((self.by_row if rows == ALL else self.by_row[rows]) @ c)

    def left(self, r: Floats, columns: slice = ALL) -> Floats:
        return np.asarray((self.by_column if columns == ALL else self.by_column[columns]) @ r)

    def right_max(self, c: Floats, rows: slice = ALL) -> Floats:
        return _largest(sp.csr_array(self.by_row[rows]), c)

    def left_max(self, r: Floats, columns: slice = ALL) -> Floats:
        return _largest(sp.csr_array(self.by_column[columns]), r)

    def merged(self, rows: Gather | None, columns: Gather | None) -> Mass:
        if rows is None and columns is None:
            return self
        edges = self.by_row.tocoo()
        m, n = self.shape
        row, m = (edges.row, m) if rows is None else (rows.inverse[edges.row], rows.count)
        column, n = (edges.col, n) if columns is None else (columns.inverse[edges.col], columns.count)
        key, inverse = np.unique(row.astype(np.int64) * n + column, return_inverse=True)
        masses = np.zeros(len(key))
        (np.add if self.sums else np.maximum).at(masses, inverse, edges.data)
        return sparse(sp.csr_array((masses, (key // n, key % n)), shape=(m, n)), self.sums)

    def held(self, dtype: npt.DTypeLike) -> Mass:
        return self

    def scaled(self, r: Floats, c: Floats) -> Sparse:
        """r_i A_ij c_j."""
        edges = self.by_row.tocoo()
        data = r[edges.row] * edges.data * c[edges.col]
        return sparse(sp.csr_array((data, (edges.row, edges.col)), shape=self.shape), self.sums)

    def power(self, q: float, unit: float) -> Sparse:
        """(A / unit)^q."""
        return sparse((self.by_row / unit).power(q), self.sums)

    def largest(self) -> float:
        """The largest mass."""
        return float(self.by_row.data.max(initial=0.0))


@dataclass(frozen=True, slots=True)
class Streamed:
    """Masses made anew in each product.

    Attributes:
        shape: of the merged masses.
        chunks: dtype -> (rows of the unmerged masses, their entries with columns merged).
        rows: how unmerged rows are merged.
        sums: whether entries that meet are added; else the larger one stays.
    """

    shape: tuple[int, int]
    chunks: Callable[[npt.DTypeLike], Iterator[tuple[slice, Array]]]
    rows: Gather | None = None
    sums: bool = True

    @property
    def nbytes(self) -> int:
        return 0

    def right(self, c: Floats, rows: slice = ALL) -> Floats:
        found = np.zeros((self.shape[0], *c.shape[1:]))
        for at, chunk in self.chunks(np.float64):
            _meet(found, self._merged_rows(at), chunk @ c, self.sums)
        return found[rows]

    def left(self, r: Floats, columns: slice = ALL) -> Floats:
        found = np.zeros((self.shape[1], *r.shape[1:]))
        for at, chunk in self.chunks(np.float64):
            found += chunk.T @ r[self._merged_rows(at)]
        return found[columns]

    def right_max(self, c: Floats, rows: slice = ALL) -> Floats:
        found = np.zeros(self.shape[0])
        for at, chunk in self.chunks(np.float64):
            _meet(found, self._merged_rows(at), (chunk * c).max(axis=1, initial=0.0), False)
        return found[rows]

    def left_max(self, r: Floats, columns: slice = ALL) -> Floats:
        found = np.zeros(self.shape[1])
        for at, chunk in self.chunks(np.float64):
            scaled = chunk * r[self._merged_rows(at)][:, None]
            np.maximum(found, scaled.max(axis=0, initial=0.0), out=found)
        return found[columns]

    def merged(self, rows: Gather | None, columns: Gather | None) -> Mass:
        raise TypeError("streamed masses are merged when they are made")

    def held(self, dtype: npt.DTypeLike) -> Mass:
        array = np.zeros(self.shape, dtype=dtype)
        for at, chunk in self.chunks(dtype):
            _meet(array, self._merged_rows(at), chunk, self.sums)
        made = Dense(array, self.sums)
        return made if _fits(made, dtype) else self.held(np.float64)

    def _merged_rows(self, at: slice) -> slice | Integers:
        return at if self.rows is None else self.rows.inverse[at]


def as_mass(mass: object, sums: bool = True) -> Mass:
    """Wrap an array or a sparse array; entries that meet are added (`sums`), or the largest stays."""
    if isinstance(mass, np.ndarray):
        return Dense(mass, sums)
    return sparse(mass, sums) if sp.issparse(mass) else mass  # type: ignore[return-value]


def sparse(matrix: sp.csr_array, sums: bool = True) -> Sparse:
    """Both orders of a sparse matrix."""
    by_row = sp.csr_array(matrix)
    by_row.sum_duplicates()
    return Sparse(by_row, sp.csr_array(by_row.T), sums)


def _float64(values: Array) -> Floats:
    return values.astype(np.float64, copy=False)


def _fits(mass: Dense, dtype: npt.DTypeLike) -> bool:
    """Whether row and column sums are 0 or far from the limits of `dtype`."""
    if np.dtype(dtype) == np.float64:
        return True
    sums = np.concatenate([mass.right(np.ones(mass.shape[1])), mass.left(np.ones(mass.shape[0]))])
    positive = sums[sums > 0]
    return bool(np.isfinite(sums).all() and ((positive > _SMALLEST) & (positive < _LARGEST)).all())


def _merged(array: Array, gather: Gather | None, sums: bool) -> Array:
    if gather is None:
        return array
    found = np.zeros((gather.count, array.shape[1]), dtype=array.dtype)
    _meet(found, gather.inverse, array, sums)
    return found


def _meet(found: Array, at: slice | Integers, values: Array, sums: bool) -> None:
    """Add `values` to the rows `at`, or let the larger one stay."""
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


def _largest(matrix: sp.csr_array, vector: Floats) -> Floats:
    found = np.zeros(matrix.shape[0])
    entry = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    np.maximum.at(found, entry, matrix.data * vector[matrix.indices])
    return found
