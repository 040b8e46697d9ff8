"""Operands of a network while its normal form is built."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from graphnorm import ir
from graphnorm.alignment.leaves import TINY, Leaf
from graphnorm.alignment.views import View
from graphnorm.util.typing import Shape


@dataclass(frozen=True, slots=True)
class Data:
    """A tensor that depends on the network's inputs: `factor` times the view of value `base`.

    `dynamic` are its axes of variable size: fewer than a reshape alone would tell, where the network says so.
    """

    base: str
    view: View
    dtype: str
    dynamic: frozenset[int]
    factor: float = 1.0

    @property
    def shape(self) -> Shape:
        return self.view.shape

    def times(self, factor: float) -> Data:
        """`factor` times the term; NaN, which no proof passes, where the product underflows."""
        product = self.factor * factor
        return replace(self, factor=product if abs(product) >= TINY else math.nan)


@dataclass(frozen=True, slots=True)
class Known:
    """A constant; `dynamic` are the axes that are known at the example's size only."""

    array: ir.Array
    dynamic: frozenset[int] = frozenset()
    source: str = ""

    @property
    def shape(self) -> Shape:
        return ir.shape_of(self.array)

    @property
    def is_float(self) -> bool:
        return self.array.dtype.name in ir.FLOAT_TYPES

    @property
    def scalar(self) -> float | None:
        """The number, if it is a single float."""
        return float(self.array.reshape(-1)[0]) if self.is_float and self.array.size == 1 else None


Term = Data | Known | Leaf
