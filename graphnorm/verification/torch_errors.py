"""What a torch module raises while it runs, and the submodule or node that it comes from."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from graphnorm import ir
from graphnorm.verification.run_errors import reason, run_error

_GENERATED = "<eval_with_key>"  # file name of the code of an fx.GraphModule


@contextmanager
def running(module: nn.Module, inputs: Mapping[str, ir.Array]) -> Iterator[None]:
    """Turn what `module` raises on `inputs` into a `RunError` that names submodule, node and inputs.

    Raises:
        RunError: the module failed.
    """
    try:
        yield
    except Exception as error:  # the module's own code may raise anything
        raise run_error(f"torch's run of {place(module, error)}", inputs, reason(error)) from error


def place(module: nn.Module, error: BaseException) -> str:
    """The innermost submodule, and the node of an exported program, in which an exception was raised."""
    names = {submodule: name for name, submodule in module.named_modules()}
    found, node = type(module).__name__, ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and names.get(owner):
            found = f"{type(owner).__name__} {names[owner]!r}"
        if frame.f_code.co_filename.startswith(_GENERATED):
            statement = linecache.getline(frame.f_code.co_filename, line)
            node = statement.partition("=")[0].partition(":")[0].strip()
    return f"node {node!r} in {found}" if node else found
