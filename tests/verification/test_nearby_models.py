"""Nearby models, on which rounding noise is drawn: other weights, never other sizes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphnorm
from graphnorm.api.sources import open_model
from graphnorm.verification.onnx.runner import OnnxRunner

_FLOAT = TensorProto.FLOAT


def model(node: onnx.NodeProto, numbers: dict[str, np.ndarray], gain: float = 1.9) -> onnx.ModelProto:
    """A gain per channel, then a node that computes a size from `numbers`."""
    weights = {"g": np.full((1, 3, 1, 1), gain, np.float32), **numbers}
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "g"], ["h"]), *_cast(node)],
        "g",
        [helper.make_tensor_value_info("x", _FLOAT, [1, 3, 5, 5])],
        [helper.make_tensor_value_info("y", _FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _cast(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """With what makes whole numbers of an operand that holds a size."""
    if node.op_type != "Expand":
        return [node]
    return [helper.make_node("Cast", ["sizes"], ["whole"], to=TensorProto.INT64), node]


RESIZE = (
    helper.make_node("Resize", ["h", "", "scales"], ["y"], mode="linear"),
    {"scales": np.array([1, 1, 2.2, 1.8], np.float32)},
)
WHOLE = (
    helper.make_node("Expand", ["h", "whole"], ["y"]),
    {"sizes": np.array([2, 1, 1, 1], np.float32)},
)


@pytest.mark.parametrize(("node", "numbers"), [RESIZE, WHOLE], ids=["Resize", "Cast to integers"])
@pytest.mark.parametrize("size", [None, 0.05])
def test_sizes_are_not_rounded_anew(
    node: onnx.NodeProto, numbers: dict[str, np.ndarray], size: float | None
) -> None:
    source = open_model(model(node, numbers))
    x = np.ones((1, 3, 5, 5), np.float32)
    runner = source.runner(source.model, "cpu")
    (expected,) = runner.run([x])
    gains = set()
    for seed in range(4):
        moved = runner.nearby(seed, size)
        assert isinstance(moved, OnnxRunner)
        held = {name: value.const_value for name, value in moved._model.graph.initializers.items()}
        for name, array in numbers.items():
            tensor = held[name]
            assert tensor is not None
            assert np.array_equal(tensor.numpy(), array)
        gain = held["g"]
        assert gain is not None
        gains.add(gain.numpy().tobytes())
        assert moved.run([x])[0].shape == expected.shape
    assert len(gains) > 1


@pytest.mark.parametrize(("node", "numbers"), [RESIZE, WHOLE], ids=["Resize", "Cast to integers"])
def test_a_difference_behind_sizes_is_found(node: onnx.NodeProto, numbers: dict[str, np.ndarray]) -> None:
    report = graphnorm.check(model(node, numbers), model(node, numbers, gain=1.902), seconds=0.5)
    assert report.verdict == "differs"
