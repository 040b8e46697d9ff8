"""Cyclic coordinate descent of ENorm on tensors (Stock et al. 2019, algorithm 1).

    Phi(z) = sum_parts sum_ij lambda A_ij exp(p (r_i + c_j)),     r, c: forms in z,     A = |w|^p

A stage updates some channel groups at once: with L, R the masses that grow and shrink with a variable,

    z <- z + log(R / L) / (2 p D),

D the largest sum of |coefficients| of one exponent within the group (1 but for recurrent matrices and
powers).  In order "layers" each group is a stage, in network order, as in the paper.  In order "colours"
groups that share no weight are updated together: two to four stages for any depth, the same fixed point.

A stage is a fixed sequence of tensor operations without a look at values: it can be captured as a CUDA
graph.  Variables without mass on one side stay where they are, steps are bounded, nothing is divided by 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from graphnorm.training.forms import Forms, Integers
from graphnorm.training.layout import Layout

ORDERS = ("layers", "colours")
EXPONENT_LIMIT = 32.0  # of p |z|: exp() of it, squared, is far inside float32


@dataclass(frozen=True)
class Counted:
    """A matrix of masses: its layout, its weight lambda, and whether this process counts it."""

    layout: Layout
    weight: float = 1.0
    mine: bool = True


@dataclass(frozen=True)
class _Read:
    """Sums of one matrix along one axis, for the entries that a stage moves."""

    matrix: int
    axis: int  # of the entries: 0 rows, 1 columns
    part: slice
    plain: bool  # in the first cycle nothing on the other side has moved yet


@dataclass(frozen=True)
class _Stage:
    reads: tuple[_Read, ...]
    others: Tensor  # forms of the other sides, of all reads
    own: Tensor  # forms of the entries, of all reads
    other_sizes: tuple[int, ...]
    weight: Tensor  # log lambda of each entry
    source: Tensor  # entry of each contribution
    target: Tensor  # place among (rising of each variable, falling of each variable)
    share: Tensor  # |coefficient|
    variables: Tensor
    degree: Tensor


class Cycle:
    """The compiled descent.

    Args:
        forms: the table of forms.
        groups: (variables,) channel group of each variable.
        counted: the matrices of masses.
        p: exponent of the norm.
        order: ``layers`` or ``colours``.
        device: where the matrices lie.
        total: sums a vector over processes, in place.
    """

    def __init__(
        self,
        forms: Forms,
        groups: Integers,
        counted: Sequence[Counted],
        p: float,
        order: str,
        device: torch.device,
        total: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.p = p
        self.count = forms.count
        self.counted = counted
        self.total = total
        self.device = device
        self._terms, self._weights = forms.index, forms.coefficient
        self.index = torch.from_numpy(self._terms).to(device)
        self.coefficient = torch.from_numpy(self._weights).to(device)
        batches = _schedule(self._terms, self._weights, groups, counted, order)
        degrees = self._degrees(groups)
        moved = np.zeros(self.count, dtype=bool)
        self.stages: list[_Stage] = []
        for batch in batches:
            chosen = np.isin(groups, batch)
            self.stages.append(self._stage(chosen, moved, degrees[groups]))
            moved |= chosen

    def run(self, masses: Sequence[Tensor], cycles: int = 1, limit: float | None = None) -> Tensor:
        """Log-scales (count + 1,) after some cycles from 0; the last entry is the constant 0.

        Args:
            masses: |w|^p of each counted matrix, (rows, columns).
            cycles: sweeps over all groups.
            limit: bound on |z| of each variable.
        """
        bound = min(EXPONENT_LIMIT / self.p, limit if limit is not None else float("inf"))
        z = torch.zeros(self.count + 1, dtype=torch.float64, device=self.device)
        for cycle in range(cycles):
            for stage in self.stages:
                self._update(stage, masses, z, bound, first=cycle == 0)
        return z

    def evaluate(self, z: Tensor) -> Tensor:
        """The value of every form."""
        return (self.coefficient * z[self.index]).sum(dim=1)

    def _update(self, stage: _Stage, masses: Sequence[Tensor], z: Tensor, bound: float, first: bool) -> None:
        flows = self._flows(stage, masses, z, first)
        if self.total is not None:
            self.total(flows)
        rising, falling = flows.view(2, -1)
        step = torch.log(falling / rising) / (2.0 * self.p * stage.degree)
        step = torch.nan_to_num(step, nan=0.0, posinf=0.0, neginf=0.0)  # dead on one side: left alone
        z[stage.variables] = (z[stage.variables] + step).clamp(-bound, bound)

    def _flows(self, stage: _Stage, masses: Sequence[Tensor], z: Tensor, first: bool) -> Tensor:
        """Masses that grow with each variable of a stage, then those that shrink."""
        values = self.p * self.evaluate(z)
        others = torch.exp(values[stage.others]).split(stage.other_sizes)
        sums = []
        for read, factor in zip(stage.reads, others, strict=True):
            mass = masses[read.matrix]
            mass = mass[read.part] if read.axis == 0 else mass[:, read.part]
            if first and read.plain:
                sums.append(mass.sum(dim=1 - read.axis, dtype=torch.float64))
            elif read.axis == 0:
                sums.append((mass @ factor.to(mass.dtype)).double())
            else:
                sums.append((factor.to(mass.dtype) @ mass).double())
        flows = torch.zeros(2 * len(stage.variables), dtype=torch.float64, device=self.device)
        if sums:
            mass = torch.cat(sums) * torch.exp(values[stage.own] + stage.weight)
            flows.index_add_(0, stage.target, mass[stage.source] * stage.share)
        return flows

    def _stage(self, chosen: np.ndarray, moved: np.ndarray, degrees: np.ndarray) -> _Stage:
        variables = np.flatnonzero(chosen)
        place = np.full(self.count + 1, -1)
        place[variables] = np.arange(len(variables))
        live = (place[self._terms] >= 0) & (self._weights != 0)
        stale = (np.append(moved, False)[self._terms] & (self._weights != 0)).any(axis=1)
        reads, others, own, weight = [], [], [], []
        source, target, share = [], [], []
        offset = 0
        for number, item in enumerate(self.counted):
            if not item.mine:
                continue
            sides = (item.layout.rows, item.layout.columns)
            for axis, (side, other) in enumerate(zip(sides, reversed(sides), strict=True)):
                hit = np.flatnonzero(live[side].any(axis=1))
                if not len(hit):
                    continue
                part = slice(int(hit[0]), int(hit[-1]) + 1)
                reads.append(_Read(number, axis, part, not stale[other].any() and not stale[side].any()))
                others.append(other)
                own.append(side[part])
                weight.append(np.full(part.stop - part.start, np.log(item.weight)))
                entry, term = np.nonzero(live[side[part]])
                coefficient = self._weights[side[part]][entry, term]
                source.append(entry + offset)
                target.append(
                    place[self._terms[side[part]][entry, term]] + len(variables) * (coefficient < 0)
                )
                share.append(np.abs(coefficient))
                offset += part.stop - part.start
        return _Stage(
            reads=tuple(reads),
            others=self._tensor(others, np.int64),
            own=self._tensor(own, np.int64),
            other_sizes=tuple(len(other) for other in others),
            weight=self._tensor(weight, np.float64),
            source=self._tensor(source, np.int64),
            target=self._tensor(target, np.int64),
            share=self._tensor(share, np.float64),
            variables=torch.from_numpy(variables).to(self.device),
            degree=torch.from_numpy(degrees[variables]).to(self.device),
        )

    def _tensor(self, arrays: Sequence[np.ndarray], dtype: type) -> Tensor:
        joined = np.concatenate([np.empty(0, dtype=dtype), *arrays]).astype(dtype)
        return torch.from_numpy(joined).to(self.device)

    def _degrees(self, groups: Integers) -> np.ndarray:
        """Per group, the largest sum of |coefficients| in one exponent."""
        count = int(groups.max(initial=-1)) + 1
        of_form = np.zeros((len(self._terms), count + 1))
        rows = np.arange(len(self._terms))[:, None]
        np.add.at(of_form, (rows, np.append(groups, count)[self._terms]), np.abs(self._weights))
        degree = np.ones(count + 1)
        for item in self.counted:
            both = [of_form[np.unique(side)].max(axis=0) for side in (item.layout.rows, item.layout.columns)]
            degree = np.maximum(degree, both[0] + both[1])
        return degree[:count]


def _schedule(
    terms: Integers, weights: np.ndarray, groups: Integers, counted: Sequence[Counted], order: str
) -> list[list[int]]:
    """Which groups are updated together, in order; groups without a counted weight are left out."""
    of_term = np.append(groups, -1)[np.where(weights != 0, terms, len(groups))]
    graph = nx.Graph()
    for item in counted:
        pair = [np.unique(of_term[np.unique(side)], axis=0) for side in (item.layout.rows, item.layout.columns)]
        for row in pair[0]:
            for column in pair[1]:
                present = sorted({int(g) for g in (*row, *column) if g >= 0})
                graph.add_nodes_from(present)
                graph.add_edges_from((a, b) for i, a in enumerate(present) for b in present[i + 1 :])
    if order == "layers":
        return [[group] for group in sorted(graph.nodes)]
    colour = nx.greedy_color(graph, strategy=lambda g, _: sorted(g.nodes))
    stages: list[list[int]] = [[] for _ in range(max(colour.values(), default=-1) + 1)]
    for group in sorted(colour):
        stages[colour[group]].append(group)
    return stages
