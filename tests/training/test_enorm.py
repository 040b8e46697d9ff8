"""ENorm keeps the function at every step of a training loop, and lowers its objective."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.errors import InputError
from graphnorm.training.cycle import Cycle
from graphnorm.training.scaling import Scaling
from tests.support.training_cases import CASES, TinyViT, build, images, momentum, outputs, train_step, worst
from tools.experiments.networks import CifarNV, ResNet, fully_connected, resnet18_type_c


@pytest.mark.parametrize("name", CASES)
def test_function_is_kept_at_each_step(name: str) -> None:
    model = build(name)
    x = images().double()
    optimizer = momentum(model)
    enorm = graphnorm.ENorm(model, optimizer, x)
    for _ in range(3):
        train_step(model, optimizer, x + 0.1 * torch.randn_like(x))
        before, energy = outputs(model, x), enorm.energy()
        enorm.step()
        assert worst(outputs(model, x), before) < 1e-10
        assert enorm.energy() < energy


@pytest.mark.parametrize(
    ("name", "order"),
    [
        *((name, "layers") for name in ("fc15", "resnet18_bn", "resnet18_c", "cifar_nv", "vit")),
        *((name, "colours") for name in ("resnet18_c", "vit")),
    ],
)
def test_training_takes_the_same_way_in_function_space_if_the_state_moves_along(
    name: str, order: str
) -> None:
    """A step with rate 0 after a rescaling: momentum applied to moved weights is momentum moved."""
    model = build(name)
    x = images().double()
    optimizer = momentum(model)
    train_step(model, optimizer, x)
    other = copy.deepcopy(model)
    enorm = graphnorm.ENorm(model, optimizer, x, order=order)
    moments = {n: optimizer.state[p]["momentum_buffer"].clone() for n, p in model.named_parameters()}
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    enorm.step()
    moved = 0
    for n, p in model.named_parameters():
        # w * m is invariant: the inverse coefficient
        torch.testing.assert_close(p * optimizer.state[p]["momentum_buffer"], weights[n] * moments[n])
        moved += int(not torch.equal(p, weights[n]))
    assert moved > 3
    assert worst(outputs(model, x), outputs(other, x)) < 1e-10


def test_float32_stays_within_its_noise() -> None:
    model = build("resnet18_bn", torch.float32)
    x = images()
    optimizer = momentum(model)
    enorm = graphnorm.ENorm(model, optimizer, x)
    for _ in range(5):
        train_step(model, optimizer, x)
        before = outputs(model, x)
        exact = [out.float() for out in outputs(copy.deepcopy(model).double(), x.double())]
        enorm.step()
        assert worst(outputs(model, x), exact) < 3 * worst(before, exact) + 2e-6


FULL: dict[str, Callable[[], nn.Module]] = {
    "resnet18_c": resnet18_type_c,
    "resnet18_bn": lambda: ResNet(norm="batch", classes=10, stem=False),
    "cifar_nv": CifarNV,
    "fc15": lambda: fully_connected(15),
    "vit_tiny": lambda: TinyViT(width=192, depth=12, heads=3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_whole_networks_keep_their_function_while_they_train(name: str) -> None:
    """float64 to 1e-10, and a float32 loop within float32's noise."""
    torch.manual_seed(0)
    narrow = FULL[name]().train()
    for module in narrow.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.05)
    wide, x = copy.deepcopy(narrow).double(), images()
    for model in (wide, narrow):
        data = x.to(next(model.parameters()).dtype)
        optimizer = momentum(model)
        enorm = graphnorm.ENorm(model, optimizer, data)
        for _ in range(5):
            train_step(model, optimizer, data + 0.1 * torch.randn_like(data))
            before = outputs(model, data)
            exact = outputs(copy.deepcopy(model).double(), x.double())
            energy = enorm.energy()
            enorm.step()
            after = outputs(model, data)
            assert enorm.energy() < energy
            if model is wide:
                assert worst(after, before) < 1e-10
            else:
                after, before, exact = ([o.double() for o in found] for found in (after, before, exact))
                assert worst(after, exact) < 3 * worst(before, exact) + 2e-6


