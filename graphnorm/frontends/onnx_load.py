"""From bytes to an `onnx_ir.Model`: every way in which a file can be bad ends as one clear sentence."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx_ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from graphnorm.errors import ModelFileError
from graphnorm.frontends.onnx_external import self_contained
from graphnorm.frontends.onnx_order import sort_nodes

# In `model.graph.meta`, which clones keep and no file stores.
PATH_KEY = "graphnorm.path"
DECLARED_KEY = "graphnorm.declared"  # names with a value_info, which onnx_ir adds for initializers

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_EXPORT = "export the network with torch.onnx.export(module, (example,), path, dynamo=True)"


def load_model(path: str | os.PathLike[str]) -> onnx_ir.Model:
    """Read a model file and its external data.

    Raises:
        ModelFileError: the file is missing, damaged, no ONNX model, or reaches outside its folder.
    """
    file = Path(path)
    if file.is_dir():
        raise ModelFileError(f"{file}: is a folder; name the .onnx file in it")
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
    model = to_model(proto, str(file))
    model.graph.meta[PATH_KEY] = str(file.absolute())
    return self_contained(model, str(file), file)


def to_model(proto: onnx.ModelProto, source: str) -> onnx_ir.Model:
    """Deserialize, with sorted nodes; refuse what `onnx_ir` would drop without a word."""
    if proto.graph.sparse_initializer:
        name = proto.graph.sparse_initializer[0].values.name
        raise ModelFileError(
            f"{source}: sparse initializer {name!r} is not supported; store it as a dense tensor"
        )
    try:
        model = onnx_ir.from_proto(proto)
    except (onnx_ir.serde.SerdeError, TypeError, ValueError) as error:
        raise ModelFileError(f"{source}: not a valid ONNX graph: {_root(error)}") from error
    sort_nodes(model)
    model.graph.meta[DECLARED_KEY] = frozenset(info.name for info in proto.graph.value_info)
    return model


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
        head = stream.read(4)
    if not head:
        return "is empty; export or copy the model again"
    if head.startswith(_PICKLES):
        return f"is a pickle or zip archive (a PyTorch checkpoint?), not an ONNX model; {_EXPORT}"
    return "is not an ONNX model, or is truncated; copy it again, or export it again"


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
