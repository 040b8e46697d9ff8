"""The two passes over memory as functions that ``torch.compile`` fuses: sums of powers, and multiplications.

Compiled, neither |w|^p nor a table of factors is ever written to memory: on the CPU they become vectorised
loops, on CUDA Triton kernels.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Sums = Callable[[Sequence[Tensor], Sequence[Tensor | None]], list[Tensor]]
Scale = Callable[[Sequence[Tensor], Sequence[Tensor | None], Sequence[Tensor | None]], None]


def compiled_sums(axes: Sequence[int], p: float) -> Sums:
    """A function (matrices, factors) -> sums of |w|^p along the axes, weighted by the other side."""

    def sums(matrices: Sequence[Tensor], factors: Sequence[Tensor | None]) -> list[Tensor]:
        found = []
        for matrix, factor, axis in zip(matrices, factors, axes, strict=True):
            mass = matrix * matrix if p == 2.0 else matrix.abs().pow(p)
            if factor is not None:
                mass = mass * (factor if axis == 0 else factor[:, None])
            found.append(mass.sum(dim=1 - axis))
        return found

    return _compiled(sums)


def compiled_scale() -> Scale:
    """A function (views, row factors, column factors) that multiplies in place."""

    def scale(
        views: Sequence[Tensor], rows: Sequence[Tensor | None], columns: Sequence[Tensor | None]
    ) -> None:
        for view, row, column in zip(views, rows, columns, strict=True):
            if row is not None and column is not None:
                view.mul_(row * column)
            elif row is not None:
                view.mul_(row)
            elif column is not None:
                view.mul_(column)

    return _compiled(scale)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a copy with a code object of its own: closures would share one cache, which is small."""
    code = function.__code__.replace(co_name=f"{function.__name__}_{id(function)}")
    own = types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    return torch.compile(own, dynamic=False, fullgraph=True)
