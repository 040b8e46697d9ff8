"""The step that Numba compiles equals the general one."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.training.onepass import OnePass
from tests.support.training_cases import build, images, momentum, outputs, train_step, worst

SGD: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "nesterov": True}


def one_pass(enorm: Any) -> OnePass | None:
    found: OnePass | None = enorm._compile()._one_pass
    return found


def tensors_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    state = [value for entry in optimizer.state.values() for value in entry.values() if value.dim()]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [*model.parameters(), *model.buffers(), *state, *gradients]


def both(
    model: nn.Module, x: Tensor, kind: Any = torch.optim.SGD, steps: int = 2, given: Any = SGD, **options: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors after some training steps with the general step and with the one in one pass."""
    found = []
    for compiled in (False, True):
        trained = copy.deepcopy(model)
        optimizer = kind(trained.parameters(), **given)
        enorm = graphnorm.ENorm(trained, optimizer, x, compile=compiled, **options)
        for _ in range(steps):
            train_step(trained, optimizer, x)
            enorm.step()
        assert (one_pass(enorm) is not None) == compiled
        found.append(tensors_of(trained, optimizer))
    return found[0], found[1]


def close(one: list[Tensor], two: list[Tensor], tolerance: float) -> None:
    assert len(one) == len(two)
    for first, second in zip(one, two, strict=True):
        size = float(first.detach().abs().max()) if first.numel() else 0.0
        torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("order", ["layers", "colours"])
@pytest.mark.parametrize(("name", "cycles"), [("fc15", 1), ("cifar_nv", 2), ("resnet18_c_bn", 1), ("vit", 3)])
def test_the_same_step(name: str, cycles: int, order: str) -> None:
    close(*both(build(name), images().double(), cycles=cycles, order=order), 1e-10)


def test_the_same_step_in_float32() -> None:
    close(*both(build("cifar_nv", torch.float32), images()), 1e-4)


@pytest.mark.parametrize("name", ["resnet18_bn", "resnet18_gn", "vit"])
def test_the_function_stays(name: str) -> None:
    model, x = build(name), images().double()
    optimizer = momentum(model)
    train_step(model, optimizer, x)
    before, weights = outputs(model, x), [p.detach().clone() for p in model.parameters()]
    enorm = graphnorm.ENorm(model, optimizer, x, compile=True)
    energy = enorm.energy()
    enorm.step()
    assert one_pass(enorm) is not None
    assert enorm.energy() < energy
    assert (
        max(float((p - w).detach().abs().max()) for p, w in zip(model.parameters(), weights, strict=True))
        > 1e-3
    )
    assert worst(before, outputs(model, x)) < 1e-10


def test_second_moments_and_pending_gradients() -> None:
    given = {"lr": 1e-3, "amsgrad": True}
    close(*both(build("fc15"), images().double(), torch.optim.AdamW, given=given), 1e-8)


def test_bounded_coefficients_and_asymmetry() -> None:
    close(*both(build("cifar_nv"), images().double(), max_coefficient=1.01, c=1.2), 1e-10)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads(threads: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        close(*both(build("cifar_nv"), images().double()), 1e-10)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan"), 1e-30])
def test_rows_that_are_dead_or_not_finite(value: float) -> None:
    torch.manual_seed(0)
    layers = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3)
    x = torch.randn(7, 6, dtype=torch.float64)
    found = []
    for compiled in (False, True):
        one, two, three = copy.deepcopy(layers)
        model = nn.Sequential(one, nn.ReLU(), two, nn.ReLU(), three).double()
        enorm = graphnorm.ENorm(model, torch.optim.SGD(model.parameters(), lr=0.1), x, compile=compiled)
        with torch.no_grad():
            one.weight[2], two.weight[1] = value, value
            three.weight[:, 0] = value
        enorm.step()
        assert (one_pass(enorm) is not None) == compiled
        found.append([p.detach() for p in model.parameters()])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=0, equal_nan=True)


def test_one_matrix_of_many_rows_and_one_of_many_columns() -> None:
    """Sums of several runs and blocks, and rows that threads do not share evenly."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 1301), nn.ReLU(), nn.Linear(1301, 5), nn.ReLU(), nn.Linear(5, 2))
    close(*both(model.double(), torch.randn(4, 3, dtype=torch.float64)), 1e-10)


@pytest.mark.parametrize(
    ("options", "dtype"),
    [({"p": 3.0}, torch.float64), ({"exact": True}, torch.float64), ({}, torch.bfloat16)],
)
def test_what_it_does_not_take_goes_the_general_way(
    options: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    model = build("fc15", dtype)
    optimizer = momentum(model)
    enorm = graphnorm.ENorm(model, optimizer, images().to(dtype), compile=True, **options)
    before = enorm.energy()
    enorm.step()
    assert one_pass(enorm) is None
    assert enorm.energy() < before


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    model = build("fc15")
    enorm = graphnorm.ENorm(model, momentum(model), images().double(), compile=True)
    before = enorm.energy()
    enorm.step()
    assert one_pass(enorm) is None
    assert enorm.energy() < before


def test_a_wrong_table_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above fails if one share of a sum is off."""
    original = OnePass.__init__

    def wrong(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        self._packed.floats[0] *= 1.001

    monkeypatch.setattr(OnePass, "__init__", wrong)
    with pytest.raises(AssertionError):
        close(*both(build("cifar_nv"), images().double()), 1e-10)


def small(compiled: bool = True) -> tuple[nn.Sequential, graphnorm.ENorm]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    return model, graphnorm.ENorm(model, momentum(model), x, compile=compiled)


def test_autograd_sees_that_the_weights_changed() -> None:
    """Gradients through a graph of the old weights would be wrong."""
    model, enorm = small()
    loss = model(torch.randn(3, 4, dtype=torch.float64)).square().mean()
    enorm.step()
    assert one_pass(enorm) is not None
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_numba_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba refuses a NumPy that it does not know by an ImportError."""
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    _, enorm = small()
    with pytest.warns(UserWarning, match="Numba cannot be used"):
        before = enorm.energy()
    enorm.step()
    assert one_pass(enorm) is None
    assert enorm.energy() < before


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_copy_goes_on(copied: Callable[[Any], Any], compiled: bool) -> None:
    model, enorm = small(compiled)
    enorm.step()
    other, twin = copied((model, enorm))
    mine, copies = list(model.parameters()), list(other.parameters())
    for scaled in (mine[2], copies[2]):
        with torch.no_grad():
            scaled[1] *= 9.0
    before = mine[0].detach().clone()
    enorm.step()
    assert not torch.equal(before, mine[0])
    assert torch.equal(before, copies[0])
    twin.step()
    assert (one_pass(twin) is not None) == compiled
    close(list(other.parameters()), list(model.parameters()), 1e-14)


FORK = """
import os
from tests.training.test_onepass import one_pass, small
import torch
torch.set_num_threads({threads})
model, enorm = small()
enorm.step()
assert one_pass(enorm) is not None
child = os.fork()
if not child:
    with torch.no_grad():
        model[2].weight[1] *= 9.0
    before = enorm.energy()
    enorm.step()
    os._exit(0 if enorm.energy() < before else 3)
raise SystemExit(os.waitpid(child, 0)[1] != 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork()")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_process(threads: int) -> None:
    """GNU OpenMP would end it."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", FORK.format(threads=threads)], check=True, env=environment)
