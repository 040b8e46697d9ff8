"""A block ready for descent: masses on the device, exponentials of its sides, products that are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from graphnorm.solver.arrays import Array, Arrays
from graphnorm.solver.masses import Dense
from graphnorm.solver.problem import Problem
from graphnorm.solver.sides import Side, compile_side
from graphnorm.util.typing import Bools


@dataclass(slots=True)
class CompiledBlock:
    """A block's masses (an operator on the device) and sides.

    Attributes:
        mass: the operator.
        sides: rows, columns.
        forms: the sides' linear forms, on the host.
        sums: whether entries that meet are added; for p = inf the largest counts.
        memo: the last product with all entries of each side: (version of the other side, masses).
    """

    mass: Any
    sides: tuple[Side, Side]
    forms: tuple[sp.csr_array, sp.csr_array]
    sums: bool
    memo: list[tuple[int, Array] | None] = field(default_factory=lambda: [None, None])

    @property
    def entries(self) -> int:
        return self.sides[0].size * self.sides[1].size

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

    def recall(self) -> None:
        """Take over the sums of rows and columns, where they are known and all factors are 1."""
        known = self.mass.totals if isinstance(self.mass, Dense) and self.sums else None
        if known is not None and all((side.factor == 1.0).all() for side in self.sides):
            self.memo = [(self.sides[1].version, known[0]), (self.sides[0].version, known[1])]

    def total(self) -> Array:
        """Sum (largest) of the masses, over exp(shift of both sides)."""
        known = self.memo[1]
        axis = 1 if known is not None and known[0] == self.sides[0].version else 0
        masses = self.sides[axis].factor * self.product(axis)
        return masses.sum() if self.sums else masses.max()


def compile_blocks(problem: Problem, active: Bools, arrays: Arrays) -> list[CompiledBlock]:
    """The blocks that active variables move, without the terms of others."""
    keep = sp.dia_array((active.astype(np.float64)[None, :], [0]), shape=(problem.count,) * 2)
    known: dict[int, tuple[Side, sp.csr_array]] = {}  # of forms that blocks share

    def compiled(forms: sp.csr_array) -> tuple[Side, sp.csr_array]:
        if id(forms) not in known:
            left = _dropped(forms, keep, active)
            known[id(forms)] = compile_side(left, problem.groups, problem.exponent, arrays), left
        return known[id(forms)]

    found = []
    for block in problem.blocks:
        (rows, row_forms), (columns, column_forms) = compiled(block.rows), compiled(block.columns)
        if row_forms.nnz or column_forms.nnz:
            forms, sums = (row_forms, column_forms), bool(np.isfinite(problem.p))
            found.append(CompiledBlock(arrays.mass(block.mass), (rows, columns), forms, sums))
    return found


def _dropped(forms: sp.csr_array, keep: sp.dia_array, active: Bools) -> sp.csr_array:
    if active[forms.indices].all():
        return forms
    found = sp.csr_array(forms @ keep)
    found.eliminate_zeros()
    return found
