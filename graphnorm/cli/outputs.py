"""Output files of the command line: files that a run reads are never replaced, others only on request.

Suffix and folder are checked before the long work.  Once the models are open, every file that the run reads
is known, and one check covers all outputs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from graphnorm.errors import InputError

STDOUT = "-"
_SUFFIXES = {"onnx": (".onnx",), "torch": (".pt2", ".safetensors")}


@dataclass(frozen=True)
class Output:
    """What an option writes.

    Attributes:
        option: how errors name it.
        files: what is written; the first is the one that was named.
        may_replace: whether existing files may be replaced.
        beside: other files that may be written with it.
    """

    option: str
    files: tuple[Path, ...]
    may_replace: bool
    beside: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return f"{self.option} {self.files[0]}"


def model_output(path: Path, kind: str, force: bool) -> Output:
    """``--output`` of an ``onnx`` or ``torch`` model.

    Raises:
        InputError: wrong suffix, or no folder to write to.
    """
    if path.suffix not in _SUFFIXES[kind]:
        raise InputError(
            f"--output {path}: {kind} models are written to {' or '.join(_SUFFIXES[kind])} files"
        )
    beside = (path.with_name(path.name + ".data"),) if kind == "onnx" else ()
    return _placed(Output("--output", (path,), force, beside))


def picture_output(path: Path, force: bool) -> Output:
    """``--output`` of a picture.

    Raises:
        InputError: wrong suffix, a missing library, or no folder to write to.
    """
    from graphnorm.pictures import check_format

    check_format(path)
    return _placed(Output("--output", (path,), force))


def json_output(target: str | None) -> Output | None:
    """``--json``; None for standard output.

    Raises:
        InputError: wrong suffix, or no folder to write to.
    """
    if target is None or target == STDOUT:
        return None
    if Path(target).suffix != ".json":
        raise InputError(f"--json {target}: name a .json file, or - for standard output")
    return _placed(Output("--json", (Path(target),), True))


def file_output(option: str, path: Path | None, suffix: str) -> Output | None:
    """A file with a suffix of its own.

    Raises:
        InputError: wrong suffix, or no folder to write to.
    """
    if path is None:
        return None
    if path.suffix != suffix:
        raise InputError(f"{option} {path}: name a {suffix} file")
    return _placed(Output(option, (path,), True))


def certificate_output(path: Path | None, force: bool) -> Output | None:
    """``--certificate``: two files.

    Raises:
        InputError: wrong suffix, or no folder to write to.
    """
    if path is None:
        return None
    if path.suffix != ".json":
        raise InputError(f"--certificate {path}: name a .json file")
    return _placed(Output("--certificate", (path, path.with_suffix(".safetensors")), force))


def check_carries_graph(path: Path) -> None:
    """Refuse a destination for weights alone: read into the original module, they would be another function.

    Raises:
        InputError: a ``.safetensors`` file.
    """
    if path.suffix == ".safetensors":
        raise InputError(f"--output {path}: weights alone don't hold rewritten clips; write a .pt2 file")


def check_outputs(outputs: Iterable[Output | None], read: Sequence[Path]) -> None:
    """Refuse outputs that would replace what the run reads, each other, or a file unasked.

    Args:
        outputs: all of the run.
        read: every file that it reads.

    Raises:
        InputError: the first such output.
    """
    given = [output for output in outputs if output is not None]
    for output in given:
        for file in (*output.files, *output.beside):
            if any(_same(file, used) for used in read):
                raise InputError(
                    f"{output}: {_named(file, output)}is one of the input files, which are never changed"
                )
    for one, two in combinations(given, 2):
        for file in two.files:
            if any(_same(file, other) for other in (*one.files, *one.beside)):
                raise InputError(
                    f"{two}: {_named(file, two)}is another output ({one.option}); choose another name"
                )
    for output in given:
        for file in output.files:
            if file.exists() and not output.may_replace:
                raise InputError(f"{output.option} {file}: exists already; give --force to overwrite it")


def _named(file: Path, output: Output) -> str:
    return "" if file == output.files[0] else f"{file.name}, which is written too, "


def _same(one: Path, two: Path) -> bool:
    """Whether two paths are one file, or would be."""
    if one.exists() and two.exists():
        return one.samefile(two)
    return one.parent.resolve() / one.name == two.parent.resolve() / two.name


def _placed(output: Output) -> Output:
    path = output.files[0]
    if not path.parent.is_dir():
        raise InputError(f"{output}: its folder does not exist; create {path.parent} first")
    if path.is_dir():
        raise InputError(f"{output}: is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise InputError(f"{output}: is a pipe or a device; name a file")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{output}: its folder cannot be written to")
    return output
