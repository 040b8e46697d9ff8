"""Implicit ENorm: the function stays, the penalty balances, folding gives a plain module."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.errors import InputError
from graphnorm.training.implicit import Rescaled
from tests.support.training_cases import build, images, outputs, worst


def perturb(implicit: graphnorm.ImplicitENorm) -> None:
    with torch.no_grad():
        implicit.scales.z.normal_(std=0.3)


@pytest.mark.parametrize("name", ["fc15", "cifar_nv", "resnet18_bn", "resnet18_c", "vit"])
def test_the_log_scales_do_not_change_the_function(name: str) -> None:
    model, x = build(name), images().double()
    before = outputs(model, x)
    keys = list(model.state_dict())
    implicit = graphnorm.ImplicitENorm(model, x)
    assert worst(outputs(model, x), before) < 1e-10
    perturb(implicit)
    assert worst(outputs(model, x), before) < 1e-10
    changed = copy.deepcopy(dict(model.named_parameters()))
    implicit.fold()
    assert list(model.state_dict()) == keys
    assert worst(outputs(model, x), before) < 1e-10
    assert len(changed) > len(list(model.parameters()))


def test_a_wrong_parametrisation_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = build("resnet18_c"), images().double()
    before = outputs(model, x)
    implicit = graphnorm.ImplicitENorm(model, x)
    perturb(implicit)
    right = Rescaled.log_scale
    first = implicit._made[0][2]
    monkeypatch.setattr(Rescaled, "log_scale", lambda self: right(self) + 0.01 * (self is first))
    assert worst([model(x)], before[:1]) > 1e-4


def test_the_penalty_is_the_norm_of_the_effective_weights() -> None:
    model, x = build("fc15"), images().double()
    implicit = graphnorm.ImplicitENorm(model, x, p=3.0, c=1.1)
    perturb(implicit)
    layers = [m for m in model if isinstance(m, nn.Linear)]
    expected = sum(
        1.1 ** (3 * after) * m.weight.abs().pow(3).sum() for after, m in enumerate(reversed(layers))
    )
    torch.testing.assert_close(implicit.penalty(), expected)


def test_the_data_term_leaves_the_log_scales_alone_and_the_penalty_balances() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)
    ).double()
    x = torch.randn(5, 6).double()
    explicit = copy.deepcopy(model)
    implicit = graphnorm.ImplicitENorm(model, x)
    (gradient,) = torch.autograd.grad(model(x).square().mean(), implicit.scales.z)
    assert float(gradient.abs().max()) < 1e-12
    optimizer = torch.optim.SGD([implicit.scales.z], lr=0.02, momentum=0.9)
    for _ in range(2000):
        optimizer.zero_grad()
        torch.autograd.backward(implicit.penalty())
        optimizer.step()
    implicit.fold()
    enorm = graphnorm.ENorm(explicit, torch.optim.SGD(explicit.parameters()), x, cycles=500)
    enorm.step()
    for one, two in zip(model.parameters(), explicit.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9)


def test_parameter_groups_have_their_own_rates_and_train() -> None:
    torch.manual_seed(0)
    model, x = build("resnet18_bn"), images().double()
    implicit = graphnorm.ImplicitENorm(model, x)
    groups = implicit.parameter_groups(scale_lr=0.5, weight_decay=1e-3)
    optimizer = torch.optim.SGD(groups, lr=0.01)
    assert [g["lr"] for g in optimizer.param_groups] == [0.01, 0.5]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [1e-3, 0.0]
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in model.parameters()}
    first = float(implicit.penalty().detach())
    for _ in range(3):
        optimizer.zero_grad()
        (-model(x).log_softmax(1)[:, 0].mean() + 1e-3 * implicit.penalty()).backward()
        optimizer.step()
    assert implicit.scales.z.abs().max() > 0
    assert float(implicit.penalty().detach()) < first


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
            self.last = nn.Linear(6, 2)
            self.three.weight = self.two.weight

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.two(torch.relu(self.one(x))))
            return self.last(torch.relu(self.three(y)))

    torch.manual_seed(0)
    model, x = Tied().double(), torch.randn(3, 4).double()
    before = outputs(model, x)
    implicit = graphnorm.ImplicitENorm(model, x)
    perturb(implicit)
    assert worst(outputs(model, x), before) < 1e-12
    implicit.fold()
    assert model.two.weight is model.three.weight
    assert worst(outputs(model, x), before) < 1e-12


def test_a_model_without_freedom_is_an_error() -> None:
    with pytest.raises(InputError, match="Linear has no weight that can be rescaled"):
        graphnorm.ImplicitENorm(nn.Linear(2, 2), torch.randn(1, 2))
