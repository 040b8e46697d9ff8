"""Multiply tensors by powers of the coefficients, all in one multi-tensor call.

A tensor with exponent e gets exp(e (r_i + c_j)): weights e = 1, momentum e = -1, second moments e = -2.
The factors of all rows and columns are gathered from one table of forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphnorm.training.kernels import Scale, compiled_scale
from graphnorm.training.layout import Layout

CHUNK = 1 << 18  # entries: between the row and the column factors a block stays in a core's cache


@dataclass(frozen=True)
class Job:
    """A tensor (of the layout's shape and memory order) to be multiplied by coefficient ** exponent."""

    tensor: Tensor
    layout: Layout
    exponent: float


class Scaling:
    """The multiplications of a list of jobs; the tensors' memory must stay where it is.

    Args:
        jobs: what to multiply.
        device: where the tensors are.
        fused: multiply by a compiled function, in one pass over memory, instead of a multi-tensor call.
    """

    def __init__(self, jobs: Sequence[Job], device: torch.device, fused: bool = False) -> None:
        self._scale = compiled_scale() if fused else None
        self.views: list[Tensor] = []
        self.places: list[tuple[int, int, int, tuple[int, ...]]] = []  # table, start, stop, shape
        self.tables: list[tuple[float, torch.dtype, Tensor]] = []
        by_kind: dict[tuple[float, torch.dtype], list[Job]] = {}
        for job in jobs:
            wide = job.tensor.dtype if job.tensor.dtype == torch.float64 else torch.float32
            by_kind.setdefault((job.exponent, wide), []).append(job)
        for (exponent, dtype), members in by_kind.items():
            ids: list[np.ndarray] = []
            start = 0
            for job in members:
                start = self._add(job, ids, start)
            joined = np.concatenate([np.empty(0, dtype=np.int64), *ids])
            self.tables.append((exponent, dtype, torch.from_numpy(joined).to(device)))

    def _add(self, job: Job, ids: list[np.ndarray], start: int) -> int:
        layout, table = job.layout, len(self.tables)
        view = layout.view(job.tensor)
        spans = []
        for side, shape in ((layout.rows, layout.row_shape), (layout.columns, layout.column_shape)):
            if side.any():
                ids.append(side)
                spans.append((table, start, start + len(side), shape))
                start += len(side)
        flat = len(layout.sizes[0]) == len(layout.sizes[1]) == 1
        if (
            self._scale is not None
            or len(spans) < 2
            or not flat
            or view.numel() <= CHUNK
            or view.device.type != "cpu"
        ):
            self.views += [view] * len(spans)
            self.places += spans
            return start
        (_, first, _, _), columns = spans
        step = max(1, CHUNK // view.shape[1])
        for low in range(0, view.shape[0], step):
            high = min(low + step, view.shape[0])
            self.views += [view[low:high]] * 2
            self.places += [(table, first + low, first + high, (high - low, 1)), columns]
        return start

    def apply(self, values: Tensor) -> None:
        """Multiply; `values` are the log-scales of all forms, float64."""
        factors = [torch.exp(values * e).to(dtype)[ids] for e, dtype, ids in self.tables]
        pieces = [factors[table][start:stop].view(shape) for table, start, stop, shape in self.places]
        if self._scale is not None:
            self._fused(self._scale, pieces)
        elif self.views:
            torch._foreach_mul_(self.views, pieces)

    def _fused(self, scale: Scale, pieces: Sequence[Tensor]) -> None:
        views: list[Tensor] = []
        rows: list[Tensor | None] = []
        columns: list[Tensor | None] = []
        for view, piece in zip(self.views, pieces, strict=True):
            if views and views[-1] is view:  # rows come first
                columns[-1] = piece
            else:
                views.append(view)
                rows.append(piece)
                columns.append(None)
        scale(views, rows, columns)
