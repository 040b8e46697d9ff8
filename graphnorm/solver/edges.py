"""Masses of sides that share an axis (grouped and depthwise kernels, gains): few entries of many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from graphnorm.solver.masses import ALL, Gather
from graphnorm.util.typing import Floats


@dataclass(frozen=True, slots=True)
class Sparse:
    """Masses of sides that share an axis (grouped, depthwise, gains), by row and by column."""

    by_row: sp.csr_array
    by_column: sp.csr_array
    sums: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        return self.by_row.shape[0], self.by_row.shape[1]

    @property
    def nbytes(self) -> int:
        return 2 * sum(int(a.nbytes) for a in (self.by_row.data, self.by_row.indices, self.by_row.indptr))

    def right(self, c: Floats, rows: slice = ALL) -> Floats:
        return np.asarray((self.by_row if rows == ALL else self.by_row[rows]) @ c)

    def left(self, r: Floats, columns: slice = ALL) -> Floats:
        return np.asarray((self.by_column if columns == ALL else self.by_column[columns]) @ r)

    def right_max(self, c: Floats, rows: slice = ALL) -> Floats:
        return _largest(sp.csr_array(self.by_row[rows]), c)

    def left_max(self, r: Floats, columns: slice = ALL) -> Floats:
        return _largest(sp.csr_array(self.by_column[columns]), r)

    def merged(self, rows: Gather | None, columns: Gather | None) -> Sparse:
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

    def held(self, dtype: npt.DTypeLike) -> Sparse:
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


def sparse(matrix: sp.csr_array, sums: bool = True) -> Sparse:
    """Both orders of a sparse matrix."""
    by_row = sp.csr_array(matrix)
    by_row.sum_duplicates()
    return Sparse(by_row, sp.csr_array(by_row.T), sums)


def _largest(matrix: sp.csr_array, vector: Floats) -> Floats:
    found = np.zeros(matrix.shape[0])
    entry = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    np.maximum.at(found, entry, matrix.data * vector[matrix.indices])
    return found
