"""ONNX emission: the same model with other weights, and its atomic write.

Only tensors change: nodes, names, opsets, metadata and the external-data layout are the source's.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir

from graphnorm.errors import InputError
from graphnorm.frontends.onnx_external import external_of
from graphnorm.frontends.onnx_load import model_path, to_proto
from graphnorm.frontends.onnx_names import Names
from graphnorm.frontends.onnx_slots import Slot, tensor_slots
from graphnorm.frontends.onnx_steps import constant_array
from graphnorm.ir import Array

INLINE_LIMIT = 2_000_000_000  # protobuf refuses messages of 2 GiB
_ALIGNMENT = 64  # of tensors in the data file, for vector loads from a memory map
_INLINE_ALWAYS = 1024  # bytes: shapes and literals, which runtimes want at hand


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


def save_onnx(
    model: onnx_ir.Model,
    path: str | os.PathLike[str],
    *,
    like: onnx_ir.Model | None = None,
    force: bool = False,
) -> None:
    """Write a model; on any failure nothing is left behind and no file has changed.

    Tensors that are external, in `model` or in `like`, go to `<file name>.data` beside it, and so
    does everything large if the model is too big for one protobuf message.

    Args:
        model: The model; unchanged.
        path: The destination; never a file that `model` or `like` was read from.
        like: The source model, whose external-data layout is kept.
        force: Overwrite an existing file.

    Raises:
        InputError: the destination exists, is an input, lies in no folder, or cannot be written.
    """
    target = Path(path)
    data = target.with_name(target.name + ".data")
    if not target.parent.is_dir():
        raise InputError(f"{target}: its folder does not exist; create {target.parent} first")
    if target.is_dir():
        raise InputError(f"{target}: is a folder; name a file in it")
    sources = [model] if like is None else [model, like]
    outgoing = model.clone()
    slots = _slots_outside(outgoing, {name for source in sources for name in external_of(source).names})
    for file in [target, data] if slots else [target]:
        _check_may_write(file, sources, force)
    try:
        _write(outgoing, target, data, slots)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error


def _check_may_write(file: Path, sources: list[onnx_ir.Model], force: bool) -> None:
    if not file.exists():
        return
    inputs = [path for path in map(model_path, sources) if path is not None]
    inputs += [path for source in sources for path in external_of(source).files]
    if any(used.exists() and used.samefile(file) for used in dict.fromkeys(inputs)):
        raise InputError(f"{file}: the model was read from this file; write to another one")
    if not force:
        raise InputError(f"{file}: exists already; give --force to overwrite it")


def _slots_outside(model: onnx_ir.Model, external_names: set[str]) -> list[Slot]:
    """The tensors that go to the data file."""
    slots = [slot for slot in tensor_slots(model) if slot.tensor.dtype != onnx_ir.DataType.STRING]
    inline = sum(slot.tensor.nbytes for slot in slots if slot.name not in external_names)
    threshold = _INLINE_ALWAYS if inline > INLINE_LIMIT else None
    return [
        slot
        for slot in slots
        if slot.name in external_names or (threshold is not None and slot.tensor.nbytes > threshold)
    ]


def _write(model: onnx_ir.Model, target: Path, data: Path, slots: list[Slot]) -> None:
    """Write both files under temporary names, then rename them; `model` is changed."""
    mark = uuid.uuid4().hex
    temporary, temporary_data = (file.with_name(f".{file.name}.{mark}.tmp") for file in (target, data))
    is_new = not data.exists()
    try:
        if slots:
            with temporary_data.open("xb") as stream:
                for slot in slots:
                    slot.store(_append(stream, slot.tensor, data.name))
        temporary.write_bytes(to_proto(model).SerializeToString())
        if slots:
            temporary_data.replace(data)
        try:
            temporary.replace(target)
        except OSError:
            if slots and is_new:
                data.unlink()
            raise
    finally:
        temporary.unlink(missing_ok=True)
        temporary_data.unlink(missing_ok=True)


def _append(stream: BinaryIO, tensor: onnx_ir.TensorProtocol, location: str) -> onnx_ir.ExternalTensor:
    stream.write(b"\0" * (-stream.tell() % _ALIGNMENT))
    offset = stream.tell()
    length = stream.write(tensor.tobytes())
    return onnx_ir.ExternalTensor(
        location,
        offset,
        length,
        tensor.dtype,
        shape=onnx_ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )
