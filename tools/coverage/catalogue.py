"""Which models a run takes: three libraries' architectures, and ONNX files."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from tools.coverage.records import Record
from tools.coverage.workers import Task

LIBRARIES = ("timm", "torchvision", "transformers")


def tasks(
    libraries: Iterable[str], files: Iterable[Path] = (), folder: Path | None = None, only: str = ""
) -> list[Task]:
    """Tasks of the models whose ``family:name`` the regular expression `only` finds.

    Args:
        libraries: of `LIBRARIES`; each is imported, so that forked processes need not.
        files: ONNX files, called by their file names.
        folder: of ONNX files, called by their paths in it.
        only: regular expression.
    """
    found = [task for library in libraries for task in _architectures(library)]
    found += _files((path.name, path) for path in files)
    if folder is not None:
        paths = sorted(folder.rglob("*.onnx"))
        found += _files((path.relative_to(folder).as_posix(), path) for path in paths)
    return [task for task in found if re.search(only, f"{task[0].family}:{task[0].name}")]


def _architectures(library: str) -> Iterator[Task]:
    from graphnorm.cli.models.zoo import _declare_torchvision_operators
    from tools.coverage import check_torch

    _declare_torchvision_operators()  # timm and transformers import torchvision too
    importlib.import_module(library)
    models = importlib.import_module(f"tools.coverage.{library}_models")
    for name in models.NAMES:
        yield Record(library, name), partial(check_torch.check, make=partial(models.build, name))


def _files(paths: Iterable[tuple[str, Path]]) -> Iterator[Task]:
    from tools.coverage import check_onnx

    for name, path in paths:
        yield Record("onnx", name), partial(check_onnx.check, path=path)
