"""Channel groups: variables that are updated at once, and where their masses are in the blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from graphnorm.solver.arrays import Array, Arrays, add_at
from graphnorm.solver.blocks import CompiledBlock
from graphnorm.solver.sides import Side
from graphnorm.solver.terms import Term, uniform
from graphnorm.util.typing import Bools, Integers


@dataclass(frozen=True, slots=True)
class Target:
    """Where the masses of a range of entries go among a group's variables.

    Attributes:
        entries: which entries of the range (None: all).
        local: their variables, counted within the group (None: all, in order).
        coefficient: of these terms; masses that are summed count with its absolute value.
        repeated: whether a variable occurs twice.
    """

    entries: Array | None
    local: Array | None
    coefficient: float
    repeated: bool

    def take(self, masses: Array, into: Array, sums: bool) -> None:
        """Add masses of the range to `into`, one place for each variable (or keep the larger)."""
        values = masses if self.entries is None else masses[self.entries]
        if sums and abs(self.coefficient) != 1.0:
            values = values * abs(self.coefficient)
        if self.local is None:
            if sums:
                into += values
            else:
                np.maximum(into, values, out=into)
        elif self.repeated:
            (add_at if sums else np.maximum.at)(into, self.local, values)
        else:
            there = into[self.local]
            into[self.local] = there + values if sums else np.maximum(there, values)


@dataclass(frozen=True, slots=True)
class Incidence:
    """Where a group meets a side of a block: the smallest range of entries that holds its own, and targets.

    `part` is None if that is the whole side.
    """

    block: CompiledBlock
    axis: int
    part: slice | None
    targets: tuple[Target, ...]

    @property
    def side(self) -> Side:
        """The side that the group meets."""
        return self.block.sides[self.axis]

    def masses(self) -> Array:
        """Masses of the entries of `part`, over exp(level of the block)."""
        factor = self.side.factor if self.part is None else self.side.factor[self.part]
        return factor * self.block.product(self.axis, self.part)

    def collect(self, masses: Array, rising: Array, falling: Array) -> None:
        """Add masses of `part` to what rises and falls with their variables (p = inf: keep the largest)."""
        for target in self.targets:
            target.take(masses, rising if target.coefficient > 0 else falling, self.block.sums)


@dataclass(frozen=True, slots=True)
class Group:
    """Variables that are updated at once, and what touches them.

    `degree` is the largest sum of |coefficients| of one exponent within the group.
    """

    index: int
    variables: Array
    size: int
    parts: tuple[Incidence, ...]
    degree: float


def find_groups(
    blocks: Sequence[CompiledBlock], groups: Integers, active: Bools, arrays: Arrays
) -> list[Group]:
    """The groups of the active variables that some block touches."""
    count = int(groups.max(initial=-1)) + 1
    variables = np.flatnonzero(active)
    order = variables[np.argsort(groups[variables], kind="stable")]
    bounds = np.searchsorted(groups[order], np.arange(count + 1))
    place = np.zeros(len(groups), dtype=np.int64)  # variable -> position within its group
    place[order] = np.arange(len(order)) - np.repeat(bounds[:-1], np.diff(bounds))
    sizes = np.diff(bounds)
    parts: list[list[Incidence]] = [[] for _ in range(count)]
    degree = np.ones(count)
    known: dict[int, _Meetings] = {}  # of sides that blocks share
    for block in blocks:
        for side, forms in zip(block.sides, block.forms, strict=True):
            if id(side) not in known:
                known[id(side)] = _meetings(side, forms, groups, place, sizes, arrays)
        met = [known[id(side)] for side in block.sides]
        for g in met[0].largest.keys() | met[1].largest.keys():
            degree[g] = max(degree[g], met[0].largest.get(g, 0.0) + met[1].largest.get(g, 0.0))
        for axis in (0, 1):
            for g, (part, targets) in met[axis].of_group.items():
                parts[g].append(Incidence(block, axis, part, targets))
    found = []
    for g in range(count):
        if parts[g]:
            mine = order[bounds[g] : bounds[g + 1]]
            run = (np.diff(mine) == 1).all()
            where = slice(int(mine[0]), int(mine[-1]) + 1) if run else arrays.array(mine)
            found.append(Group(g, where, len(mine), tuple(parts[g]), float(degree[g])))
    return found


def coloured(groups: Sequence[Group]) -> list[Group]:
    """The groups so that those which share no block come together (greedy colouring, Welsh and Powell 1967).

    Between coarse corrections this order smooths best, as red-black Gauss-Seidel does in multigrid.  (To
    import networkx for it would take longer than most solves.)
    """
    blocks: dict[int, set[int]] = {}
    for group in groups:
        for part in group.parts:
            blocks.setdefault(id(part.block), set()).add(group.index)
    meets: dict[int, set[int]] = {group.index: set() for group in groups}
    for together in blocks.values():
        for index in together:
            meets[index] |= together
    colour: dict[int, int] = {}
    for index in sorted(meets, key=lambda index: -len(meets[index])):
        used = {colour[other] for other in meets[index] if other in colour}
        colour[index] = next(c for c in range(len(used) + 1) if c not in used)
    return sorted(groups, key=lambda group: colour[group.index])


def near_blocks(groups: Sequence[Group]) -> dict[int, list[Incidence]]:
    """Group index -> the blocks whose product for their other side is due as soon as the group has moved.

    The group's own masses have just been read through that block: it still lies in the cache.  Nothing is
    computed twice: no other group moves that side, and the other side's groups would ask for this product.
    Of the two groups of a block the one with less to read is chosen.
    """
    volume = {group.index: sum(part.block.entries for part in group.parts) for group in groups}
    meets: dict[int, list[tuple[int, Incidence]]] = {}
    for group in groups:
        for part in group.parts:
            meets.setdefault(id(part.block), []).append((group.index, part))
    found: dict[int, list[Incidence]] = {}
    for pairs in meets.values():
        if len(pairs) == 2 and pairs[0][0] != pairs[1][0] and {part.axis for _, part in pairs} == {0, 1}:
            index, part = min(pairs, key=lambda pair: volume[pair[0]])
            found.setdefault(index, []).append(part)
    return found


@dataclass(frozen=True, slots=True)
class _Meetings:
    """Where a side meets groups.

    Attributes:
        largest: per group, the largest sum of |coefficients| in one form.
        of_group: group -> (part, targets), see `Incidence`.
    """

    largest: dict[int, float]
    of_group: dict[int, tuple[slice | None, tuple[Target, ...]]]


def _meetings(
    side: Side, forms: sp.csr_array, groups: Integers, place: Integers, sizes: Integers, arrays: Arrays
) -> _Meetings:
    largest = _largest(side, forms, groups)
    found = {g: _meeting(side, forms, groups, g, place, int(sizes[g]), arrays) for g in largest}
    return _Meetings(largest, found)


def _meeting(
    side: Side, forms: sp.csr_array, groups: Integers, g: int, place: Integers, size: int, arrays: Arrays
) -> tuple[slice | None, tuple[Target, ...]]:
    pairs = uniform(side.terms)
    if pairs is not None:
        mine = [(term, c) for term, (group, c) in zip(side.terms, pairs, strict=True) if group == g]
        return None, tuple(_whole(term, c, place, size, arrays) for term, c in mine)
    term = np.flatnonzero(groups[forms.indices] == g)
    entry = np.repeat(np.arange(forms.shape[0]), np.diff(forms.indptr))[term]
    part = slice(int(entry.min()), int(entry.max()) + 1)
    local, data = place[forms.indices[term]], forms.data[term]
    targets = []
    for coefficient in np.unique(data).tolist():
        chosen = np.flatnonzero(data == coefficient)
        inside, where = entry[chosen] - part.start, local[chosen]
        every_entry = len(inside) == part.stop - part.start and bool((np.diff(inside) == 1).all())
        in_order = len(where) == size and bool((where == np.arange(size)).all())
        targets.append(
            Target(
                None if every_entry else arrays.array(inside),
                None if in_order else arrays.array(where),
                coefficient,
                len(np.unique(where)) < len(where),
            )
        )
    every = part.stop - part.start == forms.shape[0]
    return None if every else part, tuple(targets)


def _whole(term: Term, coefficient: float, place: Integers, size: int, arrays: Arrays) -> Target:
    """All entries of a side, each with this term."""
    local = place[term.index]
    in_order = len(local) == size and bool((local == np.arange(size)).all())
    repeated = not in_order and int(np.bincount(local).max()) > 1
    return Target(None, None if in_order else arrays.array(local), coefficient, repeated)


def _largest(side: Side, forms: sp.csr_array, groups: Integers) -> dict[int, float]:
    """Per group, the largest sum of |coefficients| in one form of this side."""
    pairs = uniform(side.terms)
    if pairs is not None:
        found: dict[int, float] = {}
        for group, c in pairs:
            found[group] = found.get(group, 0.0) + abs(c)
        return found
    by_group = sp.csr_array((np.abs(forms.data), groups[forms.indices], forms.indptr), shape=forms.shape)
    if (np.diff(forms.indptr) > 1).any():
        by_group = by_group.copy()
        by_group.sum_duplicates()
    present, inverse = np.unique(by_group.indices, return_inverse=True)
    top = np.zeros(len(present))
    np.maximum.at(top, inverse, by_group.data)
    return dict(zip(present.tolist(), top.tolist(), strict=True))
