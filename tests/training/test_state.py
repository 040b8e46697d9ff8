"""What moves with the weights: optimizer state, gradients, copies; what never does: frozen parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, swa_utils
from torch.optim.swa_utils import AveragedModel

import graphnorm
from graphnorm.errors import InputError
from graphnorm.training.state import EXPONENTS, register_optimizer
from graphnorm.training.symmetry import find_symmetries
from tests.support.training_cases import build, images, momentum, outputs, train_step, worst


class Lion(Optimizer):
    """Chen et al. 2023: the sign of a moving average of gradients."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                average = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.add_(torch.sign(0.9 * average + 0.1 * p.grad), alpha=-group["lr"])
                average.lerp_(p.grad, 0.01)


ema: Any = swa_utils.get_ema_multi_avg_fn


def mlp(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).double()


Make = Callable[[Any], Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, eps=1e-30),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=1e-3, eps=1e-30, amsgrad=True),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-3, eps=1e-30),
    "radam": lambda p: torch.optim.RAdam(p, lr=1e-3, eps=1e-30),
    "adamax": lambda p: torch.optim.Adamax(p, lr=1e-3, eps=1e-30),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, eps=1e-30, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-3, eps=1e-30),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1e-3, eps=1e-30),
    "rprop": lambda p: torch.optim.Rprop(p, lr=1e-3),
    "asgd": lambda p: torch.optim.ASGD(p, lr=1e-3),
    "lion": lambda p: Lion(p, lr=1e-3),
}


def run(model: nn.Module, optimizer: Optimizer, data: list[Tensor]) -> None:
    for x in data:
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_what_it_would_be_with_all_gradients_taken_at_the_new_weights(name: str) -> None:
    """Gradients g at the old weights, g / d at the new ones: the optimizer's own state must agree."""
    torch.manual_seed(3)
    x = torch.randn(5, 6).double()
    data = [torch.randn(5, 6).double() for _ in range(4)]
    model = mlp()
    optimizer = OPTIMIZERS[name](model.parameters())
    gradients: list[list[Tensor]] = []
    with torch.no_grad():
        for parameter in model.parameters():  # the same weights throughout, so that gradients are comparable
            parameter.grad = torch.zeros_like(parameter)
    start = copy.deepcopy(model.state_dict())
    for batch in data:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
        optimizer.step()
        model.load_state_dict(start)
    optimizer.zero_grad()
    graphnorm.ENorm(model, optimizer, x).step()
    other = mlp()
    other.load_state_dict(model.state_dict())
    fresh = OPTIMIZERS[name](other.parameters())
    factors = [p.detach() / start[n] for n, p in model.named_parameters()]
    for row in gradients:
        for p, g, d in zip(other.parameters(), row, factors, strict=True):
            p.grad = g / d
        fresh.step()
        other.load_state_dict(model.state_dict())
    assert max(float((d - 1).abs().max()) for d in factors) > 0.1
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        for key, value in optimizer.state[p].items():
            if key == "ax":
                continue  # an average of weights, not of gradients
            torch.testing.assert_close(value, fresh.state[q][key], rtol=1e-9, atol=1e-25, msg=key)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_in_a_loop(name: str) -> None:
    model = mlp()
    x = torch.randn(5, 6).double()
    optimizer = OPTIMIZERS[name](model.parameters())
    enorm = graphnorm.ENorm(model, optimizer, x)
    for _ in range(5):
        train_step(model, optimizer, torch.randn(5, 6).double())
        before = outputs(model, x)
        enorm.step()
        assert worst(outputs(model, x), before) < 1e-10


def test_a_wrong_exponent_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPONENTS, "Adam", {"step": 0, "exp_avg": -1, "exp_avg_sq": -1})
    with pytest.raises(AssertionError, match="exp_avg_sq"):
        test_state_is_what_it_would_be_with_all_gradients_taken_at_the_new_weights("adam")


class Unknown(Lion):
    def __init__(self, params: Any) -> None:
        super().__init__(params)
        for p in self.param_groups[0]["params"]:
            self.state[p]["trace"] = torch.zeros_like(p)


def test_unknown_state_is_an_error_until_it_is_explained() -> None:
    x = torch.randn(2, 6).double()
    model = mlp()
    with pytest.raises(InputError, match=r"unknown state tensor 'trace' of '0.weight'"):
        graphnorm.ENorm(model, Unknown(model.parameters()), x).step()
    optimizer = Unknown(model.parameters())
    optimizer.state[model[0].weight]["trace"].fill_(1.0)
    start = model[0].weight.detach().clone()
    graphnorm.ENorm(model, optimizer, x, state={"trace": -1}).step()
    torch.testing.assert_close(optimizer.state[model[0].weight]["trace"], start / model[0].weight)


def test_an_unknown_optimizer_is_an_error_until_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {})

    model = mlp()
    with pytest.raises(InputError, match="Mine: graphnorm does not know"):
        graphnorm.ENorm(model, Mine(model.parameters()), torch.randn(2, 6).double())
    monkeypatch.setitem(EXPONENTS, "Mine", {})
    register_optimizer("Mine", {"trace": -1})
    graphnorm.ENorm(model, Mine(model.parameters()), torch.randn(2, 6).double()).step()


def test_state_of_another_shape_is_an_error() -> None:
    model = mlp()
    optimizer = momentum(model)
    optimizer.state[model[0].weight]["momentum_buffer"] = torch.zeros(12)
    with pytest.raises(InputError, match=r"state 'momentum_buffer' of '0.weight' is"):
        graphnorm.ENorm(model, optimizer, torch.randn(2, 6).double()).step()


