"""Where the solver's arrays live: NumPy, or torch on a CPU or CUDA device.

The solver's code uses what NumPy and torch share (indexing, arithmetic, exp, log, where, stack); the
differences are handled here.  torch is imported only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphnorm.solver.edges import Sparse
from graphnorm.solver.masses import ALL, Dense, Mass
from graphnorm.solver.streamed import Streamed

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

    def mass(self, mass: Mass) -> Mass:
        return mass

    def zeros(self, *shape: int) -> Array:
        return np.zeros(shape)

    def largest(self, scalars: Sequence[Array]) -> Array:
        """One of the scalars."""
        return max(scalars)

    def log_ratio(self, above: Array, below: Array) -> tuple[Array, Array]:
        """log(above / below), 0 where one is 0, and its largest absolute value."""
        found = np.log(above) - np.log(below)
        most = abs(found).max()
        if np.isfinite(most):
            return found, most
        found = np.where((above > 0) & (below > 0), found, 0.0)
        return found, abs(found).max()


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

    def mass(self, mass: Any) -> Any:
        if isinstance(mass, Sparse):
            edges = mass.by_row.tocoo()
            index = (self.array(edges.row.astype(np.int64)), self.array(edges.col.astype(np.int64)))
            return TorchEdges(self.array(edges.data), *index, mass.shape, self)
        if isinstance(mass, Dense):
            return TorchDense(self.array(mass.array), self)
        return HostMass(mass, self) if isinstance(mass, Streamed) else mass

    def zeros(self, *shape: int) -> Array:
        return self.xp.zeros(shape, dtype=self.xp.float64, device=self.device)

    def largest(self, scalars: Sequence[Array]) -> Array:
        """One of the scalars; nothing waits for the device."""
        return scalars[0] if len(scalars) == 1 else self.xp.stack(list(scalars)).max()

    def log_ratio(self, above: Array, below: Array) -> tuple[Array, Array]:
        """log(above / below), 0 where one is 0, and its largest absolute value."""
        xp = self.xp
        found = xp.where((above > 0) & (below > 0), xp.log(above) - xp.log(below), 0.0)
        return found, abs(found).max()


@dataclass(frozen=True, slots=True)
class TorchDense:
    """`masses.Dense` on a device."""

    array: torch.Tensor
    arrays: TorchArrays

    def right(self, c: Array, rows: slice = ALL) -> Array:
        return (self.array[rows] @ c.to(self.array.dtype)).to(self.arrays.xp.float64)

    def left(self, r: Array, columns: slice = ALL) -> Array:
        return (self.array.T[columns] @ r.to(self.array.dtype)).to(self.arrays.xp.float64)


@dataclass(frozen=True, slots=True)
class TorchEdges:
    """`edges.Sparse` on a device: masses of edges, and the row and column of each."""

    masses: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    shape: tuple[int, int]
    arrays: TorchArrays

    def right(self, c: Array, rows: slice = ALL) -> Array:
        return self._sums(c, self.column, self.row, self.shape[0])[rows]

    def left(self, r: Array, columns: slice = ALL) -> Array:
        return self._sums(r, self.row, self.column, self.shape[1])[columns]

    def _sums(self, vector: Array, there: Array, here: Array, size: int) -> Array:
        masses = self.masses if vector.ndim == 1 else self.masses[:, None]
        return self.arrays.zeros(size, *vector.shape[1:]).index_add_(0, here, masses * vector[there])


@dataclass(frozen=True, slots=True)
class HostMass:
    """Masses that stay on the host, beyond the memory budget: each product crosses over and back."""

    mass: Streamed
    arrays: TorchArrays

    def right(self, c: Array, rows: slice = ALL) -> Array:
        return self.arrays.array(self.mass.right(self.arrays.host(c), rows))

    def left(self, r: Array, columns: slice = ALL) -> Array:
        return self.arrays.array(self.mass.left(self.arrays.host(r), columns))


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
