"""What a torch module raises while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from graphnorm import ir
from graphnorm.frontends.torch.places import place
from graphnorm.verification.run_errors import reason, run_error


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
