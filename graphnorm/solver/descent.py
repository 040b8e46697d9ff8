"""The point of a descent: log-scales, every block's exponentials, and the masses that meet at each variable.

Everything here costs two products with a block's masses at most, and no Python per channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from graphnorm.solver.arrays import Array, Arrays, add_at
from graphnorm.solver.problem import Bools, Integers, Problem
from graphnorm.solver.sides import Side, compile_side


@dataclass(slots=True)
class CompiledBlock:
    """A block's masses (an operator on the device) and sides.

    `sums` is False where entries that meet don't add up but the largest counts (p = inf); `memo` keeps the last product with all entries of each side: (version of the other side, masses).
    """

    mass: Any
    sides: tuple[Side, Side]
    memo: list[tuple[int, Array] | None]
    sums: bool

    def product(self, axis: int, part: slice | None = None) -> Array:
        """Masses of the entries `part` of side `axis` (None: all), without their own factor."""
        far = self.sides[1 - axis]
        held = self.memo[axis]
        if held is not None and held[0] == far.version:
            return held[1] if part is None else held[1][part]
        mass = self.mass
        if self.sums:
            multiply = mass.right if axis == 0 else mass.left
        else:
            multiply = mass.right_max if axis == 0 else mass.left_max
        if part is not None:
            return multiply(far.factor, part)
        masses = multiply(far.factor)
        self.memo[axis] = (far.version, masses)
        return masses

    def total(self) -> Array:
        """Sum (largest) of the masses, over exp(shift of both sides)."""
        known = self.memo[1]
        axis = 1 if known is not None and known[0] == self.sides[0].version else 0
        masses = self.sides[axis].factor * self.product(axis)
        return masses.sum() if self.sums else masses.max()


@dataclass(frozen=True, slots=True)
class Target:
    """Where the masses of a range of entries go among a group's variables.

    Attributes:
        entries: which entries of the range (None: all).
        local: their variables, counted within the group (None: all, in order).
        coefficient: of these terms; masses count with its absolute value.
        repeated: whether a variable occurs twice.
    """

    entries: Array | None
    local: Array | None
    coefficient: float
    repeated: bool


@dataclass(frozen=True, slots=True)
class Incidence:
    """Where a group meets a side of a block: the smallest range of entries that holds its own, and targets.

    `part` is None if that is the whole side.
    """

    block: CompiledBlock
    axis: int
    part: slice | None
    targets: tuple[Target, ...]


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


class Descent:
    """A problem on a device, and a point.

    Args:
        problem: masses held as they are to be used.
        active: variables that may move; the others stay at 0.
        arrays: where to compute.
        z: log-scales to start from.
    """

    def __init__(self, problem: Problem, active: Bools, arrays: Arrays, z: Array) -> None:
        self.arrays, self.xp = arrays, arrays.xp
        self.problem, self.p, self.count = problem, problem.exponent, problem.count
        self.active = arrays.array(active)
        self.any_active = bool(active.any())
        self.sums = bool(np.isfinite(problem.p))
        keep = sp.dia_array((active.astype(np.float64)[None, :], [0]), shape=(problem.count,) * 2)
        self.blocks: list[CompiledBlock] = []
        self.forms: list[tuple[sp.csr_array, sp.csr_array]] = []
        for block in problem.blocks:
            forms = tuple(_dropped(side, keep, active) for side in (block.rows, block.columns))
            if any(side.nnz for side in forms):
                sides = tuple(compile_side(side, problem.groups, self.p, arrays) for side in forms)
                self.blocks.append(CompiledBlock(arrays.mass(block.mass), sides, [None, None], self.sums))  # type: ignore[arg-type]
                self.forms.append(forms)  # type: ignore[arg-type]
        self.groups = tuple(_groups(self.blocks, self.forms, problem.groups, active, arrays))
        self._touching: dict[int, list[Side]] = {}
        for group in self.groups:
            sides_of = {id(s): s for s in (part.block.sides[part.axis] for part in group.parts)}
            self._touching[group.index] = list(sides_of.values())
        self.move_to(z)

    def move_to(self, z: Array) -> None:
        """Take over log-scales of all variables, shape (count,)."""
        self._z = self.arrays.zeros(self.count + 1)
        self._z[:-1] = z
        for block in self.blocks:
            for side in block.sides:
                side.refresh(self._z, self.xp)

    @property
    def z(self) -> Array:
        """Log-scales, shape (count,)."""
        return self._z[:-1]

    def shift_group(self, group: Group, step: Array) -> None:
        """Add `step` to a group's variables."""
        self._z[group.variables] = self._z[group.variables] + step
        for side in self._touching[group.index]:
            side.refresh(self._z, self.xp)

    def level(self, block: CompiledBlock) -> Array:
        """Logarithm of what a block's factors are short of."""
        return block.sides[0].shift + block.sides[1].shift

    def meeting(
        self, group: Group, weights: Sequence[Array | float] | None = None
    ) -> tuple[Array, Array, Array]:
        """Masses that rise and fall with a group's variables, over exp(level), and the level.

        `weights` multiply the masses of each incidence (the paper's equivalent blocks).
        """
        xp = self.xp
        levels = [self.level(part.block) for part in group.parts]
        top = levels[0]
        for level in levels[1:]:
            top = xp.maximum(top, level)
        rising, falling = self.arrays.zeros(group.size), self.arrays.zeros(group.size)
        for i, (part, level) in enumerate(zip(group.parts, levels, strict=True)):
            near = part.block.sides[part.axis]
            factor = near.factor if part.part is None else near.factor[part.part]
            mass = factor * part.block.product(part.axis, part.part)
            scale = xp.exp(level - top)
            mass = mass * (scale if weights is None else scale * weights[i])
            _collect(part, mass, rising, falling, None if self.sums else xp.maximum)
        return rising, falling, top

    def imbalance(self) -> float:
        """Largest |log(in / out)| over the active variables."""
        worst = [abs_log(self, *self.meeting(group)[:2]).max() for group in self.groups]
        if not worst:
            return float("inf") if self.any_active else 0.0
        return float(self.xp.stack(worst).max())

    def block_totals(self) -> list[tuple[Array, Array]]:
        """Per block: masses of all its entries over exp(level), and the level."""
        return [(block.total(), self.level(block)) for block in self.blocks]

    def objective(self) -> float:
        """Phi over the blocks that can move."""
        totals = self.block_totals()
        if not totals:
            return 0.0
        values = [total * self.xp.exp(level) for total, level in totals]
        return float(sum(values) if self.sums else max(values))


