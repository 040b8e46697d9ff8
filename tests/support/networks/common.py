"""What the families of networks share: inputs, and modules written as one function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Callable[[torch.Generator], tuple[Tensor, ...]]
Network = tuple[Callable[[], nn.Module], Inputs]


class Function(nn.Module):
    """A module whose forward is a plain function of it; `parts` are its layers and parameters."""

    def __init__(self, forward: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._forward(self, *inputs)


def normal(*shape: int, size: float = 1.0) -> Inputs:
    return lambda generator: (size * torch.randn(*shape, generator=generator, dtype=torch.float64),)


def positive(*shape: int) -> Inputs:
    return lambda generator: (0.5 + torch.rand(*shape, generator=generator, dtype=torch.float64),)


def tokens(vocabulary: int, *shape: int) -> Inputs:
    return lambda generator: (torch.randint(0, vocabulary, shape, generator=generator),)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def linear(i: int, o: int, bias: bool = True) -> nn.Linear:
    return nn.Linear(i, o, bias=bias)


IMAGE = normal(2, 2, 4, 4)
ROWS = normal(4, 3)
SEQUENCE = normal(2, 3, 4)
