"""Explanations: status of each layer's sides, and the chains of causes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.demo_models import resnet18c, small_onnx
from graphnorm.errors import InputError
from graphnorm.explain import Layer, explain, summarise, why
from graphnorm.graph import RescalingGraph


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


def layers(graph: RescalingGraph) -> dict[str, Layer]:
    return {layer.name: layer for layer in summarise(graph).layers}


def test_statuses(gated: RescalingGraph) -> None:
    found = layers(gated)
    assert list(found) == [f"{name}.weight" for name in ("first", "inner", "back", "wide", "last")]
    assert found["first.weight"].output.tied == ("back.weight",)
    assert found["back.weight"].status == "tied"
    assert found["inner.weight"].status == "free"
    assert found["wide.weight"].output.status == "pinned"
    assert found["wide.weight"].status == "partly"
    assert found["wide.weight"].input.tied == ("inner.weight",)
    assert found["last.weight"].status == "pinned"


def test_dead_neurons_are_counted(gated: RescalingGraph) -> None:
    assert sum(summarise(gated).degenerate.values()) == 1


def test_wholly_degenerate_layer() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.zero_()  # type: ignore[operator]
    graph = graphnorm.trace(model, torch.randn(1, 3))
    assert layers(graph)["0.weight"].status == "degenerate"


def test_why_names_the_saturation(gated: RescalingGraph) -> None:
    (cause,) = why(gated, "wide")
    assert cause.op == "Tanh"
    (explained,) = explain(gated, "last.weight")
    assert [cause.op for cause in explained.output] == ["network output"]
    assert [cause.op for cause in explained.input] == ["Tanh"]


def test_why_follows_a_chain_through_the_skip() -> None:
    graph = graphnorm.trace(resnet18c(width=2), torch.randn(1, 3, 8, 8))
    assert why(graph, "blocks.0.bn1") == ()
    assert [cause.op for cause in why(graph, "fc")] == ["network output"]
    assert why(graph, "conv")[-1].op == "network input"


def test_why_of_a_merged_branch() -> None:
    class Merged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            a, b = torch.relu(self.a(x)), torch.relu(self.b(x))
            return a + b, torch.sigmoid(b)

    graph = graphnorm.trace(Merged(), torch.randn(2, 3))
    assert layers(graph)["a.weight"].output.status == "pinned"
    assert why(graph, "a")[-1].op in {"network output", "Sigmoid"}


def test_free_layer_has_no_chain(gated: RescalingGraph) -> None:
    assert why(gated, "inner") == ()
    said = explain(gated, "inner")[0].to_dict()
    assert said["status"] == "free"
    assert said["chains"] == {"output": [], "input": []}


def test_onnx_sources() -> None:
    graph = graphnorm.trace(small_onnx())
    assert layers(graph)["project.weight"].output.tied == ("stem.weight",)
    (cause,) = why(graph, "wide.weight")
    assert cause.op == "HardSwish"
    assert [item.layer.name for item in explain(graph, "depthwise")] == ["depthwise.weight"]


def test_unknown_operator_is_the_cause() -> None:
    from onnx import TensorProto, helper, numpy_helper

    model = small_onnx()
    weight = numpy_helper.from_array(
        numpy_helper.to_array(model.graph.initializer[0])[:3, :, 0, 0], "odd.weight"
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
    summary = summarise(graphnorm.trace(helper.make_model(graph, opset_imports=opsets)))
    assert [layer.status for layer in summary.layers] == ["pinned"]
    (said,) = explain(summary.graph, "odd.weight", summary)
    assert said.output[-1].op == "elsewhere::Strange"
    assert said.output[-1].reason in {"unknown operator", "odd.weight is used more than once"}


def test_unknown_names(gated: RescalingGraph) -> None:
    with pytest.raises(InputError, match=r"--why bakc: .*close names: back"):
        why(gated, "bakc")
