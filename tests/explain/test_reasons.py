"""Explanations: the status of each layer's sides, what pins, what ties, and what has no minimum."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import graphnorm
from graphnorm.cli.models.demo import resnet18c, small_onnx
from graphnorm.errors import InputError
from graphnorm.explain import Explanation, Layer, Link, explain, summarise, why
from graphnorm.explain.minimum import DEAD, NO_WAY_IN, NO_WAY_OUT, NO_WAY_THROUGH
from graphnorm.explain.routes import AGAINST, SHARED, WITH
from graphnorm.frontends.torch.read import read_torch
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.scales.registry import Rule
from graphnorm.scales.rules.elementwise import degree
from graphnorm.scales.rules.table import default_registry
from tests.support.networks import NETWORKS


class Gated(nn.Module):
    """A residual trunk, a saturating end, a dead neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.inner = nn.Linear(5, 6)
        self.back = nn.Linear(6, 5)
        self.wide = nn.Linear(5, 7)
        self.last = nn.Linear(7, 3)
        with torch.no_grad():
            self.inner.weight[2] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = x + torch.relu(self.back(torch.relu(self.inner(x))))
        return self.last(torch.tanh(self.wide(x)))


@pytest.fixture(scope="module")
def gated() -> RescalingGraph:
    torch.manual_seed(0)
    return graphnorm.trace(Gated(), torch.randn(2, 4))


def network(name: str) -> RescalingGraph:
    """The graph of one of the tiny networks."""
    torch.manual_seed(0)
    builder, inputs = NETWORKS[name]
    return build(read_torch(builder().double(), inputs(torch.Generator().manual_seed(1))))


def layers(graph: RescalingGraph) -> dict[str, Layer]:
    return {layer.name: layer for layer in summarise(graph).layers}


def only(graph: RescalingGraph, name: str) -> Explanation:
    (explained,) = explain(graph, name)
    return explained


def operators(chain: tuple[Link, ...]) -> list[str]:
    return [link.op for link in chain]


