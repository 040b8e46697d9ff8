"""Public docstrings: parameters, results and errors are explained, and there is an example (a doctest)."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import graphnorm

# Modules whose public names (`__all__`) are documented, and single functions.
MODULES = ("graphnorm", "graphnorm.nn", "graphnorm.passes.fx", "graphnorm.passes.onnx")
FUNCTIONS = (
    "graphnorm.pictures.draw",
    "graphnorm.certificates.verify.save_certificate",
    "graphnorm.certificates.verify.verify_certificate",
    "graphnorm.fingerprint.compute.fingerprint_of",
    "graphnorm.fingerprint.compare.compare",
)


def public() -> Iterator[tuple[str, Any]]:
    """(dotted name, object) of everything that users call."""
    for name in MODULES:
        module = importlib.import_module(name)
        for member in module.__all__:
            yield f"{name}.{member}", getattr(module, member)
    for path in FUNCTIONS:
        home, _, member = path.rpartition(".")
        yield path, getattr(importlib.import_module(home), member)


PUBLIC = dict(public())


def lacking(thing: Any) -> list[str]:
    """What the docstring of a function or class lacks."""
    classes = thing.__mro__ if inspect.isclass(thing) and dataclasses.is_dataclass(thing) else (thing,)
    text = "\n".join(inspect.getdoc(each) or "" for each in classes if each is not object)
    if isinstance(thing, type) and issubclass(thing, Exception):
        return [] if text else ["a sentence"]
    if not inspect.isclass(thing) and not callable(thing):
        return []
    section = "Attributes|Args" if inspect.isclass(thing) else "Args"
    missing = [f"{section}: {name}" for name in _parameters(thing) if not _explains(text, section, name)]
    if not inspect.isclass(thing):
        signature = inspect.signature(thing)
        if (
            signature.return_annotation not in (None, "None")
            and "Returns:" not in text
            and "Yields:" not in text
        ):
            missing.append("Returns")
        if _raises(thing) and "Raises:" not in text:
            missing.append("Raises")
    return missing if ">>>" in text else [*missing, "an example"]


def _parameters(thing: Any) -> list[str]:
    if inspect.isclass(thing):
        if dataclasses.is_dataclass(thing):
            return [field.name for field in dataclasses.fields(thing)]
        if "__init__" not in vars(thing) or "The arguments are those of" in (thing.__doc__ or ""):
            return []
        thing = thing.__init__
    taken = inspect.signature(thing).parameters
    return [name for name in taken if name != "self"]


def _explains(text: str, section: str, name: str) -> bool:
    if not re.search(rf"^({section})", text, re.MULTILINE):
        return False
    return (
        re.search(rf"(^\s+|, |``)\*{{0,2}}{re.escape(name)}\b(, \w+)*(:|``)", text, re.MULTILINE) is not None
    )


def _raises(thing: Any) -> bool:
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))
    return any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(source)))


@pytest.mark.parametrize("name", PUBLIC)
def test_public_docstrings_are_complete(name: str) -> None:
    assert not lacking(PUBLIC[name])


def test_everything_public_is_looked_at() -> None:
    assert len(PUBLIC) > 30
    assert set(graphnorm.__all__) <= {name.rpartition(".")[2] for name in PUBLIC}


def test_an_incomplete_docstring_is_found() -> None:
    def documented(x: int) -> int:
        """Twice.

        Args:
            y: something else.
        """
        if x < 0:
            raise ValueError(x)
        return 2 * x

    assert lacking(documented) == ["Args: x", "Returns", "Raises", "an example"]
