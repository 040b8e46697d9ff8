"""A network of experts, rewritten with the choice at its end, computes the same, node by node."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import Tensor, nn

from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.frontends.routing.rewrite import ROUTE, sink_routes
from graphnorm.frontends.torch.read import read_torch
from graphnorm.ir import Array, Node
from graphnorm.rescaling.graph import build
from tests.frontends.routing.test_routing import CASES, EXPERTS, WIDTH, example, grouped_mm, parameter
from tests.support import ir_interpreter

ROWS = 12


class Chosen(nn.Module):
    """Two products and what may stand between them; `key` chooses the experts of rows."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.up, self.down = parameter(EXPERTS, WIDTH, 4), parameter(EXPERTS, 4, 2)
        self.bias, self.gain = parameter(EXPERTS, 4), parameter(4)

    def forward(self, x: Tensor, key: Tensor) -> Tensor:
        h = self.multiplied(x, self.up, key)
        h = torch.cat([torch.relu(h[:, 2:]) * self.gain[:2], h[:, :2] - x[:, :1]], 1)
        h = torch.where(h > 0, h, h.reshape(-1, 2, 2).transpose(1, 2).reshape(-1, 4) / 3)
        if self.form == "picked":
            h = (h + self.bias[key]).unsqueeze(2).squeeze(2)
        return self.multiplied(h, self.down, key)

    def multiplied(self, x: Tensor, weight: Tensor, key: Tensor) -> Tensor:
        if self.form == "grouped":
            return grouped_mm(x, weight, key)
        return torch.matmul(x.unsqueeze(1), weight[key]).squeeze(1)


KEYS = {"grouped": torch.tensor([2, 7, ROWS]), "picked": torch.arange(ROWS) % EXPERTS}


def selected(node: Node, operands: list[Array | None]) -> list[Array]:
    """Route, by its definition."""
    dense, key = operands
    assert dense is not None
    assert key is not None
    rows = np.arange(dense.shape[1] if node.text("key") == "offsets" else len(key))
    experts = np.searchsorted(key, rows, side="right") if node.text("key") == "offsets" else key
    return [np.broadcast_to(dense, (len(dense), len(rows), *dense.shape[2:]))[experts, rows]]


@pytest.mark.parametrize("form", KEYS)
def test_rewritten_graph_computes_the_same(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ir_interpreter.SPECIAL, ROUTE, selected)
    torch.manual_seed(0)
    model, x = Chosen(form), torch.randn(ROWS, WIDTH, dtype=torch.float64)
    graph = read_torch(model, (x, KEYS[form]))
    ops = [node.op for node in graph.nodes]
    assert ops.count(ROUTE) == 1  # all but the last choice went on
    assert ops[-1] == ROUTE
    arrays = dict(zip(graph.inputs, (x.numpy(), KEYS[form].numpy()), strict=True))
    found = ir_interpreter.run(graph, arrays)[graph.outputs[0]]
    np.testing.assert_allclose(found, model(x, KEYS[form]).detach().numpy(), rtol=1e-12)


def test_a_graph_without_experts_stays_the_same_object() -> None:
    graph = read_torch(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)), torch.arange(5))
    assert sink_routes(graph) is graph


def test_a_second_run_changes_nothing() -> None:
    graph = read_torch(CASES["bias"].make("grouped"), example())
    again = sink_routes(graph)
    assert [(node.op, node.inputs, node.outputs) for node in again.nodes] == [
        (node.op, node.inputs, node.outputs) for node in graph.nodes
    ]


def test_torch_grouped_mm_is_the_same_product() -> None:
    class Groups(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.randn(EXPERTS, 16, 24, dtype=torch.bfloat16))
            self.down = nn.Parameter(torch.randn(EXPERTS, 24, 16, dtype=torch.bfloat16))

        def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
            h = torch.relu(F.grouped_mm(x, self.up, offs=offsets))
            return F.grouped_mm(h, self.down, offs=offsets)

    x = torch.randn(ROWS, 16, dtype=torch.bfloat16)
    graph = build(read_torch(Groups(), (x, torch.tensor([2, 7, ROWS], dtype=torch.int32))))
    assert graph.dimension == EXPERTS * 24


def test_onnx_graph() -> None:
    rng = np.random.default_rng(0)
    weights = {"up": rng.normal(size=(EXPERTS, WIDTH, 5)), "down": rng.normal(size=(EXPERTS, 5, 2))}
    nodes = [
        helper.make_node("Gather", ["up", "ids"], ["u"]),
        helper.make_node("Gather", ["down", "ids"], ["d"]),
        helper.make_node("MatMul", ["x", "u"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "d"], ["y"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "experts",
            [
                helper.make_tensor_value_info("x", TensorProto.DOUBLE, [ROWS, 1, WIDTH]),
                helper.make_tensor_value_info("ids", TensorProto.INT64, [ROWS]),
            ],
            [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [ROWS, 1, 2])],
            [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
    )
    graph = sink_routes(read_onnx(model))
    graph.verify()
    assert build(graph).dimension == EXPERTS * 5
