"""Rules against the oracle, both ways: nothing claimed that is false, nothing true that is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from graphnorm import ir
from graphnorm.alignment.normal import normalise
from graphnorm.emission.torch_module import rescale_torch
from graphnorm.errors import RuleError
from graphnorm.frontends.torch.read import read_torch
from graphnorm.ir import Node
from graphnorm.permutation.symmetry import symmetry
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.scales.context import Context
from graphnorm.scales.registry import Registry, Rule
from graphnorm.scales.rules.table import default_registry
from graphnorm.weights.coefficients import rescale
from tests.support.networks import MISSING, NETWORKS, stepwise
from tests.support.oracle import nullity


def make(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    builder, inputs = NETWORKS[name]
    return builder().double(), inputs(torch.Generator().manual_seed(1))


def distance_after_rescaling(
    model: nn.Module, arguments: tuple[torch.Tensor, ...], graph: RescalingGraph
) -> float:
    """Relative change of the output under a random element of the rescaling group."""
    z = np.random.default_rng(3).normal(size=graph.solution.count)
    other = rescale_torch(model, rescale(graph, z).weights)
    with torch.no_grad():
        before, after = model(*arguments), other(*arguments)
    return float((before - after).norm() / before.norm())


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in MISSING])
def test_rules_agree_with_the_oracle(name: str) -> None:
    model, arguments = make(name)
    graph = build(read_torch(model, arguments))
    assert not graph.scales.unknown
    assert symmetry(graph.network).defects == ()
    assert normalise(graph.network).defects == ()
    assert distance_after_rescaling(model, arguments, graph) < 1e-9
    assert graph.dimension == nullity(model, NETWORKS[name][1])


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_is_documented(name: str) -> None:
    """If this fails because a rule now finds more, take the network off `MISSING`."""
    model, arguments = make(name)
    graph = build(read_torch(model, arguments))
    assert distance_after_rescaling(model, arguments, graph) < 1e-9
    assert graph.dimension < nullity(model, NETWORKS[name][1])
    assert MISSING[name]


@pytest.mark.parametrize("name", stepwise.NETWORKS)
def test_dimension_where_derivatives_see_nothing(name: str) -> None:
    builder, inputs = stepwise.NETWORKS[name]
    torch.manual_seed(0)
    model, generator = builder().double(), torch.Generator().manual_seed(1)
    arguments = inputs(generator)
    graph = build(read_torch(model, arguments))
    assert graph.dimension == stepwise.DIMENSIONS[name]
    for _ in range(3):
        assert distance_after_rescaling(model, inputs(generator), graph) < 1e-9


def wrong_homogeneous(ctx: Context, node: Node) -> None:
    ctx.set(node.outputs[0], ctx.labels(node.inputs[0]))


def forgets_the_second(ctx: Context, node: Node) -> None:
    ctx.set(node.outputs[0], ctx.labels(node.inputs[0]))


def pins_too_much(ctx: Context, node: Node) -> None:
    ctx.pin_node(node)


def of_another_shape(ctx: Context, node: Node) -> None:
    ctx.set(node.outputs[0], ctx.fresh((2, 9), "planted"))


def moved_wrongly(ctx: Context, node: Node) -> None:
    ctx.set(node.outputs[0], ctx.scale(node.inputs[0]).tile((2, 1)))


def planted(operator: str, apply: object) -> Registry:
    rule = Rule("planted", apply, "planted")  # type: ignore[arg-type]
    return default_registry().replaced(rule, operator)


@pytest.mark.parametrize(
    ("name", "operator", "apply"),
    [
        ("swiglu", "Swish", wrong_homogeneous),
        ("relu6", "Clip", wrong_homogeneous),
        ("residual_identity", "Relu", pins_too_much),
        ("unet", "ConvTranspose", pins_too_much),
        ("squared_relu", "Pow", wrong_homogeneous),
        ("squared_relu", "Mul", forgets_the_second),
        ("rotary", "MatMul", pins_too_much),
        ("layer_norm_no_epsilon", "LayerNormalization", pins_too_much),
        ("rnn_relu", "RNN", pins_too_much),
        ("hardtanh", "Clip", wrong_homogeneous),
        ("divided_by_branch", "Div", forgets_the_second),
        ("reciprocal", "Reciprocal", wrong_homogeneous),
        ("square_root", "Sqrt", wrong_homogeneous),
    ],
)
def test_a_wrong_rule_is_caught(name: str, operator: str, apply: object) -> None:
    model, arguments = make(name)
    network = read_torch(model, arguments)
    if operator not in {node.op for node in network.nodes}:
        operator = {"Pow": "Mul", "Mul": "Pow"}[operator]
    graph = build(network, planted(operator, apply))
    missed = graph.dimension != nullity(model, NETWORKS[name][1])
    broken = distance_after_rescaling(model, arguments, graph) > 1e-6
    assert missed or broken


def test_operand_that_a_rule_ignores_is_pinned() -> None:
    model, arguments = make("residual_identity")
    graph = build(read_torch(model, arguments), planted("Add", forgets_the_second))
    assert any(pin.reason == "operand without a scale of its own" for pin in graph.pins)


def test_unknown_operator_is_pinned_and_named() -> None:
    model, arguments = make("mlp")
    network = read_torch(model, arguments)
    nodes = tuple(dataclasses.replace(n, op="custom::Relu") if n.op == "Relu" else n for n in network.nodes)
    graph = build(dataclasses.replace(network, nodes=nodes))
    assert graph.dimension == 0
    assert list(graph.scales.unknown) == ["custom::Relu"]
    assert any(pin.reason == "unknown operator" for pin in graph.pins)
    assert "unknown operator custom::Relu" in graph.summary()


def test_second_rule_for_an_operator_is_an_error() -> None:
    registry = default_registry()
    with pytest.raises(RuleError, match="'Sqrt' has a second rule"):
        registry.add(Rule("x -> x", wrong_homogeneous, ""), "Sqrt")


def test_every_rule_is_documented() -> None:
    registry = default_registry()
    for rule in map(registry.__getitem__, registry):
        assert rule.signature
        assert rule.reason


def axes_of_variable_size(values: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
    """The same values, with every axis 0 of variable size."""
    return {n: dataclasses.replace(v, dynamic=frozenset({0})) if v.shape else v for n, v in values.items()}


def test_labels_do_not_vary_along_axes_of_variable_size() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(4, 1))
            self.out = nn.Linear(3, 2, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.relu(x * self.gain)) / self.gain

    network = read_torch(Rows(), (torch.randn(4, 3),))
    free = build(network)
    bound = build(dataclasses.replace(network, values=axes_of_variable_size(network.values)))
    assert free.dimension > bound.dimension


@pytest.mark.parametrize("apply", [of_another_shape, moved_wrongly])
def test_a_scale_of_another_shape_is_a_defect(apply: object) -> None:
    model, arguments = make("one_unit_padded_with_ones")
    graph = build(read_torch(model, arguments), planted("Relu", apply))
    assert graph.dimension == 0
    assert any("shape (4, 1)" in sentence for sentence in graph.scales.constraints.defects)
