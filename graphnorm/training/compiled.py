"""The step compiled for given tensors: matrices of masses, the descent, and all multiplications."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from graphnorm.training.cycle import Counted, Cycle
from graphnorm.training.forms import Forms, Integers
from graphnorm.training.layout import layout_of
from graphnorm.training.parts import Part
from graphnorm.training.scaling import Job, Scaling
from graphnorm.training.shards import mesh_of, shard_of, summed_over

Moving = tuple[str, Tensor, float]
"""Name of the weight, tensor of its shape, exponent of the weight's coefficient."""


class CompiledStep:
    """The compiled step; valid as long as the tensors stay where they are in memory.

    Args:
        forms: the table of forms.
        parts: the parts of every weight that may move.
        groups: channel group of each variable.
        weights: the model's own tensors by name.
        moving: all that moves, the weights among them.
        p: exponent of the norm.
        c: asymmetry.
        order: see `Cycle`.
    """

    def __init__(
        self,
        forms: Forms,
        parts: Sequence[Part],
        groups: Integers,
        weights: Mapping[str, Tensor],
        moving: Iterable[Moving],
        p: float,
        c: float,
        order: str,
    ) -> None:
        self.p = p
        self.device = next((tensor.device for tensor in weights.values()), torch.device("cpu"))
        self.mesh = mesh_of(weights.items())
        self._sources: list[Tensor] = []
        self._buffers: list[Tensor] = []
        counted = []
        by_weight: dict[str, list[Part]] = {}
        for part in parts:
            by_weight.setdefault(part.weight, []).append(part)
            if part.counted:
                item = self._count(part, weights[part.weight], c ** (p * part.layers))
                counted += [] if item is None else [item]
        self.cycle = Cycle(forms, groups, counted, p, order, self.device, summed_over(self.mesh))
        self.scaling = Scaling(self._jobs(by_weight, moving), self.device)

    def masses(self) -> list[Tensor]:
        """|w|^p of each counted matrix."""
        for source, buffer in zip(self._sources, self._buffers, strict=True):
            matrix = buffer.view(source.shape)
            if self.p == 2.0 and source.dtype == buffer.dtype:
                torch.mul(source, source, out=matrix)
                continue
            matrix.copy_(source)
            if self.p == 2.0:
                matrix.square_()
            elif self.p == 1.0:
                matrix.abs_()
            else:
                matrix.abs_().pow_(self.p)
        return self._buffers

    def _count(self, part: Part, tensor: Tensor, weight: float) -> Counted | None:
        shard = shard_of(part.weight, tensor, self.mesh)
        own = part.within(shard.window)
        if own is None:
            return None
        layout = layout_of(own, shard.local)
        if not (layout.rows.any() or layout.columns.any()):
            return None
        source = layout.view(shard.local)
        wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        self._sources.append(source)
        self._buffers.append(
            torch.empty(len(layout.rows), len(layout.columns), dtype=wide, device=tensor.device)
        )
        return Counted(layout, weight, shard.first)

    def _jobs(self, parts: Mapping[str, Sequence[Part]], moving: Iterable[Moving]) -> list[Job]:
        jobs = []
        for name, tensor, exponent in moving:
            shard = shard_of(name, tensor, self.mesh)
            for part in parts[name]:
                own = part.within(shard.window)
                if own is not None:
                    jobs.append(Job(shard.local, layout_of(own, shard.local), exponent))
        return jobs
