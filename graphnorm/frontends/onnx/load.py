"""From bytes to an `onnx_ir.Model`: every defect of a file is reported in one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx_ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from graphnorm.errors import ModelFileError
from graphnorm.frontends.onnx.external import self_contained
from graphnorm.frontends.onnx.order import sort_nodes
from graphnorm.frontends.onnx.protos import check_external_entries
from graphnorm.frontends.onnx.slots import tensor_slots

# In `model.graph.meta`, which clones keep and no file stores.
PATH_KEY = "graphnorm.path"
DECLARED_KEY = "graphnorm.declared"  # names with a value_info, which onnx_ir adds for initializers

_SMALL = 1024  # bytes
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# Files that are mistaken for a network's, by suffix and by (offset, bytes).
_FORMATS = {
    ".safetensors": "a safetensors file (weights without their network: see --weights)",
    ".gguf": "a GGUF file",
    ".npz": "a NumPy archive",
    ".h5": "an HDF5 file (Keras)",
    ".hdf5": "an HDF5 file (Keras)",
    ".keras": "a Keras model",
    ".tflite": "a TensorFlow Lite model",
    ".pb": "a TensorFlow graph",
    ".pdmodel": "a Paddle model",
    ".mlmodel": "a Core ML model",
    ".engine": "a TensorRT engine",
    ".plan": "a TensorRT engine",
    ".xml": "an XML file (OpenVINO)",
    ".json": "a JSON file",
}
_MAGIC = (
    (0, b"\x89HDF", _FORMATS[".h5"]),
    (0, b"GGUF", _FORMATS[".gguf"]),
    (4, b"TFL3", _FORMATS[".tflite"]),
    (8, b'{"', _FORMATS[".safetensors"]),
)
_EXPORT = "export the network with torch.onnx.export(module, (example,), path, dynamo=True)"


def load_model(path: str | os.PathLike[str]) -> onnx_ir.Model:
    """Read a model file and its external data.

    Raises:
        ModelFileError: the file is missing, damaged, no ONNX model, or reaches outside its folder.
    """
    file = Path(path)
    model = to_model(read_proto(file), str(file))
    model.graph.meta[PATH_KEY] = str(file.absolute())
    return self_contained(model, str(file), file)


def read_proto(file: Path) -> onnx.ModelProto:
    """Read a model file without its external data.

    Raises:
        ModelFileError: the file is missing, damaged, or no ONNX model.
    """
    if file.is_dir():
        raise ModelFileError(f"{file}: is a folder; name the .onnx file in it")
    if file.exists() and not file.is_file():
        raise ModelFileError(f"{file}: is a pipe or a device; copy the model to a file first")
    try:
        proto = onnx.load_model(str(file), format="protobuf", load_external_data=False)
    except FileNotFoundError:
        raise ModelFileError(f"{file}: no such file; check the path") from None
    except OSError as error:
        raise ModelFileError(f"{file}: cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise ModelFileError(f"{file}: {_why_not_onnx(file)}") from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise ModelFileError(f"{file}: {_why_not_onnx(file)}")
    return proto


def to_model(proto: onnx.ModelProto, source: str) -> onnx_ir.Model:
    """Deserialize, with sorted nodes; refuse what `onnx_ir` would drop.  The proto is free to go."""
    if proto.graph.sparse_initializer:
        name = proto.graph.sparse_initializer[0].values.name
        raise ModelFileError(
            f"{source}: sparse initializer {name!r} is not supported; store it as a dense tensor"
        )
    check_external_entries(proto, source)
    try:
        model = onnx_ir.from_proto(proto)
    except (onnx_ir.serde.SerdeError, TypeError, ValueError) as error:
        raise ModelFileError(f"{source}: not a valid ONNX graph: {_root(error)}") from error
    sort_nodes(model, source)
    for slot in tensor_slots(model):
        slot.store(_detached(slot.tensor))
    model.graph.meta[DECLARED_KEY] = frozenset(info.name for info in proto.graph.value_info)
    return model


def _detached(tensor: onnx_ir.TensorProtocol) -> onnx_ir.TensorProtocol:
    """The tensor with its data at hand.

    What `onnx_ir` makes of a proto holds on to the whole message, and copies its data at each reading.
    """
    if isinstance(tensor, onnx_ir.StringTensor):
        return onnx_ir.StringTensor(
            list(tensor.string_data()),
            shape=onnx_ir.Shape(tensor.shape.numpy()),
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )
    if not isinstance(tensor, onnx_ir.serde.TensorProtoTensor):
        return tensor
    size = len(tensor.raw.raw_data)
    try:
        array = tensor.numpy() if size > _SMALL else None
    except (AssertionError, TypeError, ValueError):  # damaged: refused where it is read
        array = None
    if array is None or array.nbytes != size:  # small, damaged or packed
        copied = onnx.TensorProto()
        copied.CopyFrom(tensor.raw)
        return onnx_ir.serde.TensorProtoTensor(copied)
    return onnx_ir.Tensor(
        array,
        dtype=tensor.dtype,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def to_proto(model: onnx_ir.Model) -> onnx.ModelProto:
    """Serialize; a model of `to_model` gets no types that its file didn't have."""
    proto = onnx_ir.to_proto(model)
    declared = model.graph.meta.get(DECLARED_KEY)
    if declared is not None:
        added = set(model.graph.initializers) - declared
        kept = [info for info in proto.graph.value_info if info.name not in added]
        del proto.graph.value_info[:]
        proto.graph.value_info.extend(kept)
    return proto


def model_path(model: onnx_ir.Model) -> Path | None:
    """The file that `load_model` read this model (or the model it was cloned from) from."""
    path = model.graph.meta.get(PATH_KEY)
    return None if path is None else Path(str(path))


def _why_not_onnx(file: Path) -> str:
    with file.open("rb") as stream:
        head = stream.read(16)
    if not head:
        return "is empty; export or copy the model again"
    known = _FORMATS.get(file.suffix.lower()) or next(
        (name for at, magic, name in _MAGIC if head[at:].startswith(magic)), None
    )
    if known:
        return f"is {known}, not an ONNX model; graphnorm reads .onnx and .pt2 files: {_EXPORT}"
    if head.startswith(_PICKLES):
        return f"is a pickle or zip archive (a PyTorch checkpoint?), not an ONNX model; {_EXPORT}"
    return "is not an ONNX model, or is truncated; copy it again, or export it again"


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
