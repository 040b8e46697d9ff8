"""Packages that graphnorm runs without: where one is needed, the sentence names the extra to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphnorm.errors import MissingPackageError

# Package -> the extra that installs it.
_EXTRAS = {"torch": "torch", "onnx": "onnx", "onnx_ir": "onnx", "onnxruntime": "onnx"}


@contextmanager
def needing(what: str) -> Iterator[None]:
    """Imports for `what`: where torch or onnx isn't installed, the sentence names the extra.

    Raises:
        MissingPackageError: it isn't.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        raise MissingPackageError(
            f"{what} needs {package}: pip install 'graphnorm[{_EXTRAS[package]}]'", name=package
        ) from error
