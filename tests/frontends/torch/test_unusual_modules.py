"""Modules off the beaten track: layers of width 0, in-place operators on lists, observers, pruned weights."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import graphnorm


def kept(model: nn.Module, x: Tensor, dimension: int) -> graphnorm.Result:
    """Canonicalise, and compare outputs in float64."""
    result = graphnorm.canonicalize(model, x)
    assert result.report.verification.verdict == "proved"
    assert result.graph.dimension == dimension
    assert not any("defect" in remark for remark in result.report.remarks)
    with torch.no_grad():
        assert torch.allclose(model(x), result.model(x), rtol=1e-9, atol=1e-12)
    return result


X = torch.randn(5, 3, dtype=torch.float64)


class Beside(nn.Module):
    """A path of width 0 beside an ordinary one."""

    def __init__(self, join: str) -> None:
        super().__init__()
        self.a, self.b, self.join = nn.Linear(3, 4), nn.Linear(3, 0), join
        self.last, self.empty = nn.Linear(4, 2), nn.Linear(0, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, none = torch.relu(self.a(x)), torch.relu(self.b(x))
        if self.join == "sum":
            return self.last(h) + self.empty(none)
        if self.join == "split":
            return self.last(torch.split(h, [4, 0], 1)[0])
        return self.last(torch.cat([none, h], 1))


@pytest.mark.parametrize("join", ["cat", "sum", "split"])
def test_width_zero_beside_others(join: str) -> None:
    kept(Beside(join).double(), X, 4)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
def test_objective_of_width_zero(p: float) -> None:
    result = graphnorm.canonicalize(Beside("cat").double(), X, p=p)
    assert result.report.objective["after"] <= result.report.objective["before"]


class Lists(nn.Module):
    def __init__(self, change: Callable[[list[Tensor]], Any]) -> None:
        super().__init__()
        self.a, self.b, self.last, self.change = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2), change

    def forward(self, x: Tensor) -> Tensor:
        both = [torch.relu(self.a(x)), torch.relu(self.b(x))]
        made = self.change(both)
        first, second = both if made is None else made
        return self.last(first) + self.last(second)


CHANGES: dict[str, tuple[Callable[[list[Tensor]], Any], int]] = {
    "mul_": (lambda both: torch._foreach_mul_(both, 3.0), 4),
    "mul": (lambda both: torch._foreach_mul(both, 3.0), 4),
    "neg_": (torch._foreach_neg_, 4),
    "div_ by numbers": (lambda both: torch._foreach_div_(both, [2.0, 4.0]), 4),
    "add_ of each other": (lambda both: torch._foreach_add_(both, both[::-1]), 4),
    "exp_": (torch._foreach_exp_, 0),
    "sqrt": (torch._foreach_sqrt, 4),
    "copy_": (lambda both: torch._foreach_copy_(both, both[::-1]), 4),
    "a view of one": (lambda both: torch._foreach_mul_([both[0], both[1].view(-1)], 2.0) and None, 4),
}


@pytest.mark.parametrize("name", CHANGES)
def test_operators_on_lists(name: str) -> None:
    change, dimension = CHANGES[name]
    graph = graphnorm.trace(Lists(change).double(), X)
    assert graph.dimension <= dimension
    kept(Lists(change).double(), X, graph.dimension)


def observed(*layers: nn.Module) -> nn.Module:
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = prepare_qat_fx(nn.Sequential(*layers), get_default_qat_qconfig_mapping(), (X,))
    return made


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
def test_observers(train: bool) -> None:
    model = observed(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).train(train)
    x = X.float()
    model(x)
    before = copy.deepcopy(model.state_dict())
    result = graphnorm.canonicalize(model, x)
    assert result.graph.dimension >= 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.allclose(copy.deepcopy(model)(x), result.model(x), rtol=1e-4, atol=1e-5)


def test_observers_switched_off() -> None:
    """Its input has the name of a Python builtin."""
    model = observed(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    model(X.float())
    model.apply(torch.ao.quantization.disable_observer)
    assert graphnorm.trace(model, X.float()).network.inputs == ("input",)


CUTS: dict[str, Callable[[nn.Sequential], Any]] = {
    "l1": lambda model: prune.l1_unstructured(model[0], "weight", 0.3),  # type: ignore[no-untyped-call]
    "channels": lambda model: prune.ln_structured(model[2], "weight", 0.5, n=1, dim=0),  # type: ignore[no-untyped-call]
    "twice": lambda model: [prune.random_unstructured(model[0], "weight", 0.3) for _ in range(2)],  # type: ignore[no-untyped-call]
    "identity": lambda model: prune.identity(model[2], "bias"),  # type: ignore[no-untyped-call]
    "weight norm": lambda model: nn.utils.parametrizations.weight_norm(model[0]),
}


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("name", CUTS)
def test_pruned_modules(name: str, inplace: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    CUTS[name](model)
    with torch.no_grad():
        expected = model(X)
    result = graphnorm.canonicalize(model, X, inplace=inplace)
    assert result.report.verification.verdict == "proved"
    assert result.graph.dimension >= 10
    assert (result.model is model) == inplace
    with torch.no_grad():
        assert torch.allclose(result.model(X), expected, rtol=1e-9, atol=1e-12)
    assert parametrize.is_parametrized(result.model[0]) == (name == "weight norm")


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (3,), (2, 0, 3)])
def test_batches_of_none_and_one(shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    result = graphnorm.canonicalize(model, torch.randn(shape, dtype=torch.float64))
    assert result.graph.dimension == 8
    with torch.no_grad():
        assert torch.allclose(model(X), result.model(X), rtol=1e-9)