def test_frozen_parameters_and_foreign_ones_are_never_touched() -> None:
    x = images().double()
    model = build("resnet18_c")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("blocks.0" not in name)
    trained = [p for n, p in model.named_parameters() if p.requires_grad and "fc" not in n]
    optimizer = torch.optim.SGD(trained, lr=0.01, momentum=0.9)
    before, start = outputs(model, x), {n: p.detach().clone() for n, p in model.named_parameters()}
    enorm = graphnorm.ENorm(model, optimizer, x)
    enorm.step()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, start[n])}
    assert changed
    assert not any("blocks.0" in n or "fc" in n for n in changed)
    assert worst(outputs(model, x), before) < 1e-10


def test_thawing_and_changing_modes_are_noticed() -> None:
    model = build("resnet18_bn")
    enorm = graphnorm.ENorm(model, momentum(model), images().double())
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).eval()
    with pytest.raises(InputError, match=r"module 'stem.1' is in another mode"):
        enorm.step()
    model.eval()
    enorm.step()
    next(model.parameters()).requires_grad_(False)
    with pytest.raises(InputError, match=r"'stem.0.weight': requires_grad changed"):
        enorm.step()


def test_parameter_groups_and_several_optimizers() -> None:
    model = mlp()
    x = torch.randn(5, 6).double()
    one = torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters()}],
        lr=0.01,
        momentum=0.9,
    )
    two = torch.optim.AdamW(model[4].parameters())
    enorm = graphnorm.ENorm(model, [one, two], x)
    for _ in range(3):
        model(x).square().mean().backward()
        for optimizer in (one, two):
            optimizer.step()
            optimizer.zero_grad()
        before = outputs(model, x)
        enorm.step()
        assert worst(outputs(model, x), before) < 1e-10


def test_gradients_that_are_being_accumulated_move_along() -> None:
    x, y = torch.randn(5, 6).double(), torch.randn(5, 6).double()
    model = mlp()
    optimizer = momentum(model)
    other = copy.deepcopy(model)
    enorm = graphnorm.ENorm(model, optimizer, x)
    model(x).square().mean().backward()
    enorm.step()
    model(y).square().mean().backward()
    (other(x).square().mean() + other(y).square().mean()).backward()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p * p.grad, q * q.grad)


def test_averages_of_the_weights_move_along() -> None:
    x = images().double()
    model = build("resnet18_bn")
    average = AveragedModel(model, multi_avg_fn=ema(0.9), use_buffers=True)
    optimizer = momentum(model)
    enorm = graphnorm.ENorm(model, optimizer, x)
    enorm.register_copy(average)
    for _ in range(3):
        train_step(model, optimizer, x + torch.randn_like(x))
        average.update_parameters(model)
        before = [outputs(model, x), outputs(average.module, x)]
        ratio = [p / q for p, q in zip(model.parameters(), average.module.parameters(), strict=True)]
        enorm.step()
        assert worst(outputs(model, x), before[0]) < 1e-10
        assert worst(outputs(average.module, x), before[1]) < 1e-10
        for r, p, q in zip(ratio, model.parameters(), average.module.parameters(), strict=True):
            torch.testing.assert_close(p / q, r)


def test_a_copy_of_another_structure_is_an_error() -> None:
    model = mlp()
    enorm = graphnorm.ENorm(model, momentum(model), torch.randn(2, 6).double())
    with pytest.raises(InputError, match="no parameter or buffer named"):
        enorm.register_copy(nn.Linear(6, 12))
    with pytest.raises(InputError, match=r"'0.weight' has shape \(11, 6\), expected \(12, 6\)"):
        enorm.register_copy(nn.Sequential(nn.Linear(6, 11)))


def test_resuming_is_exact() -> None:
    data = [torch.randn(5, 6).double() for _ in range(9)]

    def loop(model: nn.Module, optimizer: Optimizer, enorm: graphnorm.ENorm, part: list[Tensor]) -> None:
        for x in part:
            train_step(model, optimizer, x)
            enorm.step()

    model = mlp()
    optimizer = momentum(model)
    enorm = graphnorm.ENorm(model, optimizer, data[0], every=2)
    loop(model, optimizer, enorm, data[:5])
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), enorm.state_dict()))
    loop(model, optimizer, enorm, data[5:])
    other = mlp(1)
    resumed = momentum(other)
    again = graphnorm.ENorm(other, resumed, data[0], every=2)
    for thing, state in zip((other, resumed, again), saved, strict=True):
        thing.load_state_dict(state)
    loop(other, resumed, again, data[5:])
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
    with pytest.raises(InputError, match="this state is of ENorm with"):
        graphnorm.ENorm(other, resumed, data[0], every=3).load_state_dict(saved[2])


def test_given_symmetries_must_fit_the_optimizer() -> None:
    x = torch.randn(2, 6).double()
    model = mlp()
    found = find_symmetries(model, x)
    graphnorm.ENorm(model, momentum(model), found).step()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"'2.bias' is in no optimizer"):
        graphnorm.ENorm(model, optimizer, found)


def test_a_replaced_parameter_is_noticed() -> None:
    model = mlp()
    enorm = graphnorm.ENorm(model, momentum(model), torch.randn(2, 6).double())
    model[0].weight = nn.Parameter(model[0].weight.detach().clone())
    with pytest.raises(InputError, match=r"parameter '0.weight' is not the one that was given"):
        enorm.step()
