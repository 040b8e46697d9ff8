"""Large models are measured without copies of parameters: shared, guarded, widened while read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from graphnorm.errors import RunError

_COPIED = 64_000_000  # bytes of parameters up to which a copy is cheap


def is_large(module: nn.Module) -> bool:
    """Whether a module's parameters are too many to be copied for each run."""
    return sum(parameter.nbytes for parameter in module.parameters()) > _COPIED


def shared(module: nn.Module) -> dict[int, Any]:
    """For `deepcopy`: the plain parameters stay the caller's own."""
    return {id(parameter): parameter for parameter in module.parameters() if type(parameter) is nn.Parameter}


class WriteGuard(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses operators that write to a module's parameters.

    Raises:
        RunError: there is one; nothing was written.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._owned = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()} - {0}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        for index, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            given = args[index] if index < len(args) else named.get(argument.name)
            for tensor in tree_leaves(given):
                if hasattr(tensor, "untyped_storage") and tensor.untyped_storage().data_ptr() in self._owned:
                    raise RunError(f"{func} writes to a parameter: the model must be copied")
        return func(*args, **named)


def widen_while_read(module: nn.Module) -> None:
    """Let each part of a module have float64 parameters while it runs, and restore its own afterwards."""
    for part in list(module.modules()):
        if any(parameter is not None for parameter in part._parameters.values()):
            held: dict[str, Any] = {}
            part.register_forward_pre_hook(_widening(held), prepend=True)
            part.register_forward_hook(_restoring(held), always_call=True)
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_floating_point():
                part._buffers[name] = buffer.double()


def _widening(held: dict[str, Any]) -> Any:
    def before(part: nn.Module, args: Any) -> None:
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.is_floating_point() and name not in held:
                held[name] = parameter
                part._parameters[name] = nn.Parameter(parameter.detach().double(), requires_grad=False)

    return before


def _restoring(held: dict[str, Any]) -> Any:
    def after(part: nn.Module, args: Any, result: Any) -> None:
        part._parameters.update(held)
        held.clear()

    return after
