"""Cases in which a plausible rule would change the function: each was, or could have been, a defect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

import graphnorm
from graphnorm.emission.torch_module import rescale_torch
from graphnorm.weights.coefficients import rescale


class Function(nn.Module):
    """A module whose forward is a plain function of it."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def linear(i: int, o: int) -> nn.Linear:
    return nn.Linear(i, o)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def change(model: nn.Module, program: Any, example: Tensor, others: list[Tensor]) -> tuple[int, float]:
    """(dimension, largest relative change of the output under a random rescaling)."""
    graph = graphnorm.trace(program, None if program is not model else (example,))
    z = np.random.default_rng(0).normal(size=graph.solution.count)
    other = rescale_torch(model, rescale(graph, z).weights)
    worst = 0.0
    with torch.no_grad():
        for x in [example, *others]:
            before, after = model(x), other(x)
            worst = max(worst, float((before - after).norm() / before.norm()))
    return graph.dimension, worst


def sort_of(axis: int) -> Function:
    return Function(
        lambda s, x: s.c(torch.sort(torch.relu(s.a(x)), dim=axis)[0].flatten(1)),
        a=nn.Conv1d(2, 4, 1), c=linear(20, 2),
    )  # fmt: skip


def positions() -> Function:
    return Function(
        lambda s, x: s.b(torch.relu(s.a(x) + s.table[: x.shape[1]])),
        a=linear(3, 4), table=parameter(9, 4), b=linear(4, 2),
    )  # fmt: skip


def position_gains() -> Function:
    return Function(
        lambda s, x: s.b(torch.relu(s.a(x) * s.table[: x.shape[1]])).sum(1),
        a=linear(3, 4), table=parameter(9, 4), b=linear(4, 2),
    )  # fmt: skip


def position_embedding() -> Function:
    return Function(
        lambda s, x: s.b(torch.relu(s.a(x) + s.table(torch.arange(x.shape[1])))),
        a=linear(3, 4), table=nn.Embedding(9, 4), b=linear(4, 2),
    )  # fmt: skip


def grid_positions() -> Function:
    return Function(
        lambda s, x: s.b(torch.relu(s.a(x) + s.table[:, :, : x.shape[2], : x.shape[3]])),
        a=nn.Conv2d(2, 4, 1), table=parameter(1, 4, 9, 9), b=nn.Conv2d(4, 2, 1),
    )  # fmt: skip


def resampled() -> Function:
    def forward(s: Any, x: Tensor) -> Tensor:
        image = F.interpolate(s.a(x).view(-1, 1, 5, 5), scale_factor=1.1, mode="bicubic")
        return s.b(torch.relu(image.flatten(1)))

    return Function(forward, a=linear(3, 25), b=linear(25, 2))


def repeated_row() -> Function:
    return Function(
        lambda s, x: s.b(torch.relu(F.linear(x, s.w[[0, 0, 0]]))), w=parameter(1, 3), b=linear(3, 2)
    )


def chosen_weights() -> Function:
    return Function(
        lambda s, x: s.b(torch.relu(torch.where(x[:, :1] > 0, s.u, s.t))),
        u=parameter(4),
        t=parameter(4),
        b=linear(4, 2),
    )


def odd_power() -> Function:
    return Function(lambda s, x: s.b(torch.relu(s.a(x)).pow(3.14159265)), a=linear(3, 4), b=linear(4, 2))


def temperature() -> Function:
    return Function(lambda s, x: s.b(torch.relu(s.a(x)) * s.t), a=linear(3, 4), b=linear(4, 2), t=parameter())


def zero_tokens() -> Function:
    def forward(s: Any, x: Tensor) -> Tensor:
        h = torch.relu(s.a(x))
        return s.b(torch.cat([h, torch.zeros_like(h)], 1))

    return Function(forward, a=linear(3, 4), b=linear(4, 2))


def repeated_token() -> Function:
    return Function(
        lambda s, x: s.b(torch.relu(torch.cat([s.token.repeat(x.shape[0], 1, 1), s.a(x)], 1))),
        token=parameter(1, 1, 4), a=linear(3, 4), b=linear(4, 2),
    )  # fmt: skip


def table(read: Callable[[Tensor, int], Tensor], *shape: int) -> Function:
    """A table of positions, read by `read` as far as the sequence is long."""
    return Function(
        lambda s, x: s.b(torch.relu(s.a(x) + read(s.t, x.shape[1]))),
        t=parameter(*shape), a=linear(3, 5), b=linear(5, 2),
    )  # fmt: skip


def two_windows(t: Tensor, n: int) -> Tensor:
    return t[:n] * t[1 : n + 1]


def cut_expression() -> Function:
    return Function(
        lambda s, x: s.b(torch.relu(s.a(x) + (s.w.abs() * s.g).t()[: x.shape[1]])),
        w=parameter(5, 9), g=parameter(5, 9), a=linear(3, 5), b=linear(5, 2),
    )  # fmt: skip


ROWS = torch.randn(4, 3)
TOKENS = torch.randn(2, 4, 3)
CASES: dict[str, tuple[Callable[[], nn.Module], Tensor, list[Tensor], int]] = {
    "sort_inner": (lambda: sort_of(1), torch.randn(2, 2, 5), [], 1),
    "sort_last": (lambda: sort_of(2), torch.randn(2, 2, 5), [], 4),
    "positions": (positions, TOKENS, [torch.randn(2, 9, 3)], 4),
    "position_gains": (position_gains, TOKENS, [torch.randn(2, 9, 3)], 8),
    "position_embedding": (position_embedding, TOKENS, [torch.randn(2, 9, 3)], 4),
    "columns_as_positions": (lambda: table(lambda t, n: t.t()[:n], 5, 9), TOKENS, [torch.randn(2, 9, 3)], 5),
    "square_columns": (lambda: table(lambda t, n: t.t()[:n], 5, 5), TOKENS, [torch.randn(2, 5, 3)], 5),
    "flat_positions": (lambda: table(lambda t, n: t.view(9, 5)[:n], 45), TOKENS, [torch.randn(2, 9, 3)], 1),
    "picked_columns": (
        lambda: table(lambda t, n: t.t()[torch.arange(n)], 5, 9), TOKENS, [torch.randn(2, 9, 3)], 5,
    ),
    "two_windows": (lambda: table(two_windows, 9, 5), TOKENS, [torch.randn(2, 8, 3)], 5),
    "cut_expression": (cut_expression, TOKENS, [torch.randn(2, 9, 3)], 50),
    "grid_positions": (grid_positions, torch.randn(1, 2, 4, 4), [torch.randn(1, 2, 8, 6)], 4),
    "resampled": (resampled, ROWS, [], 1),
    "repeated_row": (repeated_row, ROWS, [], 1),
    "chosen_weights": (chosen_weights, ROWS, [], 1),
    "odd_power": (odd_power, ROWS, [], 0),
    "temperature": (temperature, ROWS, [], 5),
    "zero_tokens": (zero_tokens, TOKENS, [], 4),
    "repeated_token": (repeated_token, TOKENS, [], 4),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_function_is_kept_also_at_other_sizes(name: str) -> None:
    torch.manual_seed(0)
    builder, example, others, dimension = CASES[name]
    model = builder().double()
    found, worst = change(model, model, example.double(), [other.double() for other in others])
    assert worst < 1e-9
    assert found == dimension


def test_scalar_parameters_are_emitted() -> None:
    torch.manual_seed(0)
    result = graphnorm.canonicalize(temperature(), ROWS)
    assert result.report.verification.verdict == "proved"
    assert result.coefficients["t"].shape == ()


def by_length(use: Callable[[Any, Tensor, int], Tensor]) -> Function:
    return Function(lambda s, x: s.b(use(s, torch.relu(s.a(x)), x.shape[1])), a=linear(3, 8), b=linear(8, 2))


LENGTHS: dict[str, Callable[[], Function]] = {
    "added": lambda: by_length(lambda s, h, n: h + (n - 4)),
    "sliced": lambda: by_length(lambda s, h, n: h + h[:, :, :n].sum(-1, keepdim=True)),
    "selected": lambda: by_length(lambda s, h, n: h + h[:, :, n - 1 : n]),
    "rolled": lambda: by_length(lambda s, h, n: torch.roll(h, n, -1)),
    "power": lambda: by_length(lambda s, h, n: h ** (n - 3)),
    "full": lambda: by_length(lambda s, h, n: h + torch.full((8,), n - 4.0, dtype=h.dtype)),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_numbers_that_depend_on_a_variable_size(name: str) -> None:
    torch.manual_seed(0)
    model = LENGTHS[name]().double()
    example = TOKENS.double()
    shapes = {"x": {0: Dim.AUTO, 1: Dim.AUTO}}
    program = torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)
    _, worst = change(model, program, example, [torch.randn(2, 6, 3, dtype=torch.float64)])
    assert worst < 1e-9


def test_state_that_a_model_writes_is_pinned() -> None:
    class Memory(nn.Module):
        state: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = linear(3, 4), linear(4, 2), linear(4, 2), linear(3, 4)
            self.register_buffer("state", torch.zeros(2, 4))

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.a(x))
            y = self.b(h) + self.c(torch.relu(self.d(x) + self.state))
            self.state.copy_(h)
            return y

    torch.manual_seed(0)
    model, x = Memory().double(), torch.randn(2, 3, dtype=torch.float64)
    graph = graphnorm.trace(Memory().double(), (x,))
    z = np.random.default_rng(0).normal(size=graph.solution.count)
    other = rescale_torch(model, rescale(graphnorm.trace(model, (x,)), z).weights)
    for _ in range(2):
        assert torch.allclose(model(x), other(x), rtol=1e-9)