class TestStatus:
    def test_of_each_side(self, gated: RescalingGraph) -> None:
        found = layers(gated)
        assert list(found) == [f"{name}.weight" for name in ("first", "inner", "back", "wide", "last")]
        assert found["first.weight"].output.tied == ("back.weight",)
        assert found["back.weight"].status == "tied"
        assert found["inner.weight"].status == "free"
        assert found["wide.weight"].output.status == "pinned"
        assert found["wide.weight"].status == "partly"
        assert found["wide.weight"].input.tied == ("inner.weight",)
        assert found["last.weight"].status == "pinned"

    def test_pinned_sides_name_the_operator(self, gated: RescalingGraph) -> None:
        found = layers(gated)
        for side, op in (
            (found["first.weight"].input, "network input"),
            (found["wide.weight"].output, "Tanh"),
            (found["last.weight"].input, "Tanh"),
            (found["last.weight"].output, "network output"),
        ):
            assert side.pinned_by is not None
            assert side.pinned_by.op == op
        assert found["inner.weight"].output.pinned_by is None

    def test_share_of_a_partly_pinned_side(self) -> None:
        class Joined(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(7, 5, 1)

            def forward(self, x: Tensor) -> Tensor:
                return self.b(torch.cat([torch.relu(self.a(x)), x], 1))

        graph = graphnorm.trace(Joined(), torch.randn(1, 3, 4, 4))
        side = layers(graph)["b.weight"].input
        assert (side.status, side.channels, side.free) == ("partly", 5, 4)  # x is one pinned scale
        assert operators(only(graph, "b.weight").input.pin) == ["Conv", "Concat", "network input"]

    def test_fewer_scales_than_channels(self) -> None:
        side = layers(network("transformer"))["attention.qkv.weight"].output
        assert side.free == side.channels
        assert side.scales == 2 * side.channels // 3  # keys move against queries

    def test_a_weight_that_must_stay_beside_others_that_move(self) -> None:
        graph = network("lstm")
        (cause,) = only(graph, "rnn.weight_hh_l0").output.pin
        assert cause.op == "LSTM"
        assert cause.reason


class TestPins:
    def test_the_chain_starts_at_the_layer(self, gated: RescalingGraph) -> None:
        chain = why(gated, "wide")
        assert operators(chain) == ["MatMul", "Add", "Tanh"]
        assert [link.direction for link in chain] == ["", WITH, WITH]
        assert chain[-1].reason == "not homogeneous"
        assert chain[-1].source.startswith("explain/test_reasons.py:")
        explained = only(gated, "last.weight")
        assert operators(explained.output.pin)[-1] == "network output"
        assert operators(explained.input.pin) == ["MatMul", "Tanh"]

    def test_an_operator_that_passes_would_free_the_layer(self, gated: RescalingGraph) -> None:
        """The operator at the end of a chain is what pins: a rule that lets it pass frees the layer."""
        rule = Rule("x -> x", degree(Fraction(1)), "planted")
        torch.manual_seed(0)
        ir = read_torch(Gated(), (torch.randn(2, 4),))
        freed = build(ir, default_registry().replaced(rule, why(gated, "wide")[-1].op))
        assert layers(freed)["wide.weight"].output.status == "free"

    def test_of_a_residual_network(self) -> None:
        graph = graphnorm.trace(resnet18c(width=2), torch.randn(1, 3, 8, 8))
        assert why(graph, "blocks.0.bn1") == ()
        assert operators(why(graph, "fc"))[-1] == "network output"
        assert operators(why(graph, "conv")) == ["Conv", "network input"]

    def test_the_nearest_of_several_pins(self) -> None:
        """Each block of a residual trunk is pinned by the norm next to it, not by the first of all."""

        class Trunk(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norms = nn.ModuleList(nn.LayerNorm(4) for _ in range(4))
                self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

            def forward(self, x: Tensor) -> Tensor:
                for norm, layer in zip(self.norms, self.layers, strict=True):
                    x = x + layer(norm(x))
                return x

        graph = graphnorm.trace(Trunk(), torch.randn(1, 4))
        assert why(graph, "layers.1.weight")[-1].op == "network input"  # x itself is the trunk
        lifted = nn.Sequential(nn.Linear(3, 4), Trunk(), nn.LayerNorm(4))
        graph = graphnorm.trace(lifted, torch.randn(1, 3))
        assert [why(graph, f"1.layers.{i}.weight")[-1].node for i in range(4)] == [
            "1.norms.1",
            "1.norms.2",
            "1.norms.3",
            "2",
        ]

    def test_of_a_merged_branch(self) -> None:
        class Merged(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                a, b = torch.relu(self.a(x)), torch.relu(self.b(x))
                return a + b, torch.sigmoid(b)

        graph = graphnorm.trace(Merged(), torch.randn(2, 3))
        chain = why(graph, "a")
        assert operators(chain) == ["MatMul", "Add", "Relu", "Add", "network output"]

    def test_added_to_what_keeps_its_scale(self) -> None:
        class Added(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.b(torch.relu(self.a(x) + x.abs()))

        chain = why(graphnorm.trace(Added(), torch.randn(2, 3)), "a")
        assert operators(chain) == ["MatMul", "Add", "Add", "Abs", "network input"]
        assert [link.direction for link in chain] == ["", WITH, WITH, AGAINST, AGAINST]

    def test_added_to_a_constant(self) -> None:
        chain = why(network("add_one"), "a.weight")
        assert chain[-1].op == "Add"
        assert "constant" in chain[-1].reason

    def test_a_weight_that_is_used_as_it_is(self) -> None:
        (cause,) = why(network("prelu"), "1.weight")
        assert (cause.op, cause.reason) == ("PRelu", "slope of a piecewise linear unit")
        assert why(network("weight_softmax"), "w")[-1].op == "Softmax"

    def test_what_only_several_equations_fix(self) -> None:
        """a + b = 0 and a - b = 0: neither fixes a label by itself."""

        class Both(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

            def forward(self, x: Tensor) -> Tensor:
                a, b = self.a(x), self.b(x)
                return torch.tanh(a * b) + torch.tanh(a / b)

        graph = graphnorm.trace(Both(), torch.randn(2, 3))
        assert graph.dimension == 0
        for name in ("a", "b"):
            assert layers(graph)[f"{name}.weight"].output.status == "pinned"
            assert set(operators(why(graph, name))) & {"Mul", "Div"}

    def test_entries_that_are_always_zero(self) -> None:
        explained = only(network("times_some"), "c.weight")
        assert explained.input.pin[-1].reason == "reads entries that are always 0"


class TestTies:
    def test_the_operators_between_partners(self, gated: RescalingGraph) -> None:
        found = only(gated, "first").output
        assert found.partner == "back.weight"
        assert operators(found.tie) == ["MatMul", "Add", "Relu", "Add", "Relu", "Add", "MatMul"]
        assert [link.direction for link in found.tie] == ["", *[WITH] * 3, *[AGAINST] * 3]
        assert found.tie[3].reason == "added or compared"

    def test_two_readers_of_one_tensor(self, gated: RescalingGraph) -> None:
        found = only(gated, "inner").input
        assert found.partner == "wide.weight"
        assert found.tie[0].node == "inner"
        assert found.tie[-1].node == "wide"

    def test_a_weight_used_twice(self) -> None:
        found = only(network("embedding_tied"), "embed.weight").output
        shared = [link for link in found.tie if link.direction == SHARED]
        assert [link.reason for link in shared] == ["embed.weight is used more than once"]

    def test_what_moves_with_a_channel(self, gated: RescalingGraph) -> None:
        found = only(gated, "inner")
        assert found.output.moves == {"inner.weight": (1.0,), "inner.bias": (1.0,), "back.weight": (-1.0,)}
        assert found.to_dict()["why"]["output"]["moves"] == found.output.moves

    def test_moves_are_those_of_the_graph(self, gated: RescalingGraph) -> None:
        """A weight moves with a channel exactly if its demand has the channel's variable."""
        moves = only(gated, "first").output.moves
        assert moves is not None
        assert moves.keys() == {
            "first.weight", "first.bias", "inner.weight", "back.weight", "back.bias", "wide.weight"
        }  # fmt: skip


class TestNoMinimum:
    @pytest.fixture(scope="class")
    def dead(self) -> RescalingGraph:
        """Channels without a way in, without a way out, without both, and a layer that feeds a dead one."""
        model = nn.Sequential(
            nn.Linear(3, 4),
            nn.ReLU(),
            nn.Linear(4, 3),
            nn.ReLU(),
            nn.Linear(3, 2),
            nn.ReLU(),
            nn.Linear(2, 2),
        )
        torch.manual_seed(0)
        with torch.no_grad():
            model[0].weight[1] = 0  # type: ignore[operator]
            model[2].weight[:, 2] = 0  # type: ignore[operator]
            model[0].weight[3] = 0  # type: ignore[operator]
            model[2].weight[:, 3] = 0  # type: ignore[operator]
            model[6].weight.zero_()  # type: ignore[operator]
        return graphnorm.trace(model, torch.randn(1, 3))

    def test_reasons(self, dead: RescalingGraph) -> None:
        found = layers(dead)
        assert found["0.weight"].output.degenerate == {
            NO_WAY_IN: 1, NO_WAY_OUT: 1, DEAD: 1, NO_WAY_THROUGH: 1
        }  # fmt: skip
        assert found["2.weight"].output.degenerate == {NO_WAY_THROUGH: 3}
        assert found["4.weight"].output.degenerate == {NO_WAY_OUT: 2}
        assert found["4.weight"].status == "degenerate"
        assert found["4.weight"].input.degenerate == found["2.weight"].output.degenerate

    def test_are_counted_per_group(self, gated: RescalingGraph) -> None:
        assert sum(summarise(gated).degenerate.values()) == 1
        assert layers(gated)["inner.weight"].output.degenerate == {NO_WAY_IN: 1}
        assert layers(gated)["inner.weight"].output.status == "free"

    def test_a_network_without(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        summary = summarise(graphnorm.trace(model, torch.randn(1, 3)))
        assert not summary.degenerate
        assert not any(layer.output.degenerate for layer in summary.layers)


class TestNames:
    def test_a_bias_and_a_running_mean(self) -> None:
        graph = graphnorm.trace(resnet18c(width=2), torch.randn(1, 3, 8, 8))
        found = only(graph, "blocks.0.bn1.running_mean")
        assert found.layer.role == "bias"
        assert found.output.moves is not None
        assert "blocks.0.bn1.weight" in found.output.moves

    def test_the_start_of_a_path(self) -> None:
        assert {x.layer.name for x in explain(network("transformer"), "attention")} == {
            "attention.norm.weight",
            "attention.out.weight",
            "attention.qkv.weight",
        }

    def test_unknown(self, gated: RescalingGraph) -> None:
        with pytest.raises(InputError, match=r"--why bakc: .*close names: back"):
            why(gated, "bakc")

    def test_free_layer_has_no_chain(self, gated: RescalingGraph) -> None:
        assert why(gated, "inner") == ()
        said = only(gated, "inner").to_dict()
        assert said["status"] == "free"
        assert said["why"]["output"]["pin"] == ()


class TestOnnx:
    def test_names_are_the_nodes(self) -> None:
        graph = graphnorm.trace(small_onnx())
        assert layers(graph)["project.weight"].output.tied == ("stem.weight",)
        assert why(graph, "wide.weight")[-1].op == "HardSwish"
        assert [item.layer.name for item in explain(graph, "depthwise")] == ["depthwise.weight"]

    def test_unknown_operator_is_the_cause(self) -> None:
        summary = summarise(graphnorm.trace(with_strange_operator()))
        assert [layer.status for layer in summary.layers] == ["pinned"]
        last = only(summary.graph, "odd.weight").output.pin[-1]
        assert (last.op, last.reason) == ("elsewhere::Strange", "unknown operator")


def with_strange_operator() -> onnx.ModelProto:
    weight = numpy_helper.from_array(
        numpy_helper.to_array(small_onnx().graph.initializer[0])[:3, :, 0, 0], "odd.weight"
    )
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "odd.weight"], ["h"], "plain"),
            helper.make_node("Strange", ["h", "odd.weight"], ["y"], "strange", domain="elsewhere"),
        ],
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [weight],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("elsewhere", 1)]
    return helper.make_model(graph, opset_imports=opsets)


# Chains are ways through the network: neighbours share a tensor, in the direction that is said.

CHAINED = (
    "transformer", "grouped_query_repeat", "densenet", "swiglu", "relu_recurrence", "embedding_tied",
    "shared_matrix", "lora_branch", "batch_norm_train", "mixer", "scalar_shared", "ones_pad",
)  # fmt: skip


def broken(graph: RescalingGraph, chain: tuple[Link, ...]) -> list[str]:
    """The steps of a chain that the network does not have."""
    nodes = {node.name: node for node in graph.network.nodes}
    wrong = []
    for before, after in pairwise(chain):
        if after.direction == SHARED:
            continue
        left = set(nodes[before.name].outputs if after.direction == WITH else nodes[before.name].inputs)
        if after.op == "network output":
            right = set(graph.network.outputs)
        elif after.op == "network input":
            right = {after.node}
        else:
            right = set(nodes[after.name].inputs if after.direction == WITH else nodes[after.name].outputs)
        if not left & right:
            wrong.append(f"{before} {after.direction} {after}")
    return wrong


def chains(graph: RescalingGraph) -> list[tuple[Link, ...]]:
    found = [explain(graph, name)[0] for name in graph.network.weights]
    sides = [side for item in found for side in (item.output, item.input)]
    return [chain for side in sides for chain in (side.pin, side.tie) if chain]


@pytest.mark.parametrize("name", CHAINED)
def test_chains_are_ways_through_the_network(name: str) -> None:
    graph = network(name)
    found = chains(graph)
    assert found
    assert not [step for chain in found for step in broken(graph, chain)]


def test_a_broken_chain_is_seen() -> None:
    graph = network("transformer")
    chain = max(chains(graph), key=len)
    assert broken(graph, (*chain[:1], *chain[2:]))


@pytest.mark.parametrize("name", CHAINED)
def test_every_pinned_or_tied_side_has_its_chain(name: str) -> None:
    graph = network(name)
    for layer in summarise(graph).layers:
        explained = only(graph, layer.name)
        for side, reasons in ((layer.output, explained.output), (layer.input, explained.input)):
            assert bool(reasons.pin) == (side.free < side.channels)
            assert bool(reasons.tie) == bool(side.tied)
