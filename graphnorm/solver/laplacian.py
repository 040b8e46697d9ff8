"""Gradient and Hessian of Phi: the Hessian is the Laplacian of the rescaling graph, grounded at node 0.

Values are divided by exp(level), so that neither tiny nor huge objectives leave float64.
"""

from __future__ import annotations

from graphnorm.solver.arrays import Array
from graphnorm.solver.blocks import CompiledBlock
from graphnorm.solver.descent import Descent


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
            row_mass, column_mass = r * block.product(0), unit * c * block.product(1)
            self._terms.append((block, r, c, row_mass, column_mass))
            self.value += float(row_mass.sum())
            for side, mass in ((rows, row_mass), (columns, column_mass)):
                side.spread(mass, gradient)
                side.spread(mass, diagonal, power=2)
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
            if columns.slots:
                rows.spread(row_mass * row + r * block.mass.right(c * column), total)
            else:
                rows.spread(row_mass * row, total)
            if rows.slots:
                columns.spread(column_mass * column + c * block.mass.left(r * row), total)
            else:
                columns.spread(column_mass * column, total)
        return total[:-1]

    @staticmethod
    def objective(at: Descent, level: float) -> float:
        """Phi at the current point, in the unit exp(level)."""
        return sum(float(total * at.xp.exp(block_level - level)) for total, block_level in at.block_totals())
