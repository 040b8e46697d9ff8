"""Small networks with higher-order operators of torch, each written a second time in plain Python.

With the operator a network is analysed and rescaled; the plain one (`plain=True`) is what the oracle
differentiates.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

STEPS, BATCH, INPUTS, HIDDEN, OUTPUTS = 4, 3, 2, 5, 3
OPERATORS: Any = torch._higher_order_ops  # without types of its own
Activation = Callable[[Tensor], Tensor]


class Layers(nn.Module):
    """x -> first -> something with inner -> last."""

    def __init__(self, activation: Activation = torch.relu, plain: bool = False) -> None:
        super().__init__()
        self.activation, self.plain = activation, plain
        self.first, self.inner = nn.Linear(INPUTS, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.last = nn.Linear(HIDDEN, OUTPUTS)

    def step(self, hidden: Tensor) -> Tensor:
        return self.activation(self.inner(hidden))


class Choice(Layers):
    """The sign of the input chooses between one hidden layer and two."""

    def forward(self, x: Tensor) -> Tensor:
        def short(x: Tensor) -> Tensor:
            return torch.relu(self.first(x))

        def long(x: Tensor) -> Tensor:
            return self.step(torch.relu(self.first(x)))

        if self.plain:
            return self.last(short(x) if x.sum() > 0 else long(x))
        return self.last(torch.cond(x.sum() > 0, short, long, (x,)))


class Repeated(Layers):
    """The hidden layer three times."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        if self.plain:
            for _ in range(3):
                hidden = self.step(hidden)
            return self.last(hidden)
        count = torch.zeros((), dtype=torch.int64)
        _, hidden = OPERATORS.while_loop(
            lambda i, h: i < 3, lambda i, h: (i + 1, self.step(h)), (count, hidden)
        )
        return self.last(hidden)


class Recurrent(Layers):
    """(steps, batch, inputs) -> outputs at each step."""

    def advance(self, hidden: Tensor, x: Tensor) -> Tensor:
        return self.activation(self.first(x) + self.inner(hidden))

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.new_zeros(x.shape[1], HIDDEN)
        if self.plain:
            states = []
            for element in x:
                hidden = self.advance(hidden, element)
                states.append(hidden)
            return self.last(torch.stack(states))

        def combine(hidden: Tensor, element: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.advance(hidden, element)
            return hidden, hidden.clone()

        return self.last(OPERATORS.scan(combine, hidden, x)[1])


class Gated(Recurrent):
    """A choice inside a scan: a step may keep the state."""

    def advance(self, hidden: Tensor, x: Tensor) -> Tensor:
        def keep(hidden: Tensor, x: Tensor) -> Tensor:
            return torch.relu(hidden)

        def update(hidden: Tensor, x: Tensor) -> Tensor:
            return self.activation(self.first(x) + self.inner(hidden))

        if self.plain:
            return keep(hidden, x) if x.sum() > 0 else update(hidden, x)
        return torch.cond(x.sum() > 0, keep, update, (hidden, x))


class Mapped(Layers):
    """Every step of the input by itself."""

    def forward(self, x: Tensor) -> Tensor:
        if self.plain:
            return self.last(self.step(torch.relu(self.first(x))))
        return OPERATORS.map(lambda element: self.last(self.step(torch.relu(self.first(element)))), x)


def flat(generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.randn(BATCH, INPUTS, generator=generator, dtype=torch.float64),)


def steps(generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.randn(STEPS, BATCH, INPUTS, generator=generator, dtype=torch.float64),)


Inputs = Callable[[torch.Generator], tuple[Tensor, ...]]
CASES: dict[str, tuple[Callable[..., Layers], Inputs]] = {
    "cond": (Choice, flat),
    "cond, one branch saturates": (partial(Choice, torch.tanh), flat),
    "while_loop": (Repeated, flat),
    "while_loop, saturating": (partial(Repeated, torch.tanh), flat),
    "scan": (Recurrent, steps),
    "scan, saturating": (partial(Recurrent, torch.tanh), steps),
    "cond in scan": (Gated, steps),
    "map": (Mapped, steps),
}
