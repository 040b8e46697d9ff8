"""A short run of tools/sweep: degenerate tensors and attributes out of range end in a model or a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

import graphnorm
from graphnorm.errors import ModelFileError
from graphnorm.frontends.torch.aten.table import LOWERINGS
from graphnorm.frontends.torch.read import read_torch
from graphnorm.ir import Node
from graphnorm.rescaling.graph import build
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Role
from graphnorm.scales.registry import Rule
from graphnorm.scales.rules import movement
from graphnorm.scales.rules.table import default_registry
from tests.support.planting import plant
from tests.support.torch_functions import Fn, check
from tools.sweep import operators_onnx, operators_torch
from tools.sweep.__main__ import main
from tools.sweep.trial import attempt

MATRIX, ROW = [2, 3], np.ones(3, np.float32)


def test_torch_functions() -> None:
    found = list(operators_torch.outcomes(part=11, parts=97))
    assert [outcome for outcome in found if outcome.is_finding] == []
    assert sum(outcome.kind == "done" for outcome in found) > 20


def test_onnx_operators() -> None:
    found = list(operators_onnx.outcomes(part=5, parts=97))
    assert [outcome for outcome in found if outcome.is_finding] == []
    assert {outcome.kind for outcome in found} == {"done", "refused"}


@pytest.mark.parametrize("operator", ["GatherND", "ScatterND"])
def test_indices_of_several_axes(operator: str) -> None:
    """Of tensors without entries, too; ONNX's shape inference ends the process at some `batch_dims`."""
    found = list(operators_onnx.outcomes([operator]))
    assert [outcome for outcome in found if outcome.is_finding] == []


def test_all_operators_have_cases() -> None:
    assert len(operators_onnx.operators()) > 150
    assert all(any(operators_onnx.cases(op, 1)) for op in operators_onnx.operators())


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0), (2, 3)])
@pytest.mark.parametrize("times", [1, 2, 3, 7])
def test_differences(shape: tuple[int, ...], times: int) -> None:
    if shape:
        check(Fn(lambda x: torch.diff(x, n=times)), torch.rand(shape))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.cumprod(1),
        lambda x: torch.ops.aten._fused_rms_norm(x.sum(), [1], x.new_ones(1), 1e-3)[0],
        lambda x: nn.functional.scaled_dot_product_attention(x, x, x),
        lambda x: nn.functional.batch_norm(x.T, torch.zeros(2), torch.ones(2), torch.ones(2)),
    ],
)
def test_nothing_along_an_axis(function: Callable[[Tensor], Any]) -> None:
    model = operators_torch.Scaled(function, 0)
    assert graphnorm.canonicalize(model, torch.rand(2, 0), verify=False).report.remarks == ()


@pytest.mark.parametrize("axes", [(), (0,), (-1,)])
def test_numbers_are_flipped(axes: tuple[int, ...]) -> None:
    check(Fn(lambda x: x.flip(axes)), torch.tensor(1.5))


def test_findings_are_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*arguments: Any) -> Any:
        raise IndexError("planted")

    def model(x: Tensor) -> Any:
        return graphnorm.canonicalize(operators_torch.Scaled(torch.relu, 0), (x,), verify=False)

    x = torch.rand(3)
    assert attempt("relu", lambda: model(x)).kind == "done"
    assert attempt("no model", lambda: graphnorm.canonicalize(3)).kind == "refused"
    assert attempt("raises", fails).text == "IndexError: planted"
    assert attempt("raises", fails).kind == "raised"
    monkeypatch.setitem(LOWERINGS.table, "relu.default", fails)
    found = attempt("relu", lambda: model(x))
    assert found.kind == "reported"
    assert "IndexError: planted" in found.text
    plant(monkeypatch, movement.MOVES, "Slice", fails)
    operators = operators_onnx.outcomes
    monkeypatch.setattr(operators_onnx, "outcomes", lambda **rest: operators(["Slice"], 1, **rest))
    assert main(["onnx", "--part", "0/9"]) == 1
    assert "reported: Slice(" in capsys.readouterr().out


def node_of(op: str, shapes: list[Any], **attributes: Any) -> onnx.ModelProto:
    """An operator on inputs (lists of sizes) and constants (arrays), after a gain; None: absent."""
    names = ["" if shape is None else f"x{k}" for k, shape in enumerate(shapes)]
    given = list(zip(names, shapes, strict=True))
    inputs = [helper.make_tensor_value_info(n, 1, s) for n, s in given if isinstance(s, list)]
    tensors = [numpy_helper.from_array(s, n) for n, s in given if isinstance(s, np.ndarray)]
    tensors.append(numpy_helper.from_array(np.array(2, np.float32), "gain"))
    nodes = [helper.make_node("Mul", [names[0], "gain"], ["u"])] if isinstance(shapes[0], list) else []
    first = "u" if nodes else names[0]
    nodes.append(helper.make_node(op, [first, *names[1:]], ["y"], "node", **attributes))
    outputs = [helper.make_empty_tensor_value_info("y")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)])


def ints(*values: Any) -> Any:
    return np.array(values, np.int64)


def kernel(*shape: int) -> Any:
    return np.ones(shape, np.float32)


