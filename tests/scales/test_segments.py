"""Reductions of pieces of an axis: channels are free but for products and pieces that begin with a number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphnorm
from tests.support import oracle


class Pieces(nn.Module):
    """Rows of a hidden layer reduced in pieces."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.a, self.o = nn.Linear(3, 4), nn.Linear(4, 2)
        self.options = options
        self.lengths = torch.tensor([1, 3, 2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.a(x))
        reduced = torch.segment_reduce(hidden, lengths=self.lengths, axis=0, **self.options)
        result: torch.Tensor = self.o(reduced)
        return result


FREE: list[dict[str, Any]] = [{"reduce": kind} for kind in ("sum", "mean", "max", "min")]
FREE.append({"reduce": "sum", "initial": 0})


@pytest.mark.parametrize("options", FREE, ids=str)
def test_channels_can_be_rescaled(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, x = Pieces(**options), torch.randn(6, 3)
    assert graphnorm.trace(model, (x,)).dimension == 4
    if options["reduce"] in ("sum", "mean"):  # torch.func differentiates these
        assert oracle.nullity(Pieces(**options), lambda g: (torch.randn(6, 3, generator=g),)) == 4
    result = graphnorm.canonicalize(model, (x,))
    assert result.report.verification.verdict == "proved"
    assert torch.allclose(result.model(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"reduce": "prod"}, {"reduce": "sum", "initial": 1}], ids=str)
def test_products_and_numbers_pin(options: dict[str, Any]) -> None:
    assert graphnorm.trace(Pieces(**options), (torch.randn(6, 3),)).dimension == 0
