"""Softmax made safe, as exporters write attention: Where(IsNaN(s), 0, s) is s where s cannot be NaN.

A softmax of finite scores is NaN only in a row that a mask fills with -inf.  So the guard is removed where
scores are products, and masks are constants that leave an entry in each row; else it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphnorm import ir
from graphnorm.alignment.builder import Builder
from graphnorm.alignment.lowering import lowers
from graphnorm.alignment.terms import Data, Term


@lowers("Where")
def guard(b: Builder, node: ir.Node, operands: Sequence[Term | None], results: object) -> list[Term] | None:
    condition, _, value = operands
    if not isinstance(condition, Data) or not isinstance(value, Data) or value.factor != 1.0:
        return None
    scan = _Scan(b)
    test = scan.makers.get(condition.base)
    if test is None or test.op != "IsNaN" or condition.view != value.view:
        return None
    same = test.inputs[0] in {value.base, b.operand(value)}
    return [value] if same and scan.is_softmax_of_entries(value.base) else None


class _Scan:
    """Which values are finite under constant masks, if everything else is finite."""

    def __init__(self, b: Builder) -> None:
        self._b = b
        self.makers = {name: node for node in b.nodes for name in node.outputs}

    def is_softmax_of_entries(self, name: str) -> bool:
        """Whether a value is a softmax along rows of which each has an entry."""
        maker = self.makers.get(name)
        if maker is None or maker.op != "Softmax":
            return False
        shape = self._b.values[name].shape
        last = shape is not None and maker.attributes["axis"] == len(shape) - 1
        return last and self._rows_have_entries(maker.inputs[0])

    def _rows_have_entries(self, name: str) -> bool:
        """Whether each row has a finite entry, and none is NaN or +inf."""
        b, maker = self._b, self.makers.get(name)
        if name in b.constants:
            array = b.constants[name].astype(np.float64)
            full = b.values[name].dynamic == frozenset() and array.ndim > 0
            return full and not np.isnan(array).any() and bool(np.isfinite(array.max(axis=-1)).all())
        if maker is None:
            return name in b.leaves and self._is_finite(name)  # an input may be a mask
        if maker.op in {"MatMul", "Mul"}:
            return self._is_finite(name)
        if maker.op == "Add":
            masks = [one for one in maker.inputs if one in b.inputs or not self._is_finite(one)]
            return len(masks) <= 1 and all(map(self._rows_have_entries, masks))
        rows = b.values[name].shape, b.values[maker.inputs[0]].shape
        kept = maker.op == "Reshape" and rows[0] and rows[1] and rows[0][-1] == rows[1][-1]
        return bool(kept) and self._rows_have_entries(maker.inputs[0])

    def _is_finite(self, name: str) -> bool:
        """Whether no infinite constant reaches a value, except through such a softmax."""
        stack, seen = [name], {""}
        while stack:
            one = stack.pop()
            if one in seen:
                continue
            seen.add(one)
            held = self._b.constants.get(one)
            if held is None and one in self._b.leaves:
                held = self._b.leaves[one].exact()
            if held is not None and held.dtype.kind != "b" and not np.isfinite(held.astype(np.float64)).all():
                return False
            if self.is_softmax_of_entries(one):
                continue
            maker = self.makers.get(one)
            stack += maker.inputs if maker is not None else ()
        return True
