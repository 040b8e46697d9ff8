"""Output files of the command line: checked before the long work, written atomically."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from graphnorm.atomic import replacing
from graphnorm.errors import InputError

STDOUT = "-"
_SUFFIXES = {"onnx": (".onnx",), "torch": (".pt2", ".safetensors")}


def check_output(path: Path, kind: str, inputs: Sequence[Path], force: bool) -> None:
    """Refuse a destination that could not be written in the end.

    Raises:
        InputError: wrong suffix, no folder, an input file, or an existing file without `force`.
    """
    if path.suffix not in _SUFFIXES[kind]:
        raise InputError(
            f"--output {path}: {kind} models are written to {' or '.join(_SUFFIXES[kind])} files"
        )
    _check_new("--output", path, inputs, force)


def check_picture(path: Path, inputs: Sequence[Path], force: bool) -> None:
    """Refuse a destination that no picture could be written to in the end.

    Raises:
        InputError: wrong suffix, a missing library, no folder, an input file, or an existing file without
            `force`.
    """
    from graphnorm.pictures import check_format

    check_format(path)
    _check_new("--output", path, inputs, force)


def _check_new(option: str, path: Path, inputs: Sequence[Path], force: bool) -> None:
    _check_place(option, path, inputs)
    if path.exists() and not force:
        raise InputError(f"{option} {path}: exists already; give --force to overwrite it")


def check_carries_graph(path: Path) -> None:
    """Refuse a destination for weights alone: read into the original module, they would be another function.

    Raises:
        InputError: a ``.safetensors`` file.
    """
    if path.suffix == ".safetensors":
        raise InputError(f"--output {path}: weights alone don't hold rewritten clips; write a .pt2 file")


def check_json(target: str | None, others: Sequence[Path] = ()) -> None:
    """Refuse a ``--json`` destination that could not be written in the end.

    Raises:
        InputError: wrong suffix, no folder, or a file that is used otherwise.
    """
    if target is None or target == STDOUT:
        return
    path = Path(target)
    if path.suffix != ".json":
        raise InputError(f"--json {path}: name a .json file, or - for standard output")
    _check_place("--json", path, others)


def _check_place(option: str, path: Path, inputs: Sequence[Path]) -> None:
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: its folder does not exist; create {path.parent} first")
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; name a file in it")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{option} {path}: its folder cannot be written to")
    for used in inputs:
        same = path.samefile(used) if path.exists() and used.exists() else path.absolute() == used.absolute()
        if same:
            raise InputError(f"{option} {path}: is one of the input files, which are never changed")


def check_file(option: str, path: Path | None, suffix: str, others: Sequence[Path] = ()) -> None:
    """Refuse a destination of an option that could not be written in the end.

    Raises:
        InputError: wrong suffix, no folder, or a file that is used otherwise.
    """
    if path is None:
        return
    if path.suffix != suffix:
        raise InputError(f"{option} {path}: name a {suffix} file")
    _check_place(option, path, others)


def check_certificate_file(
    path: Path | None, inputs: Sequence[Path], outputs: Sequence[Path], force: bool
) -> None:
    """Refuse a ``--certificate`` destination: of its two files, neither may be another file of the run.

    Raises:
        InputError: wrong suffix, no folder, a file that is used otherwise, or an existing one without
            `force`.
    """
    if path is None:
        return
    check_file("--certificate", path, ".json", inputs)
    vectors = path.with_suffix(".safetensors")
    for file in (path, vectors):
        if any(file.absolute() == output.absolute() for output in outputs):
            raise InputError(
                f"--certificate {path}: its files are {path.name} and {vectors.name}, and {file.name} is "
                "another output; choose another name"
            )
        _check_new("--certificate", file, inputs, force)


def write_json(report: Mapping[str, Any], target: str | None) -> None:
    """Write a report to a file (atomically) or to standard output."""
    if target is None:
        return
    text = json.dumps(_plain(report), indent=2, allow_nan=False)
    if target == STDOUT:
        typer.echo(text)
        return
    with replacing(Path(target)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """JSON has no infinities and no NumPy numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
