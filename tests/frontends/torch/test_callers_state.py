"""What belongs to the caller is as it was after a call: generators, flags, modes, filters; in threads too."""

from __future__ import annotations

import copy
import random
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.frontends.torch.state import LOCK, alone, quiet
from graphnorm.util.callers_state import kept_filters


class Restless(nn.Module):
    """A forward that draws from all generators and sets flags."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        random.random()
        np.random.rand()  # noqa: NPY002
        torch.set_float32_matmul_precision("medium")
        warnings.simplefilter("ignore", ImportWarning)
        return self.last(self.drop(torch.relu(self.first(x))))


def state(model: nn.Module) -> dict[str, Any]:
    modules = dict(model.named_modules())
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
        "python": random.getstate(),
        "filters": list(warnings.filters),
        "flags": (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.get_float32_matmul_precision(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_default_device(),
            torch.is_autocast_enabled("cpu"),
        ),
        "numpy errors": np.geterr(),
        "modes": {name: module.training for name, module in modules.items()},
        "hooks": {name: list(module._forward_hooks) for name, module in modules.items()},
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "weights": {n: (id(p), p._version, p.requires_grad, id(p.grad)) for n, p in model.named_parameters()},
    }


CALLS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "trace": graphnorm.trace,
    "canonicalize": graphnorm.canonicalize,
    "exact": lambda model, x: graphnorm.canonicalize(model, x, mode="exact"),
    "permute": lambda model, x: graphnorm.canonicalize(model, x, permute=True),
    "check": lambda model, x: graphnorm.check(model, changed(model), x, seconds=0.5),
    "ENorm": lambda model, x: graphnorm.ENorm(model, torch.optim.SGD(model.parameters(), lr=0.1), x),
    "ImplicitENorm": lambda model, x: graphnorm.ImplicitENorm(copy.deepcopy(model), x),
    "PathSGD": lambda model, x: graphnorm.PathSGD(model, x, lr=0.1),
    "fails": lambda model, x: refused(model, x[0, :1]),
}


def refused(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(graphnorm.ExportError):
        graphnorm.trace(model, x)


def changed(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_parameter("first.weight")[0] += 1
    return other


@pytest.mark.parametrize("call", CALLS)
def test_nothing_of_the_callers_changes(call: str) -> None:
    model, x = Restless(), torch.randn(2, 3)
    model.first.eval()
    model.drop.train(call != "permute")  # dropout falls elsewhere then
    model.first.register_forward_hook(lambda *_: None)
    model(x).sum().backward()
    warnings.simplefilter("default", ImportWarning)
    torch.set_float32_matmul_precision("high")
    before = state(model)
    try:
        CALLS[call](model, x)
        after = state(model)
    finally:
        torch.set_float32_matmul_precision("highest")
    for name, value in before.items():
        assert after[name] == value, name


def test_filters_that_imports_add() -> None:
    """In a fresh process, where NumPy, SciPy, SymPy and torch's exporter are imported by the call."""
    code = """
import torch, warnings
import graphnorm
before = list(warnings.filters)
graphnorm.canonicalize(torch.nn.Linear(2, 2), torch.ones(1, 2))
assert warnings.filters == before, warnings.filters
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_filters_of_overlapping_calls() -> None:
    """The last that ends restores, whichever began first."""
    before = list(warnings.filters)
    first, second = kept_filters(), kept_filters()
    first.__enter__()
    warnings.simplefilter("ignore", ImportWarning)
    second.__enter__()
    first.__exit__(None, None, None)
    assert list(warnings.filters) != before
    second.__exit__(None, None, None)
    assert list(warnings.filters) == before


class Depends(nn.Module):
    """What ``torch.export`` cannot trace, and says so at length."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    "made", [Depends, lambda: torch.fx.symbolic_trace(nn.Linear(5, 2))], ids=["value", "fx"]
)
def test_a_failed_export_writes_nothing(
    made: Callable[[], nn.Module], capfd: pytest.CaptureFixture[str]
) -> None:
    graphnorm.trace(nn.Linear(3, 2), torch.ones(2, 3))  # what imports write
    capfd.readouterr()
    with pytest.raises(graphnorm.ExportError):
        graphnorm.trace(made(), torch.ones(2, 3))
    assert capfd.readouterr().err == ""


def test_what_a_model_writes_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet():
        print("said by the model", file=sys.stderr)
        thread = threading.Thread(target=lambda: print("of another thread", file=sys.stderr))
        thread.start()
        thread.join()
        assert capsys.readouterr().err == "of another thread\n"
    assert capsys.readouterr().err == "said by the model\n"


def test_generators_start_from_the_same_state() -> None:
    drawn = []
    for _ in range(2):
        with alone():
            drawn.append((torch.rand(1).item(), random.random(), np.random.rand()))  # noqa: NPY002
        torch.rand(7)
    assert drawn[0] == drawn[1]


# Threads.


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 4)
    return nn.Sequential(*layers)


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Threads take turns a thousand times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("shared", [True, False], ids=["one module", "a module each"])
def test_threads(shared: bool) -> None:
    x = torch.randn(3, 6)
    models = [network(0)] * 4 if shared else [network(seed) for seed in range(4)]
    kept = [copy.deepcopy(model.state_dict()) for model in models]
    alone_ = [graphnorm.canonicalize(copy.deepcopy(model), x) for model in models]
    state_before = torch.get_rng_state()

    def work(model: nn.Module) -> Any:
        assert graphnorm.trace(model, x).dimension == 12
        return graphnorm.canonicalize(model, x)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, models))
    assert torch.equal(torch.get_rng_state(), state_before)
    for model, before, result, expected in zip(models, kept, results, alone_, strict=True):
        assert all(isinstance(p, nn.Parameter) for p in model.parameters())
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert result.report.verification.verdict == expected.report.verification.verdict
        for name, value in result.model.state_dict().items():
            assert torch.equal(value, expected.model.state_dict()[name])


def test_export_waits_for_the_lock() -> None:
    model, x, done = network(0), torch.randn(3, 6), threading.Event()
    thread = threading.Thread(target=lambda: done.set() if graphnorm.trace(model, x) else None)
    with LOCK:
        thread.start()
        assert not done.wait(0.5)
    thread.join()
    assert done.is_set()