FAULTS: list[tuple[str, Callable[[], onnx.ModelProto]]] = [
    ("arguments must be lists", lambda: node_of("Slice", [MATRIX, ints([0]), ints(1)])),
    ("of one length", lambda: node_of("Slice", [MATRIX, ints(0, 0), ints(1)])),
    ("4 pads for 1 axes, expected 2", lambda: node_of("Pad", [MATRIX, ints(1, 1, 1, 1), None, ints(0)])),
    ("the axis must be one number", lambda: node_of("CumSum", [MATRIX, ints()])),
    ("as many axes as each other", lambda: node_of("GatherElements", [MATRIX, ints(0)], axis=0)),
    (
        "indices and updates of shape",
        lambda: node_of("ScatterElements", [MATRIX, ints([0]), kernel(1, 2)], axis=0),
    ),
    ("do not point into", lambda: node_of("ScatterND", [MATRIX, ints([0, 0, 0]), ROW])),
    ("updates of shape", lambda: node_of("ScatterND", [MATRIX, ints([0]), kernel(3)])),
    ("R of shape", lambda: node_of("RNN", [[2, 1, 3], kernel(1, 4, 3), kernel(1, 4, 5)], hidden_size=4)),
    ("W of shape", lambda: node_of("LSTM", [[2, 1, 3], kernel(1, 4, 3), kernel(1, 16, 4)], hidden_size=4)),
    (
        "must have 3 axes",
        lambda: node_of("GRU", [[2, 1, 3], kernel(12, 3), kernel(1, 12, 4)], hidden_size=4),
    ),
    ("are not blocks of 2 x 2", lambda: node_of("DepthToSpace", [[1, 6, 2, 2]], blocksize=2)),
    ("has no blocks of 2 x 2", lambda: node_of("SpaceToDepth", [[1, 6, 3, 2]], blocksize=2)),
    (
        "channels are no 4 groups",
        lambda: node_of("GroupNormalization", [[1, 6], kernel(6), kernel(6)], num_groups=4),
    ),
    ("gain or bias of shape", lambda: node_of("InstanceNormalization", [[1, 6, 2], kernel(6), kernel(5)])),
    ("bias of shape", lambda: node_of("Conv", [[1, 6, 4, 4], kernel(2, 6, 1, 1), kernel(3)])),
    ("time and batch axis", lambda: node_of("ReverseSequence", [MATRIX, ints(1, 1)], time_axis=7)),
    (
        "heads do not divide",
        lambda: node_of("Attention", [[1, 2, 4], [1, 2, 4], [1, 2, 4]], q_num_heads=3, kv_num_heads=1),
    ),
    ("heads cannot share", lambda: node_of("Attention", [[1, 3, 2, 4], [1, 2, 2, 4], [1, 2, 2, 4]])),
    ("do not fit", lambda: node_of("Attention", [[1, 2, 2, 4], [1, 2, 2, 5], [1, 2, 2, 5]])),
    ("would be of size", lambda: node_of("Pad", [MATRIX, ints(-1, -1, -2, -1)])),
    (
        "a head of K of shape",
        lambda: node_of("Attention", [[1, 2, 4], [1, 2, 4], [1, 2, 4]], q_num_heads=1, kv_num_heads=2),
    ),
    ("samples of the indices", lambda: node_of("GatherND", [[3, 2], ints([0], [0])], batch_dims=1)),
    ("does not order the 2 axes", lambda: node_of("Transpose", [MATRIX], perm=[0])),
    ("reach beyond", lambda: node_of("GatherElements", [MATRIX, ints([0] * 4)], axis=0)),
    ("a batch of channels", lambda: node_of("InstanceNormalization", [[3], kernel(3), kernel(3)])),
    ("an operand has no name", lambda: node_of("Sum", [MATRIX, None])),
]  # fmt: skip


@pytest.mark.parametrize(("words", "made"), FAULTS, ids=[words for words, _ in FAULTS])
def test_operands_that_do_not_fit(words: str, made: Callable[[], onnx.ModelProto]) -> None:
    """A sentence that names the node; ONNX's shape inference takes all of these."""
    with pytest.raises(ModelFileError, match=words) as caught:
        graphnorm.trace(made())
    assert "node" in str(caught.value)


def test_fitting_operands_are_taken() -> None:
    for model in (
        node_of("RNN", [[2, 0, 3], kernel(1, 4, 3), kernel(1, 4, 4)], hidden_size=4),
        node_of("TensorScatter", [[2, 3, 2], [2, 1, 2]]),
        node_of("Transpose", [MATRIX], perm=[1, 0]),
        node_of("Conv", [[1, 6, 4, 4], kernel(2, 6, 1, 1), kernel(2, 1)]),
        node_of("GatherElements", [MATRIX, ints([0] * 3)], axis=0),
        node_of("Slice", [MATRIX, ints(0, 0), ints(1, 2)]),
        node_of("CumSum", [MATRIX, np.array(1)]),
        node_of("CumProd", [MATRIX, ints(1)]),
        node_of("ScatterND", [MATRIX, ints([0]), kernel(1, 3)]),
        node_of("GRU", [[2, 1, 3], kernel(1, 12, 3), kernel(1, 12, 4)], hidden_size=4),
        node_of("Attention", [[1, 2, 4], [1, 2, 2], [1, 2, 2]], q_num_heads=2, kv_num_heads=1),
    ):
        assert graphnorm.trace(model).remarks == ()


def test_scales_of_another_shape_are_a_defect() -> None:
    """Of the rule that demands them; they would surface where the weight is multiplied."""

    def wide(ctx: Context, node: Node) -> None:
        ctx.demand(node.inputs[1], [(1.0, ctx.fresh((7,), "channels"))], Role.WEIGHT)

    graph = read_torch(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), (torch.rand(4, 3),))
    found = build(graph, default_registry().replaced(Rule("", wide, "planted"), "MatMul"))
    assert found.dimension == 0
    assert "scales of shape (7, 1) for '0.weight' of shape (5, 3)" in found.remarks[0]
