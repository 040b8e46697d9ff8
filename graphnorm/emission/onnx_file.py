"""ONNX emission: the same model with other weights.

Only tensors change: nodes, names, opsets and metadata are the source's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir

from graphnorm.errors import InputError
from graphnorm.frontends.onnx.names import Names
from graphnorm.frontends.onnx.steps import constant_array
from graphnorm.ir import Array


def rescale_onnx(model: onnx_ir.Model, new_weights: Mapping[str, Array]) -> onnx_ir.Model:
    """A copy of `model` with these tensors replaced; it shares all others with the source.

    Args:
        model: Left as it is.
        new_weights: By the name that the front end gives the initializer or `Constant` output; dtype and
            shape as there.

    Raises:
        InputError: a name that the model has no tensor for, or another dtype or shape.
    """
    emitted = model.clone()
    tensors = Names(emitted.graph).tensors()
    for name, array in new_weights.items():
        if name not in tensors:
            raise InputError(f"weight {name!r}: the model has no initializer or Constant of this name")
        value = tensors[name]
        node = value.producer()
        if node is not None:
            _replace_constant(name, node, array)
        elif value.const_value is not None:
            value.const_value = _replacement(name, value.const_value, array)
    return emitted


def _replacement(name: str, old: onnx_ir.TensorProtocol, array: Array) -> onnx_ir.TensorProtocol:
    _check_same_type(name, old.dtype.numpy(), tuple(old.shape.numpy()), array)
    return onnx_ir.Tensor(
        np.ascontiguousarray(array).reshape(array.shape),
        dtype=old.dtype,
        name=old.name,
        doc_string=old.doc_string,
        metadata_props=dict(old.metadata_props),
    )


def _replace_constant(name: str, node: onnx_ir.Node, array: Array) -> None:
    """Keep the attribute's form: a tensor stays a tensor, a list of floats a list of floats."""
    (attribute,) = node.attributes.values()
    key, doc = attribute.name, attribute.doc_string
    if key == "value":
        tensor = _replacement(name, attribute.as_tensor(), array)
        node.attributes[key] = onnx_ir.AttrTensor(key, tensor, doc_string=doc)
        return
    old = constant_array(node)
    if old is None or old.dtype != np.float32:
        raise InputError(f"weight {name!r}: its Constant node holds no float value ({key})")
    _check_same_type(name, old.dtype, old.shape, array)
    if key == "value_float":
        node.attributes[key] = onnx_ir.AttrFloat32(key, float(array), doc_string=doc)
    else:
        node.attributes[key] = onnx_ir.AttrFloat32s(key, array.tolist(), doc_string=doc)


def _check_same_type(name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...], array: Array) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise InputError(
            f"weight {name!r}: expected {dtype.name}{list(shape)} as in the model, "
            f"got {array.dtype.name}{list(array.shape)}"
        )
