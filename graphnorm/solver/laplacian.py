"""Gradient and Hessian of Phi at a point: the Hessian is the Laplacian of the rescaling graph, grounded at node 0.

Values are divided by exp(level), so that neither tiny nor huge objectives leave float64.
"""

from __future__ import annotations

from graphnorm.solver.arrays import Array, add_at
from graphnorm.solver.descent import CompiledBlock, Descent
from graphnorm.solver.sides import Side


class Laplacian:
    """Phi's derivatives at the descent's current point.

    Attributes:
        level: logarithm of the unit of `value`, `gradient`, `diagonal` and products.
        value: Phi.
        gradient: shape (count,); 0 at inactive variables.
        diagonal: of the Hessian; 1 at inactive variables.
    """

    def __init__(self, at: Descent) -> None:
        self._at = at
        self._terms: list[tuple[CompiledBlock, Array, Array, Array, Array]] = []
        self.level = max((float(at.level(block)) for block in at.blocks), default=0.0)
        gradient, diagonal = at.arrays.zeros(at.count + 1), at.arrays.zeros(at.count + 1)
        self.value = 0.0
        for block in at.blocks:
            rows, columns = block.sides
            unit = at.xp.exp(at.level(block) - self.level)
            r, c = rows.factor * unit, columns.factor
            row_mass, column_mass = r * block.mass.right(c), c * block.mass.left(r)
            self._terms.append((block, r, c, row_mass, column_mass))
            self.value += float(row_mass.sum())
            for side, mass in ((rows, row_mass), (columns, column_mass)):
                spread(side, mass, gradient)
                spread_squared(side, mass, diagonal)
        self.gradient = gradient[:-1]
        self.diagonal = at.xp.where(at.active & (diagonal[:-1] > 0), diagonal[:-1], 1.0)

    def product(self, d: Array) -> Array:
        """H d, shape (count,)."""
        at = self._at
        extended = at.arrays.zeros(at.count + 1)
        extended[:-1] = d
        total = at.arrays.zeros(at.count + 1)
        for block, r, c, row_mass, column_mass in self._terms:
            rows, columns = block.sides
            row, column = rows.exponent(extended), columns.exponent(extended)
            spread(rows, row_mass * row + r * block.mass.right(c * column), total)
            spread(columns, column_mass * column + c * block.mass.left(r * row), total)
        return total[:-1]

    @staticmethod
    def objective(at: Descent, level: float) -> float:
        """Phi at the current point, in the unit exp(level)."""
        return sum(
            float(total * at.xp.exp(block_level - level)) for total, block_level in at.block_totals()
        )


def spread(side: Side, values: Array, into: Array) -> None:
    """into += p F^T values: what a side's entries say to their variables (the last of which is none)."""
    if side.pick is None:
        into[:-1] += side.transposed @ values
    elif isinstance(side.pick, slice):
        into[side.pick] += side.sign * values
    else:
        add_at(into, side.pick, side.sign * values)


def spread_squared(side: Side, values: Array, into: Array) -> None:
    """The same with squared coefficients."""
    if side.pick is None:
        into[:-1] += side.squared @ values
    elif isinstance(side.pick, slice):
        into[side.pick] += side.sign**2 * values
    else:
        add_at(into, side.pick, side.sign**2 * values)
