"""The register of functions that stand in for ONNX's reference implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from graphnorm.ir import Array

Special = Callable[..., list[Any]]
SPECIAL: dict[str, Special] = {}


def special(*operators: str) -> Callable[[Special], Special]:
    """Register a function of our own: (case, *operands) -> results."""

    def register(function: Special) -> Special:
        SPECIAL.update(dict.fromkeys(operators, function))
        return function

    return register


def tensor(array: Array) -> torch.Tensor:
    """The array as a torch tensor."""
    return torch.from_numpy(np.ascontiguousarray(array))
