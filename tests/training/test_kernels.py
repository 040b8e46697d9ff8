"""The compiled step equals the plain one; on CUDA it equals the CPU's and can be captured as a graph."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import nn

import graphnorm
from graphnorm.training.masses import power_sums, powers
from tests.support.training_cases import build, images, momentum, train_step


def both_ways(name: str, cycles: int, p: float) -> None:
    x = images().double()
    plain = build(name)
    fused = copy.deepcopy(plain)
    optimizers = [momentum(model) for model in (plain, fused)]
    steps = [
        graphnorm.ENorm(plain, optimizers[0], x, p=p, cycles=cycles, order="colours"),
        graphnorm.ENorm(fused, optimizers[1], x, p=p, cycles=cycles, order="colours", compile=True),
    ]
    for _ in range(2):
        for model, optimizer, enorm in zip((plain, fused), optimizers, steps, strict=True):
            train_step(model, optimizer, x)
            enorm.step()
    for one, two in zip(plain.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            optimizers[0].state[one]["momentum_buffer"],
            optimizers[1].state[two]["momentum_buffer"],
            rtol=1e-9,
            atol=1e-12,
        )


@pytest.mark.parametrize(("name", "cycles", "p"), [("cifar_nv", 1, 2.0), ("vit", 2, 3.0)])
def test_the_fused_step_is_the_same_step(
    name: str, cycles: int, p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphnorm.training.compiled.covers", lambda *arguments: False)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    both_ways(name, cycles, p)


@pytest.mark.slow
def test_the_fused_step_compiled_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphnorm.training.compiled.covers", lambda *arguments: False)
    both_ways("resnet18_c", 1, 2.0)


@pytest.mark.parametrize("p", [1.0, 2.0, 2.5])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_power_sums(p: float, axis: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(7, 11, dtype=dtype)[:, 2:9]
    expected = matrix.double().abs().pow(p).sum(dim=1 - axis)
    torch.testing.assert_close(power_sums(matrix, axis, p).double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(powers(matrix, p).double(), matrix.double().abs().pow(p), rtol=1e-5, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize(("order", "fused"), [("layers", False), ("colours", False), ("colours", True)])
def test_cuda_gives_the_weights_of_the_cpu(order: str, fused: bool) -> None:
    x = images().double()
    host = build("resnet18_bn")
    device = copy.deepcopy(host).cuda()
    graphnorm.ENorm(host, momentum(host), x, order=order, cycles=2).step()
    graphnorm.ENorm(device, momentum(device), x.cuda(), order=order, cycles=2, compile=fused).step()
    for one, two in zip(host.parameters(), device.parameters(), strict=True):
        torch.testing.assert_close(one, two.cpu(), rtol=1e-9, atol=1e-12)


@pytest.mark.gpu
def test_the_step_is_captured_as_a_cuda_graph() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        *[m for _ in range(5) for m in (nn.Linear(32, 32), nn.ReLU())], nn.Linear(32, 4)
    ).cuda()
    other = copy.deepcopy(model)
    x = torch.randn(3, 32, device="cuda")
    plain, captured = (graphnorm.ENorm(net, momentum(net), x) for net in (model, other))
    step = captured._compile()
    start = [p.detach().clone() for p in other.parameters()]
    with torch.no_grad():
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(side):
            step.run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step.run()
        for parameter, value in zip(other.parameters(), start, strict=True):
            parameter.copy_(value)
    for _ in range(3):
        graph.replay()
        plain.step()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)
