"""Where in a torch module an exception was raised."""

from __future__ import annotations

import linecache
import traceback

from torch import nn

_GENERATED = "<eval_with_key>"  # file name of the code of an fx.GraphModule


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
