"""Runs of a torch model with every operand perturbed by a unit of rounding: a bound of its own error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map


class Shaking(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Moves float64 operands at random by up to `unit`, relative, where an operator makes new tensors.

    Views and operators in place keep their operands.
    """

    def __init__(self, unit: float, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._unit = unit
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        schema = func._schema
        aliases = any(item.alias_info is not None for item in (*schema.arguments, *schema.returns))
        if aliases:
            return func(*args, **(kwargs or {}))
        moved, named = tree_map(self._moved, (tuple(args), dict(kwargs or {})))
        return func(*moved, **named)

    def _moved(self, item: Any) -> Any:
        if not isinstance(item, Tensor) or item.dtype != torch.float64 or not item.ndim:
            return item
        noise = torch.rand(item.shape, generator=self._generator, dtype=torch.float64).to(item.device)
        return item * (1 + self._unit * (2 * noise - 1))
