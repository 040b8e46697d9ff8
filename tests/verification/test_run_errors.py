"""What runtimes raise while they run a model ends as a `RunError` that names node and inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from graphnorm.errors import GraphNormError, InputError, RunError
from graphnorm.frontends.onnx.load import to_model
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.frontends.torch.read import export_program
from graphnorm.verification.onnx.float64 import Float64Runner
from graphnorm.verification.onnx.runner import OnnxRunner, hidden_values
from graphnorm.verification.run_errors import reason
from graphnorm.verification.torch.runner import TorchRunner
from graphnorm.verification.torch.runner import hidden_values as torch_hidden_values

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
TABLE = np.ones((4, 3), np.float32)


def onnx_model(
    node: onnx.NodeProto, inputs: dict[str, tuple[int, Sequence[Any]]], weights: dict[str, Any]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


REFUSED: dict[str, tuple[onnx.ModelProto, list[Any], str]] = {
    "index out of range": (
        onnx_model(
            helper.make_node("Gather", ["w", "i"], ["y"], name="look up"), {"i": (INT64, [2])}, {"w": TABLE}
        ),
        [np.array([0, 100])],
        r"Gather node 'look up' fails on i int64\(2,\): indices element out of data bounds, idx=100",
    ),
    "node without a name": (
        onnx_model(helper.make_node("Gather", ["w", "i"], ["y"]), {"i": (INT64, [2])}, {"w": TABLE}),
        [np.array([0, -9])],
        r"Gather node fails on i int64\(2,\): indices element out of data bounds",
    ),
    "sizes that do not fit": (
        onnx_model(
            helper.make_node("Reshape", ["x", "s"], ["y"], name="fold"),
            {"x": (FLOAT, [4]), "s": (INT64, [2])},
            {},
        ),
        [np.ones(4, np.float32), np.array([3, 3])],
        r"Reshape node 'fold' fails on x float32\(4,\), s int64\(2,\): .*cannot be reshaped",
    ),
    "more memory than there is": (
        onnx_model(
            helper.make_node("Expand", ["x", "s"], ["y"], name="grow"),
            {"x": (FLOAT, [1]), "s": (INT64, [2])},
            {},
        ),
        [np.ones(1, np.float32), np.array([2**21, 2**21])],
        r"Expand node 'grow' fails on .*: Failed to allocate memory",
    ),
    "an input of another shape": (
        onnx_model(helper.make_node("MatMul", ["x", "w"], ["y"]), {"x": (FLOAT, [2, 4])}, {"w": TABLE}),
        [np.ones((2, 5), np.float32)],
        r"run fails on x float32\(2, 5\): Got invalid dimensions for input: x .*Got: 5 Expected: 4",
    ),
    "an input of another type": (
        onnx_model(helper.make_node("MatMul", ["x", "w"], ["y"]), {"x": (FLOAT, [2, 4])}, {"w": TABLE}),
        [np.ones((2, 4), np.float64)],
        r"run fails on x float64\(2, 4\): Unexpected input data type",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_onnxruntime_raises(name: str) -> None:
    proto, inputs, message = REFUSED[name]
    model = to_model(proto, name)
    network = read_onnx(model)
    with pytest.raises(RunError, match="onnxruntime's " + message):
        OnnxRunner(model, network, "cpu").run(inputs)
    with pytest.raises(RunError, match="onnxruntime's " + message):
        hidden_values(model, network, inputs)


def test_what_the_reference_implementation_raises() -> None:
    model = to_model(REFUSED["index out of range"][0], "m")
    runner = Float64Runner(model, read_onnx(model))
    with pytest.raises(
        RunError, match=r"reference implementation fails on i int64\(2,\): IndexError: index 100"
    ):
        runner.run([np.array([0, 100])])


def test_a_model_that_onnxruntime_cannot_load() -> None:
    proto = onnx_model(helper.make_node("Relu", ["x"], ["y"]), {"x": (FLOAT, [2])}, {})
    model = to_model(proto, "m")
    network = read_onnx(model)
    model.graph.node(0).op_type = "Unknown"
    with pytest.raises(InputError, match=r"onnxruntime cannot load the model.*Unknown"):
        OnnxRunner(model, network, "cpu")


class Fails(nn.Module):
    """Raises what it is given where its input is negative."""

    def __init__(self, raises: Callable[[], Exception]) -> None:
        super().__init__()
        self.raises = raises

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.min() < 0:
            raise self.raises()
        return x


class OwnError(Exception):
    """Of a class that nobody else knows."""


MODULES: dict[str, tuple[nn.Module, np.ndarray, str]] = {
    "index out of range": (
        nn.Sequential(nn.Embedding(4, 3), nn.ReLU()),
        np.array([0, 7]),
        r"Embedding '0' fails on input 0 int64\(2,\): IndexError: index out of range",
    ),
    "sizes that do not fit": (
        nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(4, 3))),
        np.ones((2, 5), np.float32),
        r"Linear '1.0' fails on input 0 float32\(2, 5\): mat1 and mat2 shapes cannot be multiplied",
    ),
    "an assertion": (
        nn.Sequential(Fails(AssertionError)),
        -np.ones(2, np.float32),
        r"Fails '0' fails on .*: AssertionError; give",
    ),
    "a key": (
        Fails(lambda: KeyError("mask")),
        -np.ones(2, np.float32),
        r"Fails fails on .*: KeyError: 'mask'; give",
    ),
    "memory": (
        nn.Sequential(Fails(MemoryError)),
        -np.ones(2, np.float32),
        "there is not enough memory; give",
    ),
    "a class of its own": (
        nn.Sequential(Fails(lambda: OwnError("two lines\nof text"))),
        -np.ones(2, np.float32),
        r"Fails '0' fails on .*: two lines; give",
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_what_torch_raises(name: str) -> None:
    module, array, message = MODULES[name]
    with pytest.raises(RunError, match="torch's run of .*" + message) as caught:
        TorchRunner(module, ((torch.from_numpy(array),), {}), "cpu").run([array])
    assert caught.value.__cause__ is not None


def test_the_node_of_an_exported_program() -> None:
    net = nn.Sequential(nn.Embedding(4, 3), nn.ReLU())
    program = torch.export.export(net, (torch.tensor([0, 1]),))
    runner = TorchRunner(program, ((torch.tensor([0, 1]),), {}), "cpu")
    with pytest.raises(RunError, match=r"torch's run of node 'embedding' in .*input 0 int64\(2,\)"):
        runner.run([np.array([0, 9])])
    with pytest.raises(RunError, match=r"torch's run of GraphModule fails on input 0 int64\(2,\)"):
        torch_hidden_values(export_program(net, (torch.tensor([0, 1]),)), net, [np.array([0, 9])])


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("\n  first \nsecond"), "first"),
        (ValueError(), "ValueError"),
        (KeyError("a"), "KeyError: 'a'"),
        (MemoryError("4 TiB"), "there is not enough memory (4 TiB)"),
        (RuntimeError("x" * 1000), "x" * 300 + "..."),
    ],
)
def test_reasons_are_short(error: Exception, text: str) -> None:
    assert reason(error) == text


def test_a_run_error_is_one_of_graphnorm() -> None:
    assert issubclass(RunError, GraphNormError)
    assert not issubclass(RunError, InputError)
