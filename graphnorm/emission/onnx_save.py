"""Writing an ONNX model: killed at any moment, it leaves the old model or the new one, never a mixture.

Two files cannot be renamed at once.  So the data go to a file that the model in place does not refer to; the
rename of the ``.onnx`` file, which names its data file, is the one moment at which the old model becomes the
new one; then the old data file is deleted.  The data file is ``OUT.onnx.data``, or ``OUT.onnx.1.data`` where
the former belongs to the model that is being replaced.  What a kill may leave is an unread data file, which
the next run overwrites.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO

import onnx_ir

from graphnorm.emission.onnx_bytes import data_of, pieces
from graphnorm.errors import InputError, ModelFileError
from graphnorm.frontends.onnx.external import external_of, self_contained
from graphnorm.frontends.onnx.load import model_path, read_proto, to_model
from graphnorm.frontends.onnx.slots import Slot, external_tensors, tensor_slots
from graphnorm.util.atomic import unfinished

INLINE_LIMIT = 2_000_000_000  # protobuf refuses messages of 2 GiB
_ALIGNMENT = 64  # of tensors in the data file, for vector loads from a memory map
_INLINE_ALWAYS = 1024  # bytes: shapes and literals, which runtimes read while loading


def save_onnx(
    model: onnx_ir.Model,
    path: str | os.PathLike[str],
    *,
    like: onnx_ir.Model | None = None,
    force: bool = False,
) -> tuple[Path, ...]:
    """Write a model; on any failure nothing is left behind and no file has changed.

    Tensors that were external, in `model` or in `like`, go to a data file beside it, and so does everything
    large if the model is too big for one protobuf message.

    Args:
        model: The model; unchanged.
        path: The destination; never a file that `model` or `like` was read from.
        like: The source model, whose external-data layout is kept.
        force: Overwrite an existing file.

    Returns:
        The files that were written: the model, and its data file if it has one.

    Raises:
        InputError: the destination exists, is an input, lies in no folder, or cannot be written.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"{target}: its folder does not exist; create {target.parent} first")
    if target.is_dir():
        raise InputError(f"{target}: is a folder; name a file in it")
    sources = [self_contained(one, str(target)) for one in (model, like) if one is not None]
    outgoing = sources[0].clone()
    slots = _slots_outside(outgoing, {name for source in sources for name in external_of(source).names})
    read = _files_of(sources)
    _check_may_write(target, read, force)
    old = _data_files(target)
    data = next(name for name in _data_names(target) if name not in old) if slots else None
    if data is not None:
        _check_may_write(data, read, force)
    try:
        _write(outgoing, target, data, slots)
        for file in old:  # of the replaced model
            if file != data and _is_own(file, target) and not any(_same(file, used) for used in read):
                file.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error
    return (target,) if data is None else (target, data)


def _data_names(target: Path) -> Iterator[Path]:
    """What data files may be called: ``OUT.onnx.data``, ``OUT.onnx.1.data`` and so on."""
    suffixes = chain([".data"], (f".{number}.data" for number in count(1)))
    return (target.with_name(target.name + suffix) for suffix in suffixes)


def _is_own(file: Path, target: Path) -> bool:
    return re.fullmatch(re.escape(target.name) + r"(\.\d+)?\.data", file.name) is not None


def _data_files(target: Path) -> frozenset[Path]:
    """The data files that the model in place refers to; all that could be, if it cannot be read."""
    if not target.exists():
        return frozenset()
    candidates = [file for file in target.parent.iterdir() if _is_own(file, target)]
    if not candidates:
        return frozenset()
    try:
        model = to_model(read_proto(target), str(target))
    except ModelFileError:
        return frozenset(candidates)
    named = {str(tensor.location) for _, tensor in external_tensors(model)}
    return frozenset(file for file in candidates if file.name in named)


def _files_of(sources: Sequence[onnx_ir.Model]) -> list[Path]:
    """What these models were read from."""
    found = [path for path in map(model_path, sources) if path is not None]
    return [*found, *(path for source in sources for path in external_of(source).files)]


def _check_may_write(file: Path, read: Sequence[Path], force: bool) -> None:
    if not file.exists():
        return
    if any(_same(file, used) for used in read):
        raise InputError(f"{file}: the model was read from this file; write to another one")
    if not force:
        raise InputError(f"{file}: exists already; give --force to overwrite it")


def _same(file: Path, other: Path) -> bool:
    return file.exists() and other.exists() and file.samefile(other)


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


def _write(model: onnx_ir.Model, target: Path, data: Path | None, slots: Sequence[Slot]) -> None:
    """Write both files under temporary names, then rename them, the data first; `model` is changed."""
    with ExitStack() as stack:
        temporary = stack.enter_context(unfinished(target))
        if data is not None:
            temporary_data = stack.enter_context(unfinished(data))
            with temporary_data.open("xb") as stream:
                for slot in slots:
                    slot.store(_append(stream, slot.tensor, data.name))
        with temporary.open("xb") as stream:
            stream.writelines(pieces(model))
        if data is None:
            temporary.replace(target)
            return
        is_new = not data.exists()
        try:
            temporary_data.replace(data)
            temporary.replace(target)
        finally:
            if is_new and temporary.exists():  # the model in place is still the old one
                data.unlink(missing_ok=True)


def _append(stream: BinaryIO, tensor: onnx_ir.TensorProtocol, location: str) -> onnx_ir.ExternalTensor:
    stream.write(b"\0" * (-stream.tell() % _ALIGNMENT))
    offset = stream.tell()
    return onnx_ir.ExternalTensor(
        location,
        offset,
        stream.write(data_of(tensor)),
        tensor.dtype,
        shape=onnx_ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )
