"""Initializers that are graph inputs as well (IR version 4 and later): callers may give them other values.

A value that a caller may replace must keep its meaning, so such a tensor is a constant.  On request it is
taken as a weight; then it is no input any more, since a value that was made for the original would not fit
the result.
"""

from __future__ import annotations

import onnx_ir

_FREE = 4  # from this IR version on an initializer need not be an input


def overridable(model: onnx_ir.Model) -> list[str]:
    """The names of initializers that callers may override."""
    if model.ir_version < _FREE:
        return []
    return [value.name or "" for value in model.graph.inputs if value.name in model.graph.initializers]


def settled(model: onnx_ir.Model) -> onnx_ir.Model:
    """The model with these initializers taken off its inputs; the model itself if it has none."""
    names = set(overridable(model))
    if not names:
        return model
    copy = model.clone()
    for value in list(copy.graph.inputs):
        if value.name in names:
            copy.graph.inputs.remove(value)
    return copy
