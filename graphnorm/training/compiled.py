"""The step compiled for given tensors: matrices of masses, the descent, and all multiplications."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from graphnorm.errors import InputError
from graphnorm.training.cycle import Cycle, live_matrices
from graphnorm.training.forms import Forms
from graphnorm.training.layout import layout_of
from graphnorm.training.masses import powers
from graphnorm.training.onepass import OnePass, covers
from graphnorm.training.parts import Part
from graphnorm.training.scaling import Job, Scaling
from graphnorm.training.schedule import Counted, pair_of
from graphnorm.training.shards import mesh_of, shard_of, summed_over
from graphnorm.util.typing import Integers

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
        cycles: sweeps per step.
        fused: fuse the passes over memory: with Numba on the CPU (`onepass`), else with ``torch.compile``.
        exact: coefficients are powers of two; so they are if a tensor that moves has fewer bits than float32.

    Raises:
        InputError: a tensor that moves is float16 or sparse.
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
        cycles: int,
        fused: bool = False,
        exact: bool = False,
    ) -> None:
        self.p, self.cycles = p, cycles
        self._weights = weights
        moving = list(moving)
        exact = _needs_exact(moving) or exact
        self.device = next((tensor.device for tensor in weights.values()), torch.device("cpu"))
        self.mesh = mesh_of(weights.items())
        self._sources: list[Tensor] = []
        self._buffers: dict[int, Tensor] = {}
        self._matrices: list[Part] = []
        counted = []
        by_weight: dict[str, list[Part]] = {}
        for part in parts:
            by_weight.setdefault(part.weight, []).append(part)
            if part.counted:
                item = self._count(part, weights[part.weight], c ** (p * part.layers))
                counted += [] if item is None else [item]
        plain = {
            i for i, source in enumerate(self._sources) if source.dtype in (torch.float32, torch.float64)
        }
        live = live_matrices(forms, groups, counted) & plain if cycles == 1 and not fused else set()
        read = {i for i in plain if self._sources[i].dim() == 2} if fused else set()
        total = summed_over(self.mesh)
        pairs = [pair_of(part) for part in parts if part.counted]
        self.cycle = Cycle(forms, groups, counted, pairs, p, order, self.device, total, live, read, exact)
        done = {id(self._matrices[number]) for number in live}
        jobs = self._jobs(by_weight, moving, done)
        one = fused and covers(self.cycle, self._sources, jobs)
        self._one_pass = OnePass(self.cycle, self._sources, jobs, cycles) if one else None
        self.scaling = Scaling([] if one else jobs, self.device, fused)

    def run(self, limit: float | None = None) -> None:
        """One step; `limit` bounds the log-scale of a variable."""
        if self._one_pass is not None:
            self._one_pass.run(limit)
            return
        with torch.autocast(self.device.type, enabled=False):
            matrices = [
                source if number in self.cycle.live | self.cycle.fused else self._powers(number, source)
                for number, source in enumerate(self._sources)
            ]
            z = self.cycle.run(matrices, self.cycles, limit)
            self.scaling.apply(self.cycle.evaluate(z))

    def energy(self) -> float:
        """Sum lambda |w|^p over the counted matrices of all processes."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for item, source in zip(self.cycle.counted, self._sources, strict=True):
            if item.mine:
                total += item.weight * powers(source, self.p).sum(dtype=torch.float64)
        if self.cycle.total is not None:
            self.cycle.total(total)
        return float(total)

    def _powers(self, number: int, source: Tensor) -> Tensor:
        """|w|^p as a matrix, in a buffer that is kept."""
        buffer = self._buffers.get(number)
        if buffer is None:
            wide = torch.promote_types(source.dtype, torch.float32)
            buffer = self._buffers[number] = torch.empty(source.shape, dtype=wide, device=source.device)
        layout = self.cycle.counted[number].layout
        return powers(source, self.p, buffer).view(len(layout.rows), len(layout.columns))

    def _count(self, part: Part, tensor: Tensor, weight: float) -> Counted | None:
        shard = shard_of(part.weight, tensor, self.mesh)
        own = part.within(shard.window)
        if own is None:
            return None
        layout = layout_of(own, shard.local)
        if not (layout.rows.any() or layout.columns.any()):
            return None
        self._sources.append(layout.view(shard.local))
        self._matrices.append(part)
        return Counted(layout, weight, shard.first)

    def _jobs(
        self, parts: Mapping[str, Sequence[Part]], moving: Iterable[Moving], done: Collection[int]
    ) -> list[Job]:
        """All multiplications but those of the model's own live matrices."""
        jobs = []
        for name, tensor, exponent in moving:
            shard = shard_of(name, tensor, self.mesh)
            for part in parts[name]:
                own = part.within(shard.window)
                if own is not None and not (tensor is self._weights[name] and id(part) in done):
                    jobs.append(Job(shard.local, layout_of(own, shard.local), exponent))
        return jobs


def _needs_exact(moving: Sequence[Moving]) -> bool:
    """Whether a product would be rounded to fewer bits than float32 has."""
    for name, tensor, _ in moving:
        if tensor.layout != torch.strided:
            raise InputError(f"a gradient or state of {name!r} is {tensor.layout}: it cannot be rescaled")
        if tensor.dtype == torch.float16:
            raise InputError(
                f"{name!r}, its gradient or its state is float16, whose range is too small to be rescaled "
                "without loss: keep float32 weights and use torch.autocast, or bfloat16"
            )
    return any(tensor.dtype.itemsize < 4 for _, tensor, _ in moving)