def test_training_mode_batch_norm_pins_its_input_and_frozen_ones_move_their_mean() -> None:
    x = images().double()
    model = build("resnet18_bn")
    enorm = graphnorm.ENorm(model, momentum(model), x)
    assert not any("running_mean" in name for name in enorm.symmetries.shapes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.get_buffer("running_mean").normal_()
    enorm = graphnorm.ENorm(model, momentum(model), x)
    assert any("running_mean" in name for name in enorm.symmetries.shapes)
    before = outputs(model, x)[1]
    enorm.step()
    assert worst([outputs(model, x)[1]], [before]) < 1e-10


class OtherInEvaluation(nn.Module):
    """Homogeneous in training mode, not in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        return self.two(torch.relu(y) if self.training else torch.tanh(y))


def test_what_one_mode_forbids_is_not_done() -> None:
    model = OtherInEvaluation().double()
    x = torch.randn(3, 4).double()
    enorm = graphnorm.ENorm(model, momentum(model), x)
    assert enorm.symmetries.count == 0
    before = outputs(model, x)
    enorm.step()
    assert worst(outputs(model, x), before) == 0


def test_dead_neurons_and_zero_layers_are_left_alone() -> None:
    model = build("fc15")
    with torch.no_grad():
        model[1].weight[3] = 0.0
        model[3].weight[:, 5] = 0.0
        model[5].weight.zero_()
    x = images().double()
    row = model[3].weight[3].clone()
    before = outputs(model, x)
    enorm = graphnorm.ENorm(model, momentum(model), x, cycles=5)
    for _ in range(20):
        enorm.step()
    assert all(p.isfinite().all() for p in model.parameters())
    assert worst(outputs(model, x), before) < 1e-10
    assert row.isfinite().all()


def test_biases_at_any_depth_stay_finite() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        *[m for _ in range(40) for m in (nn.Linear(8, 8), nn.ReLU())], nn.Linear(8, 2)
    ).double()
    x = torch.randn(5, 8).double()
    optimizer = momentum(model, lr=0.5)
    enorm = graphnorm.ENorm(model, optimizer, x)
    for _ in range(50):
        train_step(model, optimizer, x)
        before = outputs(model, x)
        enorm.step()
        assert worst(outputs(model, x), before) < 1e-9
    assert all(p.isfinite().all() for p in model.parameters())


def test_coefficients_are_bounded_when_asked() -> None:
    x = torch.randn(3, 4)
    model: Any = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].weight.mul_(1e6)
    start = model[0].weight.detach().clone()
    graphnorm.ENorm(model, momentum(model), x, max_coefficient=2.0).step()
    torch.testing.assert_close(model[0].weight, start / 2)


def test_extreme_weights_stay_finite() -> None:
    x = torch.randn(3, 4)
    model: Any = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].weight.mul_(1e25)  # its squares overflow
        model[2].weight.mul_(1e-25)
    before = outputs(model, x)
    enorm = graphnorm.ENorm(model, momentum(model), x, cycles=3)
    for _ in range(5):
        enorm.step()
    assert all(p.isfinite().all() for p in model.parameters())
    assert worst(outputs(model, x), before) < 1e-5


@pytest.mark.parametrize("name", ["fc15", "cifar_nv"])
@pytest.mark.parametrize("wrong", ["weights", "biases"])
def test_a_wrong_step_is_seen(name: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above do fail if one layer is off by 1 %, or biases stay behind."""
    model = build(name)
    x = images().double()
    optimizer = momentum(model)
    enorm = graphnorm.ENorm(model, optimizer, x)
    train_step(model, optimizer, x)
    before = outputs(model, x)
    if wrong == "biases":
        monkeypatch.setattr(Scaling, "apply", lambda self, values: None)
    else:
        right = Cycle._multiply

        def off(self: Cycle, sides: Any, masses: Any, z: Tensor) -> None:
            right(self, sides, masses, z)
            if (0, 0) in sides:
                masses[0].mul_(1.01)

        monkeypatch.setattr(Cycle, "_multiply", off)
    enorm.step()
    assert worst(outputs(model, x), before) > 1e-4


def test_a_step_that_raises_the_energy_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("fc15")
    enorm = graphnorm.ENorm(model, momentum(model), images().double(), cycles=2)
    right = Cycle.run
    monkeypatch.setattr(Cycle, "run", lambda self, *a, **k: -right(self, *a, **k))
    energy = enorm.energy()
    enorm.step()
    assert enorm.energy() > energy


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"p": 0.0}, "p must be a positive number"),
        ({"c": float("nan")}, "c must be a positive number"),
        ({"cycles": 0}, "cycles must be a positive integer"),
        ({"every": 0}, "every must be a positive integer"),
        ({"order": "random"}, "order must be one of layers, colours"),
        ({"max_coefficient": 1.0}, "max_coefficient must be above 1"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], match: str) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(InputError, match=match):
        graphnorm.ENorm(model, momentum(model), torch.randn(1, 2), **options)
