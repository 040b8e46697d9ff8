"""Linear forms in the variables, each kept once and named by a number.

Form 0 is the constant 0.  A plain network has forms z_v and -z_v only; products of activations give
several terms.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from graphnorm.solver.problem import form_keys
from graphnorm.util.typing import Floats, Integers


class Forms:
    """Different linear forms, as padded tables.

    Attributes:
        index: (forms, terms) variables; the padding names variable `count`, the constant 0.
        coefficient: (forms, terms).
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._known: dict[bytes, int] = {}
        self._rows: list[tuple[Integers, Floats]] = []
        self.add(sp.csr_array((1, count)))

    def add(self, rows: sp.csr_array) -> Integers:
        """Numbers of the forms that are the rows of a sparse (entries, variables) matrix."""
        rows = sp.csr_array(rows)
        rows.sum_duplicates()
        rows.eliminate_zeros()
        rows.sort_indices()
        key = form_keys(rows)
        _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
        numbers = np.array([self._number(rows, int(row)) for row in first], dtype=np.int64)
        return np.asarray(numbers[inverse.reshape(-1)])

    def _number(self, rows: sp.csr_array, row: int) -> int:
        at = slice(rows.indptr[row], rows.indptr[row + 1])
        index, data = rows.indices[at].astype(np.int64), rows.data[at].astype(np.float64)
        number = self._known.setdefault(index.tobytes() + data.tobytes(), len(self._rows))
        if number == len(self._rows):
            self._rows.append((index, data))
        return number

    @property
    def index(self) -> Integers:
        table = np.full((len(self._rows), self._width), self.count, dtype=np.int64)
        for row, (index, _) in enumerate(self._rows):
            table[row, : len(index)] = index
        return table

    @property
    def coefficient(self) -> Floats:
        table = np.zeros((len(self._rows), self._width))
        for row, (_, data) in enumerate(self._rows):
            table[row, : len(data)] = data
        return table

    @property
    def _width(self) -> int:
        return max(1, *(len(index) for index, _ in self._rows))
