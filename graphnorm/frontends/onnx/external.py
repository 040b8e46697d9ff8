"""External data of an ONNX model: found, checked and read into memory.

Read rather than memory-mapped: no mapping is left that breaks when a data file is replaced, or that exhausts
file descriptors.  A data file lies in the model's folder.  Caches of downloaded models keep all files in one
folder and link to them from another, so a link may also lead into the folder that contains the model file
itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import onnx
import onnx_ir

from graphnorm.errors import ModelFileError
from graphnorm.frontends.onnx.slots import external_tensors, tensor_slots
from graphnorm.ir import Array

_KEY = "graphnorm.external"  # in `model.graph.meta`, which clones keep and no file stores


@dataclass(frozen=True)
class External:
    """The parts of a model that were stored outside its file.

    Attributes:
        names: of these tensors.
        files: the data files.
    """

    names: frozenset[str] = frozenset()
    files: tuple[Path, ...] = ()


def external_of(model: onnx_ir.Model) -> External:
    """What was stored outside the file of this model (or of the model that it was cloned from)."""
    found = model.graph.meta.get(_KEY)
    return found if isinstance(found, External) else External()


def self_contained(model: onnx_ir.Model, source: str, file: Path | None = None) -> onnx_ir.Model:
    """The model with its external tensors read into memory: a copy, or itself if it has none.

    Args:
        model: left as it is.
        source: how errors name it.
        file: the file that it was read from; without, tensors say themselves in which folder they are.

    Raises:
        ModelFileError: a tensor lies outside the model's folder, is missing, or doesn't fit its data file.
    """
    if next(external_tensors(model), None) is None:
        return model
    copied = model.clone()
    read: dict[tuple[Path, int, int], Array] = {}
    names: list[str] = []
    for slot in tensor_slots(copied):
        tensor = slot.tensor
        if isinstance(tensor, onnx_ir.ExternalTensor):
            where = f"{source}: external data of tensor {slot.name!r} ({tensor.location})"
            region = _region(tensor, _folders(tensor, file), where)
            if region not in read:  # tensors may share a region
                read[region] = _read(*region, where)
            slot.store(_in_memory(tensor, read[region]))
            names.append(slot.name)
    copied.graph.meta[_KEY] = External(frozenset(names), tuple(dict.fromkeys(path for path, _, _ in read)))
    return copied


def _folders(tensor: onnx_ir.ExternalTensor, file: Path | None) -> Sequence[Path]:
    """The model's folder, then the one that its resolved path is in."""
    if file is None:
        return (Path(tensor.base_dir or "."),)
    return tuple(dict.fromkeys((file.absolute().parent, file.resolve().parent)))


def _region(tensor: onnx_ir.ExternalTensor, folders: Sequence[Path], where: str) -> tuple[Path, int, int]:
    """The data file as the folder names it, offset and number of bytes."""
    file = _data_file(PurePath(tensor.location), folders, where)
    try:
        needed = int(tensor.nbytes)
    except TypeError as error:
        raise ModelFileError(f"{where}: {tensor.dtype} has no size, so it cannot be external") from error
    offset, length = tensor.offset or 0, tensor.length or needed
    if length != needed:
        raise ModelFileError(f"{where} holds {length} bytes, its shape and type need {needed}")
    size = file.stat().st_size
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelFileError(
            f"{where} ends at byte {offset + length}, the file has {size}; is the data file truncated?"
        )
    return file, offset, length


def _data_file(location: PurePath, folders: Sequence[Path], where: str) -> Path:
    leaves = f"{where} leaves the model's folder; put the data file next to the model"
    if location.is_absolute() or ".." in location.parts:
        raise ModelFileError(leaves)
    try:
        file = next((path for folder in folders if (path := folder / location).is_file()), None)
        if file is None:
            raise ModelFileError(f"{where} is missing; copy the data file next to the model")
        inside = any(file.resolve().is_relative_to(folder.resolve()) for folder in folders)
    except (OSError, ValueError) as error:  # a name that no file can have
        raise ModelFileError(f"{where} cannot be found: {error}") from error
    if not inside:
        raise ModelFileError(leaves)
    return file


def _read(file: Path, offset: int, length: int, where: str) -> Array:
    try:
        data = np.fromfile(file, dtype=np.uint8, count=length, offset=offset)
    except OSError as error:
        raise ModelFileError(f"{where} cannot be read: {error.strerror or error}") from error
    if data.size != length:
        raise ModelFileError(f"{where} changed while it was read; run again")
    data.flags.writeable = False
    return data


def _in_memory(tensor: onnx_ir.ExternalTensor, data: Array) -> onnx_ir.TensorProtocol:
    """The same tensor with its bytes in memory."""
    name, doc, properties = tensor.name or None, tensor.doc_string, dict(tensor.metadata_props)
    shape = tuple(tensor.shape.numpy())
    if tensor.dtype.bitwidth < 8:  # packed, in as many ways as there are types
        proto = onnx.TensorProto(dims=shape, data_type=tensor.dtype.value, raw_data=data.tobytes())
        packed = onnx_ir.serde.deserialize_tensor(proto)
        return onnx_ir.Tensor(
            packed.numpy(), dtype=tensor.dtype, name=name, doc_string=doc, metadata_props=properties
        )
    array = data.view(np.dtype(tensor.dtype.numpy()).newbyteorder("<")).reshape(shape)
    return onnx_ir.Tensor(array, dtype=tensor.dtype, name=name, doc_string=doc, metadata_props=properties)
