"""Where the solver's arrays live: NumPy, or torch on a CPU or CUDA device.

The solver's code uses what NumPy and torch share (indexing, arithmetic, exp, log, where, stack); what they
don't is here.  torch is imported only when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from graphnorm.solver.masses import Dense, Mass, Sparse

if TYPE_CHECKING:
    import torch

Array = Any
"""float64 or int64 vector of the chosen library."""


@dataclass(frozen=True, slots=True)
class NumpyArrays:
    """Host arrays."""

    xp: Any = np

    def array(self, values: Array) -> Array:
        return np.asarray(values)

    def host(self, values: Array) -> np.ndarray[Any, Any]:
        return np.asarray(values)

    def sparse(self, matrix: sp.csr_array) -> Any:
        return matrix

    def mass(self, mass: Mass) -> Mass:
        return mass

    def zeros(self, *shape: int) -> Array:
        return np.zeros(shape)


class TorchArrays:
    """Tensors on `device`; a block's products run there, in its masses' own precision."""

    def __init__(self, device: str) -> None:
        import torch

        self.xp = torch
        self.device = torch.device(device)

    def array(self, values: Array) -> Array:
        return self.xp.as_tensor(np.ascontiguousarray(values), device=self.device)

    def host(self, values: Array) -> np.ndarray[Any, Any]:
        return np.asarray(values.cpu())

    def sparse(self, matrix: sp.csr_array) -> Any:
        parts = (self.array(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices))
        return self.xp.sparse_csr_tensor(*parts, self.array(matrix.data), size=matrix.shape)

    def mass(self, mass: Mass) -> Any:
        if isinstance(mass, Sparse):
            return TorchMass(self.sparse(mass.by_row), self.sparse(mass.by_column), self)
        if isinstance(mass, Dense):
            array = self.array(mass.array)
            return TorchMass(array, array.T, self)
        return mass  # already a TorchMass

    def zeros(self, *shape: int) -> Array:
        return self.xp.zeros(shape, dtype=self.xp.float64, device=self.device)


@dataclass(frozen=True, slots=True)
class TorchMass:
    """A block's masses on a device: by row, and transposed."""

    by_row: torch.Tensor
    by_column: torch.Tensor
    arrays: TorchArrays

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.by_row.shape)  # type: ignore[return-value]

    def right(self, c: Array, rows: slice = slice(None)) -> Array:
        return self._product(self.by_row, c, rows)

    def left(self, r: Array, columns: slice = slice(None)) -> Array:
        return self._product(self.by_column, r, columns)

    def _product(self, matrix: torch.Tensor, vector: Array, part: slice) -> Array:
        if matrix.is_sparse_csr:
            return (matrix @ vector)[part]
        return (matrix[part] @ vector.to(matrix.dtype)).to(self.arrays.xp.float64)


Arrays = NumpyArrays | TorchArrays


def arrays_for(device: str) -> Arrays:
    """The library for ``numpy``, ``cpu`` (torch), ``cuda``, ``cuda:1``..."""
    return NumpyArrays() if device == "numpy" else TorchArrays(device)


def add_at(into: Array, index: Array, values: Array) -> None:
    """into[index] += values, with repeated indices added up."""
    if isinstance(into, np.ndarray):
        np.add.at(into, index, values)
    else:
        into.index_add_(0, index, values)
