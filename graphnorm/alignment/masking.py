"""Softmax made safe, as exporters write attention: Where(IsNaN(s), 0, s) is s where s cannot be NaN.

A softmax of finite scores is NaN only in a row that a mask fills with -inf.  So the guard goes where scores
are products, and masks are constants that leave an entry in each row; else it stays.
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
    test = _maker(b, condition.base)
    if test is None or test.op != "IsNaN" or condition.view != value.view:
        return None
    scores = _maker(b, value.base)
    same = test.inputs[0] in {value.base, b.operand(value)}
    if not same or scores is None or scores.op != "Softmax" or not _rows_have_entries(b, scores.inputs[0]):
        return None
    return [value]


def _maker(b: Builder, name: str) -> ir.Node | None:
    return next((node for node in reversed(b.nodes) if name in node.outputs), None)


def _rows_have_entries(b: Builder, name: str) -> bool:
    """Whether each row has a finite entry, and none is NaN or +inf, wherever the products are finite."""
    if name in b.leaves:
        return bool(np.isfinite(b.leaves[name].exact()).all())
    if name in b.constants:
        array = b.constants[name].astype(np.float64)
        full = b.values[name].dynamic == frozenset() and array.ndim > 0
        return full and not np.isnan(array).any() and bool(np.isfinite(array.max(axis=-1)).all())
    maker = _maker(b, name)
    if maker is None:
        return False
    if maker.op in {"MatMul", "Mul"}:
        return not any(one in b.constants and not np.isfinite(b.constants[one]).all() for one in maker.inputs)
    if maker.op == "Add":
        masks = sum(one in b.constants for one in maker.inputs)
        return masks <= 1 and all(_rows_have_entries(b, one) for one in maker.inputs)
    rows = b.values[name].shape, b.values[maker.inputs[0]].shape
    kept = maker.op == "Reshape" and rows[0] and rows[1] and rows[0][-1] == rows[1][-1]
    return bool(kept) and _rows_have_entries(b, maker.inputs[0])
