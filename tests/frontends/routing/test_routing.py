"""Mixture of experts: each expert's inner channels can be rescaled on their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from graphnorm.cli.models.zoo import _declare_torchvision_operators
from graphnorm.emission.torch_module import rescale_torch
from graphnorm.frontends.routing import rows as routing_rows
from graphnorm.frontends.routing.rewrite import ROUTE
from graphnorm.frontends.routing.rows import Dense, View
from graphnorm.frontends.torch.read import read_torch
from graphnorm.ir import Node
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.scales.context import Context
from graphnorm.scales.registry import Registry, Rule
from graphnorm.scales.rules.table import default_registry
from graphnorm.weights.coefficients import rescale
from tests.support.oracle import nullity
from tests.support.planting import plant

EXPERTS, WIDTH, INNER, TOKENS = 3, 4, 2, 6
UNCHANGED = 1e-10  # relative, in float64


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, dtype=torch.float64))


def grouped_mm(x: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """The operator to which transformers exports its experts."""
    _declare_torchvision_operators()
    pytest.importorskip("transformers.integrations.moe", exc_type=ImportError)
    result: Tensor = torch.ops.transformers.grouped_mm_fallback(x, weight, offsets)
    return result


class Experts(nn.Module):
    """linear -> relu -> router, and for each token its two experts: up -> `inner` -> down.

    `form` is the spelling: rows sorted by expert and multiplied in groups, or weights picked for each row.
    """

    def __init__(
        self,
        form: str,
        inner: Callable[[Any, Tensor, Tensor], Tensor],
        width: int = INNER,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.form, self.inner, self.bias = form, inner, bias
        self.first = nn.Linear(3, WIDTH, dtype=torch.float64)
        self.router = parameter(EXPERTS, WIDTH)
        self.up = parameter(EXPERTS, width, WIDTH)
        self.down = parameter(EXPERTS, 2, INNER)
        self.up_bias, self.down_bias = parameter(EXPERTS, width), parameter(EXPERTS, 2)
        self.gain, self.shift = parameter(INNER), parameter(INNER)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        share, chosen = torch.topk(torch.softmax(x @ self.router.T, dim=-1), 2, dim=-1)
        if self.form == "grouped":
            experts, order = torch.sort(chosen.reshape(-1))
            y = self.grouped(x[order // 2], experts) * share.reshape(-1)[order].unsqueeze(-1)
            y = y[torch.argsort(order)]
        else:
            y = self.picked(x.repeat_interleave(2, 0), chosen.reshape(-1)) * share.reshape(-1, 1)
        return y.reshape(-1, 2, 2).sum(1)

    def grouped(self, x: Tensor, experts: Tensor) -> Tensor:
        counts = torch.histc(experts.float(), bins=EXPERTS, min=0, max=EXPERTS - 1)
        offsets = torch.cumsum(counts, 0, dtype=torch.int32)
        h = grouped_mm(x, self.up.transpose(1, 2), offsets)
        h = self.inner(self, h + self.up_bias[experts] if self.bias else h, experts)
        y = grouped_mm(h, self.down.transpose(1, 2), offsets)
        return y + self.down_bias[experts] if self.bias else y

    def picked(self, x: Tensor, experts: Tensor) -> Tensor:
        h = torch.bmm(self.up[experts], x.unsqueeze(-1)).squeeze(-1)
        h = self.inner(self, h + self.up_bias[experts] if self.bias else h, experts)
        y = torch.bmm(h.unsqueeze(1), self.down[experts].transpose(1, 2)).squeeze(1)
        return y + self.down_bias[experts] if self.bias else y


def interleaved(_: Any, h: Tensor, __: Tensor) -> Tensor:
    """gate 0, up 0, gate 1, up 1, ..; the gate is clamped from below."""
    pairs = h.reshape(-1, INNER, 2)
    return torch.tanh(pairs[..., 0].clamp(min=0)) * pairs[..., 1]


class Case(NamedTuple):
    make: Callable[[str], nn.Module]
    inner: int  # independent rescalings inside the experts


def case(inner: Callable[[Any, Tensor, Tensor], Tensor], count: int, **options: Any) -> Case:
    return Case(lambda form: Experts(form, inner, **options), count)


GATED = {"width": 2 * INNER}
ALL = EXPERTS * INNER
CASES = {
    "relu": case(lambda _, h, e: torch.relu(h), ALL),
    "bias": case(lambda _, h, e: torch.relu(h), ALL, bias=True),
    "gelu": case(lambda _, h, e: F.gelu(h), 0),
    "swiglu": case(lambda _, h, e: F.silu(h[:, :INNER]) * h[:, INNER:], ALL, **GATED),
    "reglu": case(lambda _, h, e: torch.relu(h.chunk(2, -1)[0]) * h.chunk(2, -1)[1], 2 * ALL, **GATED),
    "biased swiglu": case(
        lambda _, h, e: F.silu(h[:, :INNER]) * h[:, INNER:], ALL, bias=True, **GATED
    ),
    "interleaved": case(interleaved, ALL, **GATED),
    "shared gain": case(lambda s, h, e: torch.relu(h) * s.gain, ALL + INNER),
    "shared bias": case(lambda s, h, e: torch.relu(h + s.shift), INNER),
    "row mean": case(lambda _, h, e: torch.relu(h - h.mean(-1, keepdim=True)), EXPERTS),
    "mixed rows": case(lambda _, h, e: torch.relu(torch.cumsum(h, 0)), INNER),
    "moved rows": case(lambda _, h, e: torch.relu(h.roll(1, 0)), INNER),
    "other experts": case(lambda s, h, e: torch.relu(h) + s.up_bias[e.roll(1)], INNER),
}  # fmt: skip


def inputs(generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.randn(TOKENS, 3, generator=generator, dtype=torch.float64),)


def example() -> tuple[Tensor, ...]:
    return inputs(torch.Generator().manual_seed(7))


def change(model: nn.Module, graph: RescalingGraph, x: tuple[Tensor, ...]) -> float:
    """Largest relative change of the output under a random rescaling."""
    z = 0.3 * np.random.default_rng(0).normal(size=graph.solution.count)
    other = rescale_torch(model, rescale(graph, z).weights)
    with torch.no_grad():
        before, after = model(*x), other(*x)
    return float((before - after).norm() / before.norm())


@pytest.mark.parametrize("form", ["grouped", "picked"])
@pytest.mark.parametrize("name", CASES)
def test_dimension_and_function(name: str, form: str) -> None:
    torch.manual_seed(0)
    model = CASES[name].make(form)
    graph = build(read_torch(model, example()))
    assert graph.dimension == CASES[name].inner + WIDTH
    assert change(model, graph, example()) < UNCHANGED


@pytest.mark.parametrize("name", CASES)
def test_hand_counts_are_the_oracles(name: str) -> None:
    torch.manual_seed(0)
    assert nullity(CASES[name].make("picked"), inputs) == CASES[name].inner + WIDTH


def test_number_of_tokens_may_vary() -> None:
    torch.manual_seed(0)
    model = CASES["biased swiglu"].make("picked")
    program = torch.export.export(model, example(), dynamic_shapes=({0: Dim("tokens", min=2)},))
    graph = build(read_torch(program))
    assert graph.dimension == ALL + WIDTH
    assert change(model, graph, example()) < UNCHANGED


# Planted errors.


def untied(ctx: Context, node: Node) -> None:
    """The first expert's scales stand for all."""
    labels = ctx.labels(node.inputs[0])
    ctx.pin_value(node.inputs[1])
    ctx.set(node.outputs[0], labels[:1].reshape(labels.shape[1:]))


