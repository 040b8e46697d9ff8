"""Higher-order operators of torch: rescalings inside and across their bodies, against the numeric oracle."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops import hints_wrap
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import graphnorm
from graphnorm.emission.torch_module import rescale_torch
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.frontends.torch.read import read_torch
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.weights.coefficients import rescale
from tests.support.control_networks import CASES, HIDDEN, INPUTS, OPERATORS, Layers, Recurrent, flat, steps
from tests.support.oracle import nullity


def distance(model: nn.Module, graph: RescalingGraph, *arguments: Tensor) -> float:
    """Relative change of the output under a random element of the rescaling group."""
    z = np.random.default_rng(3).normal(size=graph.solution.count)
    other = rescale_torch(model, rescale(graph, z).weights)
    with torch.no_grad():
        before, after = model(*arguments), other(*arguments)
    return float((before - after).norm() / before.norm())


@pytest.mark.parametrize("name", CASES)
def test_dimension_is_that_of_the_plain_network(name: str) -> None:
    builder, inputs = CASES[name]
    torch.manual_seed(0)
    model = builder().double()
    graph = build(read_torch(model, inputs(torch.Generator().manual_seed(1))))
    assert not any(op.startswith("higher_order") for op in graph.scales.unknown)
    assert graph.dimension == nullity(builder(plain=True), inputs)
    for seed in range(1, 5):
        assert distance(model, graph, *inputs(torch.Generator().manual_seed(seed))) < 1e-9


def test_a_known_condition_takes_its_branch() -> None:
    class Fixed(Layers):
        flag: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Linear(INPUTS, HIDDEN)
            self.register_buffer("flag", torch.tensor([True]))

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.cond(
                self.flag, lambda x: torch.relu(self.first(x)), lambda x: torch.tanh(self.other(x)), (x,)
            )
            return self.last(hidden)

    model = Fixed().double()
    graph = build(read_torch(model, flat(torch.Generator())))
    assert graph.dimension == HIDDEN
    assert {demand.weight for demand in graph.movable()} == {"first.weight", "first.bias", "last.weight"}
    assert distance(model, graph, *flat(torch.Generator())) < 1e-9


@pytest.mark.filterwarnings("ignore:Pred is a Python constant")
def test_a_condition_on_a_variable_size_takes_either_branch() -> None:
    class BySize(Layers):
        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.cond(
                x.shape[0] > 100,
                lambda x: torch.tanh(self.first(x)),
                lambda x: torch.relu(self.first(x)),
                (x,),
            )
            return self.last(hidden)

    example = flat(torch.Generator())
    program = torch.export.export(BySize().double(), example, dynamic_shapes=({0: torch.export.Dim("n")},))
    graph = build(read_torch(program))
    assert "graphnorm::Choice" in {node.op for node in graph.network.nodes}
    assert graph.dimension == 0  # one of the branches saturates
    (fixed,) = (build(read_torch(BySize().double(), example)),)
    assert fixed.dimension == HIDDEN


def test_a_state_of_variable_size_starts_at_zero() -> None:
    names = {0: torch.export.Dim("steps"), 1: torch.export.Dim("batch")}
    program = torch.export.export(Recurrent().double(), steps(torch.Generator()), dynamic_shapes=(names,))
    assert build(read_torch(program)).dimension == HIDDEN


@pytest.mark.parametrize("name", ["cond", "while_loop", "scan", "cond in scan"])
def test_both_front_ends_see_the_same_network(name: str) -> None:
    builder, inputs = CASES[name]
    arguments = tuple(x.float() for x in inputs(torch.Generator()))
    program = torch.onnx.export(builder().eval(), arguments, dynamo=True, verbose=False)
    assert program is not None
    graph = build(read_onnx(program.model_proto))
    assert {"If", "Loop", "Scan"} & {node.op_type for node in program.model.graph}
    assert graph.dimension == HIDDEN


def test_a_condition_made_of_weights_is_fixed() -> None:
    class ByWeight(Layers):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.cond(
                self.gate.sum() > 1, lambda x: torch.relu(self.first(x)), lambda x: self.first(x).abs(), (x,)
            )
            return self.last(hidden)

    graph = build(read_torch(ByWeight().double(), flat(torch.Generator())))
    assert graph.dimension == HIDDEN
    assert "gate" not in {demand.weight for demand in graph.movable()}


def test_a_loop_that_counts_in_python_numbers() -> None:
    class Counted(Layers):
        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.relu(self.first(x))
            return self.last(
                OPERATORS.while_loop(lambda i, h: i < 3, lambda i, h: (i + 1, self.step(h)), (0, hidden))[1]
            )

    model = Counted().double().requires_grad_(False)
    graph = build(read_torch(model, flat(torch.Generator())))
    assert graph.dimension == HIDDEN
    assert distance(model, graph, *flat(torch.Generator())) < 1e-9


def test_a_loop_whose_condition_reads_the_state_keeps_it() -> None:
    class Converging(Layers):
        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.relu(self.first(x))
            (hidden,) = OPERATORS.while_loop(
                lambda h: h.sum() > 1, lambda h: (0.1 * self.step(h),), (hidden,)
            )
            return self.last(hidden)

    assert build(read_torch(Converging().double(), flat(torch.Generator()))).dimension == 0


def block(layer: nn.Module, x: Tensor) -> Tensor:
    return torch.relu(layer(x))


@torch.compiler.nested_compile_region
def repeated_block(layer: nn.Module, x: Tensor) -> Tensor:
    return torch.relu(layer(x))


MARKS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "invoke_subgraph": lambda layer, x: repeated_block(layer, x),
    "strict_mode": lambda layer, x: OPERATORS.strict_mode(lambda x: block(layer, x), (x,)),
    "hints_wrapper": lambda layer, x: hints_wrap.hints_wrapper(
        lambda x: block(layer, x), (x,), {}, hints={"kind": "b"}
    ),
    "tag_activation_checkpoint": lambda layer, x: checkpoint(
        block, layer, x, use_reentrant=False, context_fn=partial(create_selective_checkpoint_contexts, [])
    ),
}


@pytest.mark.parametrize("mark", MARKS)
def test_marked_regions_are_part_of_the_network(mark: str) -> None:
    class Marked(Layers):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(MARKS[mark](self.inner, MARKS[mark](self.inner, self.first(x))))

    model = Marked().double()
    program = torch.export.export(model, flat(torch.Generator()), strict=True)
    assert mark in {str(node.target) for node in program.graph.nodes}
    graph = build(read_torch(program))
    assert graph.dimension == HIDDEN
    assert not graph.scales.unknown


def test_a_rescaled_loop_is_proved() -> None:
    torch.manual_seed(0)
    model = Recurrent()
    with torch.no_grad():
        model.inner.weight.mul_(0.3)
        model.first.weight[0] *= 1000
    (x,) = steps(torch.Generator().manual_seed(2))
    result = graphnorm.canonicalize(model, x.float())
    assert result.report.dimension == HIDDEN
    assert result.report.verification.verdict == "proved"
    assert result.report.objective["after"] < 0.1 * result.report.objective["before"]
