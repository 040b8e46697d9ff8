"""Masses beyond the memory budget: recomputed from the weights in every product, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphnorm.solver.masses import ALL, Array, Dense, Gather, meet
from graphnorm.util.typing import Floats, Integers

Chunks = Callable[[npt.DTypeLike, bool], Iterator[tuple[slice, Array]]]


@dataclass(frozen=True, slots=True)
class Streamed:
    """Masses recomputed in each product.

    Attributes:
        shape: of the merged masses.
        chunks: (dtype, whole) -> (rows of the unmerged masses, their entries with columns merged).
        rows: how unmerged rows are merged.
        sums: whether entries that meet are added; else the larger one stays.
    """

    shape: tuple[int, int]
    chunks: Chunks
    rows: Gather | None = None
    sums: bool = True

    @property
    def nbytes(self) -> int:
        return 0

    def right(self, c: Floats, rows: slice = ALL) -> Floats:
        found = np.zeros((self.shape[0], *c.shape[1:]))
        for at, chunk in self.chunks(np.float64, False):
            meet(found, self._merged_rows(at), chunk @ c, self.sums)
        return found[rows]

    def left(self, r: Floats, columns: slice = ALL) -> Floats:
        found = np.zeros((self.shape[1], *r.shape[1:]))
        for at, chunk in self.chunks(np.float64, False):
            found += chunk.T @ r[self._merged_rows(at)]
        return found[columns]

    def right_max(self, c: Floats, rows: slice = ALL) -> Floats:
        found = np.zeros(self.shape[0])
        for at, chunk in self.chunks(np.float64, False):
            meet(found, self._merged_rows(at), (chunk * c).max(axis=1, initial=0.0), False)
        return found[rows]

    def left_max(self, r: Floats, columns: slice = ALL) -> Floats:
        found = np.zeros(self.shape[1])
        for at, chunk in self.chunks(np.float64, False):
            scaled = chunk * r[self._merged_rows(at)][:, None]
            np.maximum(found, scaled.max(axis=0, initial=0.0), out=found)
        return found[columns]

    def held(self, dtype: npt.DTypeLike) -> Dense:
        array: Array | None = None
        filled = 0
        for at, chunk in self.chunks(dtype, True):
            if array is None:
                if self.rows is None and chunk.shape == self.shape and chunk.dtype == dtype:
                    array, filled = chunk, len(chunk)
                    continue
                array = np.zeros(self.shape, dtype=dtype)
            if self.rows is None and at.start >= filled:  # rows that hold nothing yet
                array[at], filled = chunk, at.stop
            else:
                meet(array, self._merged_rows(at), chunk, self.sums)
        made = Dense(np.zeros(self.shape, dtype=dtype) if array is None else array, self.sums)
        return made.fitting(dtype, self) or self.held(np.float64)

    def _merged_rows(self, at: slice) -> slice | Integers:
        return at if self.rows is None else self.rows.inverse[at]