def test_experts_that_are_not_tied_are_caught() -> None:
    rule = Rule("x -> x", untied, "")
    registry: Registry = default_registry().replaced(rule, ROUTE)
    torch.manual_seed(0)
    model = CASES["relu"].make("grouped")
    graph = build(read_torch(model, example()), registry)
    assert graph.dimension > nullity(CASES["relu"].make("picked"), inputs)
    assert change(model, graph, example()) > 1e-3


def test_a_choice_moved_past_mixed_rows_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def along_rows(view: View) -> Dense:
        shape = view.shapes[0]
        assert shape is not None
        return Dense([shape], {**view.node.attributes, "axis": 1})

    plant(monkeypatch, routing_rows.HANDLERS, "CumSum", along_rows)
    torch.manual_seed(0)
    model = CASES["mixed rows"].make("grouped")
    graph = build(read_torch(model, example()))
    assert graph.dimension > nullity(CASES["mixed rows"].make("picked"), inputs)
    assert change(model, graph, example()) > 1e-3


def test_experts_are_not_confused_with_unproven_ones() -> None:
    """Offsets counted in another way: the biases' experts are not provably those of the rows."""

    class Counted(Experts):
        def grouped(self, x: Tensor, experts: Tensor) -> Tensor:
            experts = experts % EXPERTS  # the same numbers, but no places of a TopK any more
            return super().grouped(x, experts)

    torch.manual_seed(0)
    model = Counted("grouped", lambda _, h, e: torch.relu(h), bias=True)
    graph = build(read_torch(model, example()))
    assert graph.dimension == INNER + WIDTH
    assert change(model, graph, example()) < UNCHANGED
