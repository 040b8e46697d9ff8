"""Weights that meet weights: each of them counts, once, so that the certified minimum is the minimum."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import graphnorm
from tests.support.networks.common import Function, linear, parameter


def squares(model: Any, names: tuple[str, ...]) -> float:
    state = model.state_dict()
    return sum(float(state[name].double().square().sum()) for name in names)


def slices(tensor: Tensor, axis: int) -> Tensor:
    """The norm of each slice along an axis."""
    return tensor.detach().transpose(0, axis).flatten(1).norm(dim=1)


def pairs(first: Tensor, i: int, second: Tensor, j: int) -> float:
    """The least |a|^2 + |b|^2 where slice k of one may grow by what slice k of the other shrinks by."""
    return 2 * float((slices(first, i) * slices(second, j)).sum())


def attention(s: Any, x: Tensor) -> Tensor:
    q, k = s.to_q(s.queries), s.to_k(x)
    return F.scaled_dot_product_attention(q[None, None], k[None, None], x[None, None])[0, 0]


Least = Callable[[Any], float]
Case = tuple[Callable[[], nn.Module], tuple[str, ...], Least]
# Network, what is counted, and its least sum of squares: as all ends are pinned, a sum over channels.
CASES: dict[str, Case] = {
    "transposed convolution of a map": (
        lambda: Function(
            lambda s, x: torch.tanh(F.conv_transpose1d(s.q, s.w) + x.sum()), q=parameter(1, 4, 5),
            w=parameter(4, 2, 3),
        ),
        ("q", "w"), lambda s: pairs(s.q, 1, s.w, 0),
    ),
    "grouped convolution of a map": (
        lambda: Function(
            lambda s, x: torch.tanh(F.conv1d(s.q, s.w, groups=2) + x.sum()), q=parameter(1, 2, 5),
            w=parameter(4, 1, 3),
        ),
        ("q", "w"), lambda s: 2 * float((slices(s.q, 1) * slices(s.w.view(2, 2, 3), 0)).sum()),
    ),
    "layers of tokens": (
        lambda: Function(
            lambda s, x: x + s.b(F.relu(s.a(s.tokens.sigmoid()))), tokens=parameter(4, 5), a=linear(5, 6),
            b=linear(6, 3, False),
        ),
        ("a.weight", "b.weight"), lambda s: pairs(s.a.weight, 0, s.b.weight, 1),
    ),
    "fixed by a saturation": (
        lambda: Function(lambda s, x: x * torch.sigmoid(s.a @ s.b), a=parameter(4, 5), b=parameter(5, 3)),
        ("a", "b"), lambda s: pairs(s.a, 1, s.b, 0),
    ),
    "fixed by a softmax": (
        lambda: Function(
            lambda s, x: torch.softmax(s.c(s.q), -1).mean() * x, q=parameter(4, 5), c=linear(5, 3)
        ),
        ("q", "c.weight"), lambda s: pairs(s.q, 1, s.c.weight, 1),
    ),
    "entrywise product": (
        lambda: Function(lambda s, x: torch.tanh(x + s.a * s.b), a=parameter(4, 3), b=parameter(4, 3)),
        ("a", "b"), lambda s: 2 * float((s.a * s.b).abs().sum()),
    ),
    "gain of a map": (
        lambda: Function(lambda s, x: torch.tanh(x + s.a * s.b), a=parameter(4, 3), b=parameter(3)),
        ("a", "b"), lambda s: pairs(s.a, 1, s.b[:, None], 0),
    ),
    "batched product": (
        lambda: Function(lambda s, x: torch.exp(x - s.a @ s.b), a=parameter(2, 4, 5), b=parameter(2, 5, 3)),
        ("a", "b"),
        lambda s: 2 * float((s.a.detach().norm(dim=1) * s.b.detach().norm(dim=2)).sum()),
    ),
    "put before the input": (
        lambda: Function(
            lambda s, x: torch.cat([F.linear(s.q, s.w), x]).softmax(-1), q=parameter(2, 4), w=parameter(3, 4)
        ),
        ("q", "w"), lambda s: pairs(s.q, 1, s.w, 1),
    ),
    "convolved with a computed kernel": (
        lambda: Function(
            lambda s, x: torch.tanh(F.conv1d(s.q, s.k(x[0]).view(2, 4, 1))), q=parameter(1, 4, 3),
            k=linear(3, 8, False),
        ),
        ("q", "k.weight"), lambda s: 2 * float((slices(s.q, 1) * slices(s.k.weight.view(2, 4, 3), 1)).sum()),
    ),
    "read by places": (
        lambda: Function(
            lambda s, x: s.c(torch.gather(s.table, 0, x.long().clamp(0, 4))), table=parameter(5, 3),
            c=linear(3, 2, False),
        ),
        ("table", "c.weight"), lambda s: pairs(s.table, 1, s.c.weight, 1),
    ),
    "sampled": (
        lambda: Function(
            lambda s, x: s.c(F.grid_sample(s.map, x[None, None, :, :2], align_corners=True)),
            map=parameter(1, 3, 4, 4), c=nn.Conv2d(3, 2, 1, bias=False),
        ),
        ("map", "c.weight"), lambda s: pairs(s.map, 1, s.c.weight, 1),
    ),
    "read twice, once in part": (
        lambda: Function(
            lambda s, x: torch.tanh(s.a(x) @ s.w) + torch.tanh(s.a(x)[:, :2] @ s.w[:2]),
            a=linear(3, 4, False), w=parameter(4, 2),
        ),
        ("a.weight", "w"), lambda s: pairs(s.a.weight, 0, s.w, 0),
    ),
    "rows read more than once": (
        lambda: Function(
            lambda s, x: torch.tanh(s.a(x)[:, [0, 1, 2, 3, 0, 1]] @ s.w[[0, 1, 2, 3, 0, 1]]),
            a=linear(3, 4, False), w=parameter(4, 2),
        ),
        ("a.weight", "w"), lambda s: pairs(s.a.weight, 0, s.w, 0),
    ),
    "first added, then multiplied": (
        lambda: Function(
            lambda s, x: torch.tanh(x + F.relu(s.q) @ s.w) + torch.tanh((x @ s.k) @ F.relu(s.q).T).sum(),
            q=parameter(5, 4), w=parameter(4, 3), k=parameter(3, 4),
        ),
        ("q", "w", "k"),
        lambda s: 2 * float((slices(s.q, 1) * (slices(s.w, 0) ** 2 + slices(s.k, 1) ** 2).sqrt()).sum()),
    ),
}  # fmt: skip


def built(name: str) -> tuple[nn.Module, Tensor, tuple[str, ...], Least]:
    torch.manual_seed(7)
    kind, names, least = CASES[name]
    net = kind().double()
    with torch.no_grad():
        for factor, key in zip((30, 0.1, 1), names, strict=False):
            net.state_dict()[key].mul_(factor)
    return net, torch.randn(5 if "added" in name else 4, 3).double(), names, least


@pytest.mark.parametrize("name", CASES)
def test_the_certified_minimum_is_the_minimum(name: str) -> None:
    net, x, names, least = built(name)
    before, smallest = squares(net, names), least(net)
    assert smallest < 0.9 * before
    result = graphnorm.canonicalize(net, x)
    assert torch.allclose(result.model(x), net(x), rtol=1e-10, atol=1e-10)
    assert squares(result.model, names) == pytest.approx(smallest, rel=1e-6)
    assert result.report.objective.to_dict() == pytest.approx({"before": before, "after": smallest}, rel=1e-6)
    assert not result.report.degenerate
    assert not result.report.unchanged
    assert graphnorm.canonicalize(result.model, x).report.objective["after"] == pytest.approx(smallest)


@pytest.mark.parametrize("name", [name for name in CASES if name != "sampled"])
def test_enorm_goes_to_the_same_minimum(name: str) -> None:
    net, x, names, least = built(name)
    smallest, expected = least(net), net(x).detach()
    enorm = graphnorm.ENorm(net, torch.optim.SGD(net.parameters(), lr=0.1), x, cycles=20)
    for _ in range(10):
        enorm.step()
    assert squares(net, names) == pytest.approx(smallest, rel=1e-3)
    assert enorm.energy() == pytest.approx(smallest, rel=1e-3)
    assert torch.allclose(net(x), expected, rtol=1e-9, atol=1e-9)


def test_learned_queries_count_and_their_bias_follows() -> None:
    torch.manual_seed(0)
    net = Function(attention, queries=parameter(4, 3), to_q=linear(3, 5), to_k=linear(3, 5)).double()
    x = torch.randn(6, 3).double()
    result = graphnorm.canonicalize(net, x)
    names = ("queries", "to_q.weight", "to_k.weight")
    assert result.report.objective["after"] == pytest.approx(squares(result.model, names))
    assert result.graph.dimension == 3 + 5
    assert torch.allclose(result.model(x), net(x), rtol=1e-10, atol=1e-10)


def frozen_norm(s: Any, x: Tensor) -> Tensor:
    gain = s.gamma * (s.var + 1e-5).rsqrt()
    return s.c(F.relu(s.a(x) * gain + (s.beta - s.mean * gain)))


def test_an_offset_made_of_weights_follows_its_channel() -> None:
    """A frozen norm, written out: as of BatchNorm, the gain counts, and neither mean nor offset."""
    torch.manual_seed(0)
    net = Function(
        frozen_norm, a=linear(3, 4, False), gamma=parameter(4), beta=parameter(4), mean=parameter(4),
        c=linear(4, 2, False),
    )  # fmt: skip
    net.register_buffer("var", torch.rand(4) + 0.5)
    net, x = net.double(), torch.randn(6, 3).double()
    result = graphnorm.canonicalize(net, x)
    counted = squares(result.model, ("a.weight", "gamma", "c.weight"))
    assert result.report.objective["after"] == pytest.approx(counted)
    assert result.graph.dimension == 8
    assert torch.allclose(result.model(x), net(x), rtol=1e-10, atol=1e-10)


UNCHANGED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "pinned": (
        lambda: Function(lambda s, x: s.b(torch.tanh(s.a(x))), a=linear(3, 4), b=linear(4, 2)), "Tanh"
    ),
    "no layer": (lambda: Function(lambda s, x: torch.tanh(x + s.a), a=parameter(3)), "inputs and outputs"),
    "no minimum": (
        lambda: Function(
            lambda s, x: torch.tanh(x + s.a @ s.b), a=nn.Parameter(torch.zeros(4, 2)), b=parameter(2, 3)
        ),
        "no minimum",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNCHANGED)
def test_with_nothing_to_do_the_report_says_why(name: str) -> None:
    torch.manual_seed(0)
    kind, reason = UNCHANGED[name]
    report = graphnorm.canonicalize(kind().double(), torch.randn(4, 3).double()).report
    assert reason in report.unchanged
    assert report.to_dict()["unchanged"] == report.unchanged
    assert report.objective["before"] == report.objective["after"]


def test_rescaled_biases_alone_leave_the_objective() -> None:
    net = Function(lambda s, x: torch.tanh(x + s.a), a=parameter(3)).double()
    report = graphnorm.canonicalize(net, torch.randn(4, 3).double()).report
    assert dataclasses.replace(report, dimension=3).unchanged == "only biases can be rescaled"