def abs_log(at: Descent, rising: Array, falling: Array) -> Array:
    """|log(in / out)|, infinite where a variable has lost one side."""
    return abs(at.xp.log(falling) - at.xp.log(rising))


def _dropped(forms: sp.csr_array, keep: sp.dia_array, active: Bools) -> sp.csr_array:
    if active[forms.indices].all():
        return forms
    found = sp.csr_array(forms @ keep)
    found.eliminate_zeros()
    return found


def _collect(
    part: Incidence,
    mass: Array,
    rising: Array,
    falling: Array,
    larger: Callable[[Array, Array], Array] | None,
) -> None:
    """Add masses to their variables; or keep the `larger`."""
    for target in part.targets:
        values = mass if target.entries is None else mass[target.entries]
        if abs(target.coefficient) != 1.0:
            values = values * abs(target.coefficient)
        into = rising if target.coefficient > 0 else falling
        if larger is not None:
            if target.repeated:
                np.maximum.at(into, target.local, values)
            else:
                where = slice(None) if target.local is None else target.local
                into[where] = larger(into[where], values)
        elif target.local is None:
            into += values
        elif target.repeated:
            add_at(into, target.local, values)
        else:
            into[target.local] += values


def _groups(
    blocks: Sequence[CompiledBlock],
    forms: Sequence[tuple[sp.csr_array, sp.csr_array]],
    groups: Integers,
    active: Bools,
    arrays: Arrays,
) -> list[Group]:
    count = int(groups.max(initial=-1)) + 1
    variables = np.flatnonzero(active)
    order = variables[np.argsort(groups[variables], kind="stable")]
    bounds = np.searchsorted(groups[order], np.arange(count + 1))
    place = np.zeros(len(groups), dtype=np.int64)  # variable -> position within its group
    place[order] = np.arange(len(order)) - np.repeat(bounds[:-1], np.diff(bounds))
    sizes = np.diff(bounds)
    parts: list[list[Incidence]] = [[] for _ in range(count)]
    degree = np.ones(count)
    for block, sides in zip(blocks, forms, strict=True):
        largest = [_largest(side, groups) for side in sides]
        for g in largest[0].keys() | largest[1].keys():
            degree[g] = max(degree[g], largest[0].get(g, 0.0) + largest[1].get(g, 0.0))
        for axis, side in enumerate(sides):
            for g in largest[axis]:
                parts[g].append(_incidence(block, axis, side, groups, g, place, int(sizes[g]), arrays))
    found = []
    for g in range(count):
        if parts[g]:
            mine = order[bounds[g] : bounds[g + 1]]
            run = (np.diff(mine) == 1).all()
            where = slice(int(mine[0]), int(mine[-1]) + 1) if run else arrays.array(mine)
            found.append(Group(g, where, len(mine), tuple(parts[g]), float(degree[g])))
    return found


def _incidence(
    block: CompiledBlock, axis: int, forms: sp.csr_array, groups: Integers, g: int, place: Integers, size: int,
    arrays: Arrays,
) -> Incidence:  # fmt: skip
    term = np.flatnonzero(groups[forms.indices] == g)
    entry = np.repeat(np.arange(forms.shape[0]), np.diff(forms.indptr))[term]
    part = slice(int(entry.min()), int(entry.max()) + 1)
    local, data = place[forms.indices[term]], forms.data[term]
    targets = []
    for coefficient in np.unique(data).tolist():
        mine = np.flatnonzero(data == coefficient)
        inside, where = entry[mine] - part.start, local[mine]
        whole = len(inside) == part.stop - part.start and bool((np.diff(inside) == 1).all())
        in_order = len(where) == size and bool((where == np.arange(size)).all())
        targets.append(
            Target(
                None if whole else arrays.array(inside),
                None if in_order else arrays.array(where),
                coefficient,
                len(np.unique(where)) < len(where),
            )
        )
    every = part.stop - part.start == forms.shape[0]
    return Incidence(block, axis, None if every else part, tuple(targets))


def _largest(forms: sp.csr_array, groups: Integers) -> dict[int, float]:
    """Per group, the largest sum of |coefficients| in one form of this side."""
    if not forms.nnz:
        return {}
    by_group = sp.csr_array((np.abs(forms.data), groups[forms.indices], forms.indptr), shape=forms.shape)
    if (np.diff(forms.indptr) > 1).any():
        by_group = by_group.copy()
        by_group.sum_duplicates()
    present, inverse = np.unique(by_group.indices, return_inverse=True)
    top = np.zeros(len(present))
    np.maximum.at(top, inverse, by_group.data)
    return dict(zip(present.tolist(), top.tolist(), strict=True))
