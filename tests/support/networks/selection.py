"""Choices between branches, picking and placing of entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.networks.common import ROWS, Function, Network, linear, normal, parameter


def two(combine: Callable[[Tensor, Tensor], Tensor], width: int = 4) -> nn.Module:
    """Two branches, combined."""
    return Function(
        lambda s, x: s.c(combine(s.a(x), s.b(x))), a=linear(3, 4), b=linear(3, 4), c=linear(width, 2)
    )


def one(change: Callable[[Tensor], Tensor], width: int = 4, **parts: Any) -> nn.Module:
    """One hidden layer of four channels, changed."""
    return Function(
        lambda s, x: s.c(change(F.relu(s.a(x)))), a=linear(3, 4), c=linear(width, 2), **parts
    )  # fmt: skip


def beside(change: Callable[[Tensor], Tensor], width: int) -> nn.Module:
    """The same, with the unchanged channels beside the changed ones, so that none is dead."""
    return one(lambda y: torch.cat([change(y), y], 1), width + 4)


def scattered(y: Tensor) -> Tensor:
    """Four channels placed among six."""
    return torch.zeros(y.shape[0], 6, dtype=y.dtype).scatter(
        1, torch.tensor([[5, 0, 2, 3]]).expand(y.shape[0], -1), y
    )


def put(y: Tensor) -> Tensor:
    """A copy in which two columns are replaced by twice two others."""
    other = y.clone()
    other[:, torch.tensor([0, 2])] = 2.0 * y[:, torch.tensor([1, 3])]
    return other


def assigned(y: Tensor) -> Tensor:
    """A slice written in place into zeros."""
    other = torch.zeros(y.shape[0], 6, dtype=y.dtype)
    other[:, 1:5] = y
    return other


NETWORKS: dict[str, Network] = {
    "maximum": (lambda: two(torch.maximum), ROWS),
    "minimum": (lambda: two(torch.minimum), ROWS),
    "maxout": (
        lambda: Function(lambda s, x: s.c(s.a(x).view(-1, 2, 3).amax(1)), a=linear(3, 6), c=linear(3, 2)),
        ROWS,
    ),
    "where_zero_branch": (lambda: one(lambda y: torch.where(y > 0, y, torch.zeros_like(y))), ROWS),
    "where_branches": (lambda: two(lambda a, b: torch.where(a > 0, F.relu(a), F.relu(b))), ROWS),
    "where_compared": (lambda: two(lambda a, b: torch.where(a > b, a, b)), ROWS),
    "masked_fill_zero": (
        lambda: beside(lambda y: y.masked_fill(torch.tensor([True, False, False, True]), 0.0), 4),
        ROWS,
    ),
    "masked_fill_one": (
        lambda: beside(lambda y: y.masked_fill(torch.tensor([True, False, False, True]), 1.0), 4),
        ROWS,
    ),
    "sort": (lambda: one(lambda y: torch.sort(y, -1).values), ROWS),
    "sort_rows": (lambda: one(lambda y: torch.sort(y, 0).values), ROWS),
    "topk": (lambda: one(lambda y: torch.topk(y, 2, -1).values, 2), ROWS),
    "median": (lambda: one(lambda y: torch.cat([y, y.median(-1, keepdim=True).values], -1), 5), ROWS),
    "gather": (lambda: beside(lambda y: y.gather(1, torch.tensor([[3, 1]]).expand(4, -1)), 2), ROWS),
    "index_select": (lambda: beside(lambda y: y.index_select(1, torch.tensor([3, 1, 1])), 3), ROWS),
    "index_list": (lambda: beside(lambda y: y[:, [2, 0, 3]], 3), ROWS),
    "index_negative_step": (lambda: beside(lambda y: y.flip(1)[:, ::2], 2), ROWS),
    "scatter": (lambda: one(scattered, 6), ROWS),
    "scatter_add": (
        lambda: one(
            lambda y: torch.zeros(4, 2, dtype=y.dtype).scatter_add(
                1, torch.tensor([[0, 1, 1, 0]]).expand(4, -1), y
            ),
            2,
        ),
        ROWS,
    ),
    "index_put": (lambda: beside(put, 4), ROWS),
    "slice_assign": (lambda: one(assigned, 6), ROWS),
    "index_add": (
        lambda: one(lambda y: torch.zeros(2, 4, dtype=y.dtype).index_add(0, torch.tensor([0, 1, 1, 0]), y)),
        ROWS,
    ),
    "graph_convolution": (  # rows are vertices; a constant adjacency mixes them
        lambda: one(
            lambda y: torch.tensor([[0.0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 0], [1, 1, 1, 1]]).to(y.dtype) @ y
        ),
        ROWS,
    ),
    "stack_unbind": (
        lambda: two(lambda a, b: torch.stack([a, b]).relu().flip(0).unbind()[0] + a.relu()),
        ROWS,
    ),
    "concat_zeros": (lambda: one(lambda y: torch.cat([y, torch.zeros(4, 1, dtype=y.dtype)], 1), 5), ROWS),
    "concat_ones": (lambda: one(lambda y: torch.cat([y, torch.ones(4, 1, dtype=y.dtype)], 1), 5), ROWS),
    "roll": (lambda: one(lambda y: y + torch.roll(y, 1, 1)), ROWS),
    "roll_length": (
        lambda: Function(
            lambda s, x: s.c(torch.roll(F.relu(s.a(x)), 1, 1) + F.relu(s.b(x))),
            a=linear(3, 4), b=linear(3, 4), c=linear(4, 2),
        ),
        normal(2, 3, 3),
    ),
    "flip": (lambda: one(lambda y: y - y.flip(1)), ROWS),
    "cumsum_length": (
        lambda: Function(lambda s, x: s.c(F.relu(s.a(x)).cumsum(1)), a=linear(3, 4), c=linear(4, 2)),
        normal(2, 3, 3),
    ),
    "cumsum_channels": (lambda: one(lambda y: y.cumsum(1)), ROWS),
    "cumprod": (lambda: one(lambda y: y.cumprod(1)), ROWS),
    "repeat": (lambda: one(lambda y: y.repeat(1, 2), 8), ROWS),
    "tril": (lambda: one(lambda y: y.unsqueeze(-1).expand(-1, -1, 4).tril().sum(1)), ROWS),
    "diagonal": (lambda: beside(lambda y: y.view(-1, 2, 2).diagonal(dim1=1, dim2=2), 2), ROWS),
    "learned_rows": (  # an additive parameter per row of the batch
        lambda: Function(
            lambda s, x: s.c(F.relu(s.a(x) + s.p)), a=linear(3, 4), p=parameter(4, 1), c=linear(4, 2)
        ),
        ROWS,
    ),
}  # fmt: skip
