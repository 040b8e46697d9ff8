"""onnxruntime's exceptions, and the node that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import onnxruntime

from graphnorm import ir
from graphnorm.verification.run_errors import reason, run_error, shortened

_OWN = tuple(
    kind
    for kind in vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
)
# Besides its own: what its Python binding raises on inputs that it cannot convert.
ONNXRUNTIME_ERRORS: tuple[type[Exception], ...] = (*_OWN, MemoryError, RuntimeError, TypeError, ValueError)
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_NODE = re.compile(r"^Non-zero status code returned while running (\w+) node\. Name:'(.*?)' Status Message: ")
_SOURCE = re.compile(r"^\S*\.(?:cc|cpp|h|hpp):\d+ (?:[^)]*::[^)]*\)(?: const)? )?")  # file and function


@contextmanager
def running(inputs: Mapping[str, ir.Array]) -> Iterator[None]:
    """Turn what onnxruntime raises on `inputs` into a `RunError` that names node and inputs.

    Raises:
        RunError: onnxruntime failed.
    """
    try:
        yield
    except ONNXRUNTIME_ERRORS as error:
        node, why = diagnosis(error)
        raise run_error(f"onnxruntime's {node or 'run'}", inputs, why) from error


def diagnosis(error: Exception) -> tuple[str, str]:
    """The node that an exception of onnxruntime names, or nothing; and why it failed."""
    text = _PREFIX.sub("", reason(error, 3, 2_000))
    found = _NODE.match(text)
    if found is None:
        return "", shortened(text)
    node = f"{found[1]} node {found[2]!r}" if found[2] else f"{found[1]} node"
    return node, shortened(_SOURCE.sub("", text[found.end() :]))
