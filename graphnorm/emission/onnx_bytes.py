"""An ONNX model as bytes, a piece at a time: large tensors are written without a copy.

A protobuf message is a list of fields, each a key, a length and that many bytes; the order of different
fields is free.  So a graph may be written as everything else that it holds, followed by its initializers, and
an initializer as its head, followed by its data.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir

from graphnorm.frontends.onnx.load import to_proto

_BYTES = 2  # wire type of length-delimited fields
_SMALL = 1024  # bytes up to which a tensor is copied instead


def pieces(model: onnx_ir.Model) -> Iterator[bytes | memoryview]:
    """The serialized model, without copies of its large initializers.

    Args:
        model: left as it is.
    """
    copied = model.clone()
    held: dict[str, memoryview] = {}
    for name, value in copied.graph.initializers.items():
        data = None if value.const_value is None else _view(value.const_value)
        if data is not None and value.const_value is not None:
            held[name] = data
            value.const_value = _head(value.const_value)
    proto = to_proto(copied)
    tensors = list(proto.graph.initializer)
    del proto.graph.initializer[:]
    parts: list[bytes | memoryview] = [proto.graph.SerializeToString()]
    for tensor in tensors:
        parts += _tensor(tensor, held.get(tensor.name))
    proto.ClearField("graph")
    yield proto.SerializeToString()
    yield _key(onnx.ModelProto, "graph", sum(map(len, parts)))
    yield from parts


def to_bytes(model: onnx_ir.Model) -> bytes:
    """The serialized model, in one copy."""
    return b"".join(pieces(model))


def data_of(tensor: onnx_ir.TensorProtocol) -> bytes | memoryview:
    """A tensor's data as files hold them; not copied where that can be avoided."""
    view = _view(tensor)
    return tensor.tobytes() if view is None else view


def _view(tensor: onnx_ir.TensorProtocol) -> memoryview | None:
    """The bytes of a large array whose memory layout is that of files."""
    if not isinstance(tensor, onnx_ir.Tensor) or tensor.dtype.bitwidth < 8 or sys.byteorder != "little":
        return None
    array = tensor.numpy()
    if array.nbytes <= _SMALL or not array.flags.c_contiguous:
        return None
    return array.reshape(-1).view(np.uint8).data


def _head(tensor: onnx_ir.TensorProtocol) -> onnx_ir.ExternalTensor:
    """The tensor without its data."""
    return onnx_ir.ExternalTensor(
        "",
        None,
        None,
        tensor.dtype,
        shape=onnx_ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def _tensor(tensor: onnx.TensorProto, data: memoryview | None) -> list[bytes | memoryview]:
    """An entry of `initializer`."""
    if data is None:
        whole = tensor.SerializeToString()
        return [_key(onnx.GraphProto, "initializer", len(whole)), whole]
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")
    head = tensor.SerializeToString() + _key(onnx.TensorProto, "raw_data", len(data))
    return [_key(onnx.GraphProto, "initializer", len(head) + len(data)), head, data]


def _key(message: Any, field: str, length: int) -> bytes:
    """What precedes the bytes of a field."""
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | _BYTES) + _varint(length)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
