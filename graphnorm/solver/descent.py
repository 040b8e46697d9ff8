"""The point of a descent: log-scales, every block's exponentials, and the masses that meet at each variable.

Everything here costs two products with a block's masses at most, and no Python per channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphnorm.solver.arrays import Array, Arrays
from graphnorm.solver.blocks import CompiledBlock, compile_blocks
from graphnorm.solver.groups import Group, coloured, find_groups, near_blocks
from graphnorm.solver.problem import Problem
from graphnorm.solver.sides import Side
from graphnorm.util.typing import Bools


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
        self.blocks = compile_blocks(problem, active, arrays)
        self.groups = find_groups(self.blocks, problem.groups, active, arrays)
        self._touching: dict[int, list[Side]] = {}
        for group in self.groups:
            sides_of = {id(s): s for s in (part.side for part in group.parts)}
            self._touching[group.index] = list(sides_of.values())
        self.coloured = coloured(self.groups)
        self._near = near_blocks(self.groups)
        self._sides = list({id(side): side for block in self.blocks for side in block.sides}.values())
        self.move_to(z)
        for block in self.blocks:
            block.recall()

    def move_to(self, z: Array) -> None:
        """Take over log-scales of all variables, shape (count,)."""
        self._z = self.arrays.zeros(self.count + 1)
        self._z[:-1] = z
        for side in self._sides:
            side.refresh(self._z, self.xp)

    @property
    def z(self) -> Array:
        """Log-scales, shape (count,)."""
        return self._z[:-1]

    def shift_group(self, group: Group, step: Array) -> None:
        """Add `step` to a group's variables."""
        self._z[group.variables] += step
        for side in self._touching[group.index]:
            side.refresh(self._z, self.xp)
        for part in self._near.get(group.index, ()):
            part.block.product(1 - part.axis)

    def level(self, block: CompiledBlock) -> Array:
        """Logarithm of what a block's factors are short of."""
        return block.sides[0].shift + block.sides[1].shift

    def meeting(
        self, group: Group, weights: Sequence[Array | float] | None = None
    ) -> tuple[Array, Array, Array]:
        """Masses that rise and fall with a group's variables, over exp(level), and the level.

        `weights` multiply the masses of each incidence (the paper's equivalent blocks).
        """
        levels = [self.level(part.block) for part in group.parts]
        top = self.arrays.largest(levels)
        rising, falling = self.arrays.zeros(group.size), self.arrays.zeros(group.size)
        for i, (part, level) in enumerate(zip(group.parts, levels, strict=True)):
            masses = part.masses()
            if level is not top:
                masses = masses * self.xp.exp(level - top)
            part.collect(masses if weights is None else masses * weights[i], rising, falling)
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
