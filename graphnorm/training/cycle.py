"""Cyclic coordinate descent of ENorm on tensors (Stock et al. 2019, algorithm 1).

    Phi(z) = sum_parts sum_ij lambda A_ij exp(p (r_i + c_j)),     r, c: forms in z,     A = |w|^p

A stage updates some channel groups at once: with L, R the masses that grow and shrink with a variable,

    z <- z + log(R / L) / (2 p D),

D the largest sum of |coefficients| of one exponent within the group (1 but for recurrent matrices and
powers).  In order "layers" each group is a stage, in network order, as in the paper.  In order "colours"
groups that share no weight are updated together: two to four stages for any depth, the same fixed point.

A matrix whose sides belong to one group each is *live* in a single cycle: it is multiplied where it lies, as
soon as a side is known, so that plain sums of the weights themselves are all that is read.

A stage is a fixed sequence of tensor operations without a look at values: it can be captured as a CUDA
graph.  Variables without mass on one side stay where they are, steps are bounded, nothing is divided by 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphnorm.training.forms import Forms
from graphnorm.training.kernels import Sums, compiled_sums
from graphnorm.training.masses import power_sums
from graphnorm.training.schedule import Counted, Pair, Profiles, schedule
from graphnorm.util.typing import Integers

LOG2 = math.log(2.0)
EXPONENT_LIMIT = 32.0  # of p |z|: exp() of it, squared, is far inside float32


@dataclass(frozen=True)
class _Read:
    """Sums of one matrix along one axis, for the entries that a stage moves."""

    matrix: int
    axis: int  # of the entries: 0 rows, 1 columns
    part: slice
    live: bool
    plain: bool  # in the first cycle nothing on the other side has moved yet
    other: Tensor  # forms of the other side


@dataclass(frozen=True)
class _Stage:
    reads: tuple[_Read, ...]
    before: tuple[tuple[int, int], ...]  # live matrices and their sides, to be multiplied before the reads
    after: tuple[tuple[int, int], ...]  # and when the stage's variables are known
    own: Tensor  # forms of the entries, of all reads
    fresh: bool  # in the first cycle none of these has moved yet
    source: Tensor  # entry of each contribution
    target: Tensor  # place among (rising of each variable, falling of each variable)
    share: Tensor  # lambda |coefficient|
    variables: Tensor
    rate: Tensor  # 1 / (2 p D)


class Cycle:
    """The compiled descent.

    Args:
        forms: the table of forms.
        groups: (variables,) channel group of each variable.
        counted: the matrices of masses that this process holds.
        pairs: the forms of all counted weights.
        p: exponent of the norm.
        order: ``layers`` or ``colours``.
        device: where the matrices lie.
        total: sums a vector over processes, in place.
        live: numbers of the matrices that may be multiplied during a single cycle (see `live_matrices`).
        fused: numbers of the matrices that are given as weights and read by compiled functions.
        exact: variables are multiples of log 2.
    """

    def __init__(
        self,
        forms: Forms,
        groups: Integers,
        counted: Sequence[Counted],
        pairs: Sequence[Pair],
        p: float,
        order: str,
        device: torch.device,
        total: Callable[[Tensor], None] | None = None,
        live: Collection[int] = (),
        fused: Collection[int] = (),
        exact: bool = False,
    ) -> None:
        self.exact = exact
        self.p, self.count, self.counted, self.total, self.device = p, forms.count, counted, total, device
        self.live, self.fused = frozenset(live), frozenset(fused)
        self._terms, self._weights = forms.index, forms.coefficient
        self.index = torch.from_numpy(self._terms.ravel()).to(device)
        self.coefficient = torch.from_numpy(self._weights).to(device)
        profiles = Profiles(forms, groups)
        degrees = profiles.degrees(pairs)[groups]
        self._sides = {
            (number, axis): self._table(side)
            for number in self.live
            for axis, side in enumerate((counted[number].layout.rows, counted[number].layout.columns))
            if side.any()
        }
        self._kernels: dict[tuple[int, bool], Sums] = {}
        moved = np.zeros(self.count, dtype=bool)
        self.stages: list[_Stage] = []
        for batch in schedule(profiles, pairs, order):
            chosen = np.isin(groups, batch)
            self.stages.append(self._stage(chosen, moved, degrees))
            moved |= chosen

    def run(self, masses: Sequence[Tensor], cycles: int = 1, limit: float | None = None) -> Tensor:
        """Log-scales (count + 1,) after some cycles from 0; the last entry is the constant 0.

        Args:
            masses: of each counted matrix, |w|^p (rows, columns); of a fused one w itself; of a live one w
                itself, which is multiplied.
            cycles: sweeps over all groups; 1 if there are live matrices.
            limit: bound on |z| of each variable.
        """
        bound = min(EXPONENT_LIMIT / self.p, limit if limit is not None else float("inf"))
        z = torch.zeros(self.count + 1, dtype=torch.float64, device=self.device)
        for cycle in range(cycles):
            for stage in self.stages:
                self._update(stage, masses, z, bound, first=cycle == 0)
        return z

    def evaluate(self, z: Tensor, ids: Tensor | None = None) -> Tensor:
        """The value of every form, or of some."""
        values = _values(z, (self.index, self.coefficient))
        return values if ids is None else values.index_select(0, ids)

    def _update(self, stage: _Stage, masses: Sequence[Tensor], z: Tensor, bound: float, first: bool) -> None:
        self._multiply(stage.before, masses, z)
        flows = self._flows(stage, masses, z, first)
        if self.total is not None:
            self.total(flows)
        rising, falling = flows.view(2, -1)
        step = torch.log_(falling / rising).mul_(stage.rate)
        step = torch.nan_to_num_(step, nan=0.0, posinf=0.0, neginf=0.0)  # dead on one side: not updated
        if not stage.fresh or not first:
            step += z.index_select(0, stage.variables)
        step.clamp_(-bound, bound)
        if self.exact:  # the nearest; where that is beyond the bound, the next towards 0
            step = torch.round(step / LOG2).clamp_(-(bound // LOG2), bound // LOG2).mul_(LOG2)
        z.index_copy_(0, stage.variables, step)
        self._multiply(stage.after, masses, z)

    def _multiply(self, sides: Sequence[tuple[int, int]], masses: Sequence[Tensor], z: Tensor) -> None:
        for number, axis in sides:
            factor = torch.exp_(_values(z, self._sides[number, axis])).to(masses[number].dtype)
            masses[number].mul_(factor[:, None] if axis == 0 else factor)

    def _flows(self, stage: _Stage, masses: Sequence[Tensor], z: Tensor, first: bool) -> Tensor:
        """Masses that grow with each variable of a stage, then those that shrink."""
        flows = torch.zeros(2 * len(stage.variables), dtype=torch.float64, device=self.device)
        fused = self._fused_sums(stage, masses, z, first) if self.fused else {}
        sums = [
            self._sum(read, masses[read.matrix], z, first) if (found := fused.get(i)) is None else found
            for i, read in enumerate(stage.reads)
        ]
        if sums:
            mass = torch.cat(sums).double()
            if not (first and stage.fresh):
                mass *= torch.exp(self.p * self.evaluate(z, stage.own))
            flows.index_add_(0, stage.target, mass.index_select(0, stage.source).mul_(stage.share))
        return flows

    def _fused_sums(
        self, stage: _Stage, masses: Sequence[Tensor], z: Tensor, first: bool
    ) -> dict[int, Tensor]:
        """The sums of all fused matrices of a stage, by read."""
        chosen = [(i, read) for i, read in enumerate(stage.reads) if read.matrix in self.fused]
        key = (id(stage), first)
        if key not in self._kernels:
            self._kernels[key] = compiled_sums([read.axis for _, read in chosen], self.p)
        values = torch.exp_(self.p * self.evaluate(z))
        factors = [
            None if first and read.plain else values.index_select(0, read.other).to(masses[read.matrix].dtype)
            for _, read in chosen
        ]
        matrices = [
            masses[read.matrix][read.part] if read.axis == 0 else masses[read.matrix][:, read.part]
            for _, read in chosen
        ]
        found = self._kernels[key](matrices, factors)
        return {i: sums for (i, _), sums in zip(chosen, found, strict=True)}

    def _sum(self, read: _Read, mass: Tensor, z: Tensor, first: bool) -> Tensor:
        if read.live:
            return power_sums(mass, read.axis, self.p)
        mass = mass[read.part] if read.axis == 0 else mass[:, read.part]
        if first and read.plain:
            return mass.sum(dim=1 - read.axis)
        factor = torch.exp(self.p * self.evaluate(z, read.other)).to(mass.dtype)
        return mass @ factor if read.axis == 0 else factor @ mass

    def _stage(self, chosen: np.ndarray, moved: np.ndarray, degrees: np.ndarray) -> _Stage:
        variables = np.flatnonzero(chosen)
        place = np.full(self.count + 1, -1)
        place[variables] = np.arange(len(variables))
        live = (place[self._terms] >= 0) & (self._weights != 0)
        stale = (np.append(moved, False)[self._terms] & (self._weights != 0)).any(axis=1)
        reads, own, source, target, share = [], [], [], [], []
        before, after = [], []
        offset = 0
        for number, item in enumerate(self.counted):
            if not item.mine:
                continue
            sides = (item.layout.rows, item.layout.columns)
            for axis, (side, other) in enumerate(zip(sides, reversed(sides), strict=True)):
                hit = np.flatnonzero(live[side].any(axis=1))
                if not len(hit):
                    continue
                if number in self.live:
                    hit = np.arange(len(side))
                    if stale[other].any():
                        before.append((number, 1 - axis))
                    if stale[other].any() or not other.any():
                        after.append((number, axis))
                part = slice(int(hit[0]), int(hit[-1]) + 1)
                plain = not stale[other].any()
                ids = self._tensor([other], np.int64)
                reads.append(_Read(number, axis, part, number in self.live, plain, ids))
                own.append(side[part])
                entry, term = np.nonzero(live[side[part]])
                coefficient = self._weights[side[part]][entry, term]
                falls = len(variables) * (coefficient < 0)
                source.append(entry + offset)
                target.append(place[self._terms[side[part]][entry, term]] + falls)
                share.append(item.weight * np.abs(coefficient))
                offset += part.stop - part.start
        return _Stage(
            tuple(reads),
            tuple(before),
            tuple(after),
            own=self._tensor(own, np.int64),
            fresh=not any(stale[ids].any() for ids in own) and not moved[variables].any(),
            source=self._tensor(source, np.int64),
            target=self._tensor(target, np.int64),
            share=self._tensor(share, np.float64),
            variables=torch.from_numpy(variables).to(self.device),
            rate=torch.from_numpy(0.5 / (self.p * degrees[variables])).to(self.device),
        )

    def _table(self, side: Integers) -> tuple[Tensor, Tensor]:
        """Variables and coefficients of a side's forms."""
        width = max(1, int((self._weights[side] != 0).sum(axis=1).max()))
        index = torch.from_numpy(self._terms[side, :width].ravel()).to(self.device)
        return index, torch.from_numpy(self._weights[side, :width]).to(self.device)

    def _tensor(self, arrays: Sequence[np.ndarray], dtype: type) -> Tensor:
        joined: np.ndarray = np.concatenate([np.empty(0, dtype=dtype), *arrays]).astype(dtype)
        return torch.from_numpy(joined).to(self.device)


def _values(z: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    index, coefficient = table
    terms = z.index_select(0, index).view_as(coefficient).mul_(coefficient)
    return terms.view(-1) if coefficient.shape[1] == 1 else terms.sum(dim=1)


def live_matrices(forms: Forms, groups: Integers, counted: Sequence[Counted]) -> set[int]:
    """Matrices whose rows move with one group and whose columns with another (or not at all)."""
    profiles = Profiles(forms, groups)
    found = set()
    for number, item in enumerate(counted):
        rows, columns = (profiles.of(side) for side in (item.layout.rows, item.layout.columns))
        flat = len(item.layout.sizes[0]) == len(item.layout.sizes[1]) == 1
        if item.mine and flat and len(rows) <= 1 and len(columns) <= 1 and rows != columns:
            found.add(number)
    return found
