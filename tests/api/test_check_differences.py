"""Planted differences: each is caught, with an input that shows it again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import graphnorm
from graphnorm.api.check_report import CheckReport
from graphnorm.api.sources import open_model
from graphnorm.api.verdicts import Verdict, Verification
from graphnorm.emission.torch_module import rescale_torch
from tests.api.test_canonicalize import exported
from tests.support.equivalents import equivalent_weights


class Tied(nn.Module):
    """Two branches tied by a sum, normalisation, pooling, attention with two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.two = nn.Conv2d(3, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.act: nn.Module = nn.ReLU()
        self.pool: nn.Module = nn.MaxPool2d(2)
        self.square = nn.Linear(8, 8)
        self.qkv = nn.Linear(8, 24)
        self.layer = nn.LayerNorm(8, eps=1e-2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(self.act(self.norm(self.one(x) + self.two(x))))
        tokens = F.relu(self.square(y.flatten(2).transpose(1, 2)))
        n, length, _ = tokens.shape
        q, k, v = self.qkv(tokens).reshape(n, length, 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, 8)
        return self.head(self.layer(tokens + mixed).mean(1))


def tied() -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    model: Any = Tied().eval()
    with torch.no_grad():
        model.norm.running_mean.normal_(0, 0.3)
        model.norm.running_var.uniform_(0.5, 2)
        model.norm.weight.uniform_(0.5, 1.5)
        model.norm.bias.normal_(0, 0.3)
    return model, torch.randn(2, 3, 8, 8)


def one_weight(model: Any) -> None:
    model.square.weight[2, 3] *= 1 + 1e-3 if abs(model.square.weight[2, 3]) > 0.05 else 1.1


def largest_weight(model: Any) -> None:
    flat = model.square.weight.view(-1)
    flat[flat.abs().argmax()] *= 1 + 1e-3


def swapped_channels(model: Any) -> None:
    for tensor in (model.two.weight, model.two.bias):
        tensor[[0, 1]] = tensor[[1, 0]].clone()


def gelu(model: Any) -> None:
    model.act = nn.GELU()


def dropped_bias(model: Any) -> None:
    model.square.bias = None


def epsilon(model: Any) -> None:
    model.layer.eps = 1e-3


def transposed(model: Any) -> None:
    model.square.weight.copy_(model.square.weight.t().clone())


def padding(model: Any) -> None:
    model.one.padding_mode = "circular"


def average(model: Any) -> None:
    model.pool = nn.AvgPool2d(2)


def one_head(model: Any) -> None:
    """Queries of one head times 1.1, keys of the other one divided."""
    model.qkv.weight[0:4] *= 1.1
    model.qkv.bias[0:4] *= 1.1
    model.qkv.weight[12:16] /= 1.1
    model.qkv.bias[12:16] /= 1.1


CHANGES = [
    one_weight, largest_weight, swapped_channels, gelu, dropped_bias, epsilon, transposed, padding, average,
    one_head,
]  # fmt: skip


def changed(change: Callable[[Any], None]) -> tuple[Any, Any, Tensor]:
    model, example = tied()
    other = copy.deepcopy(model)
    with torch.no_grad():
        change(other)
    return model, other, example


@pytest.mark.parametrize("change", CHANGES)
def test_planted_differences_come_with_a_counterexample(change: Any, tmp_path: Path) -> None:
    model, other, example = changed(change)
    report = graphnorm.check(model, other, example, seconds=4)
    assert report.verdict == "differs"
    path = tmp_path / "out.npz"
    report.save_counterexample(path)
    (given,) = (torch.from_numpy(array) for array in np.load(path).values())
    with torch.no_grad():
        one, two = model(given), other(given)
    assert (one - two).norm() > 3e-6 * one.norm()  # the rounding is 1e-7
    again = graphnorm.check(model, other, given, seconds=0)
    assert again.verdict == "differs"
    assert again.verification.measurement is not None
    assert again.verification.measurement.inputs == 1


@pytest.mark.parametrize("change", [largest_weight, swapped_channels, one_head])
def test_planted_in_a_rescaled_and_permuted_copy(change: Any) -> None:
    model, other, example = changed(change)
    traced = open_model(other, example).network
    moved = rescale_torch(other, equivalent_weights(traced, seed=5))
    assert graphnorm.check(model, moved, example, seconds=4).verdict == "differs"


@pytest.mark.parametrize("change", [largest_weight, epsilon, one_head])
def test_planted_across_formats(change: Any) -> None:
    model, other, example = changed(change)
    report = graphnorm.check(model, exported(other, example), example, seconds=4)
    assert report.verdict == "differs"


def test_the_first_layer_is_named() -> None:
    model, other, example = changed(largest_weight)
    assert "square" in graphnorm.check(model, other, example).layer
    with torch.no_grad():
        other.two.bias[0] += 0.1
    assert " two" in graphnorm.check(model, other, example).layer


def test_a_counterexample_keeps_names_that_numpy_uses_itself(tmp_path: Path) -> None:
    arrays = {"file": np.arange(3.0), "allow_pickle": np.ones((1, 2), np.float16)}
    report = CheckReport(Verification(Verdict.DIFFERS), counterexample=arrays)
    report.save_counterexample(tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        assert {name: array.tolist() for name, array in found.items()} == {
            "file": [0.0, 1.0, 2.0],
            "allow_pickle": [[1.0, 1.0]],
        }


def test_a_counterexample_is_small() -> None:
    model: Any = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 1))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight[0, 5] += 1.0
    report = graphnorm.check(model, other, torch.randn(1, 16))
    assert report.counterexample is not None
    (array,) = report.counterexample.values()
    assert np.count_nonzero(array) <= 4


def test_gradient_ascent_finds_what_few_inputs_reach() -> None:
    class Rare(nn.Module):
        def __init__(self, extra: float) -> None:
            super().__init__()
            self.extra = extra

        def forward(self, x: Tensor) -> Tensor:
            # Random inputs are nearly orthogonal to the direction that opens the gate.
            direction = torch.linspace(-1, 1, 64).expand_as(x)
            gate = torch.exp(20 * (F.cosine_similarity(x, direction, dim=1) - 0.7))
            return torch.cat([x + 1, self.extra * gate[:, None]], dim=1)

    torch.manual_seed(0)
    report = graphnorm.check(Rare(0.0), Rare(1e-3), torch.randn(1, 64), seconds=8)
    assert report.verdict == "differs"
    assert report.search is not None
    assert report.search.method == "gradient ascent"
    assert "found by gradient ascent" in report.verification.failure


def test_there_must_be_a_counterexample_to_save(tmp_path: Path) -> None:
    model, example = tied()
    report = graphnorm.check(model, model, example)
    with pytest.raises(ValueError, match="no counterexample"):
        report.save_counterexample(tmp_path / "x.npz")
