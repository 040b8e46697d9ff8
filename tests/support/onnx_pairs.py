"""Small ONNX models by hand, for pairs that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import graphnorm
from graphnorm.ir import Array

Shape = Sequence[int | str] | None
node = helper.make_node


def value(name: str, shape: Shape, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """A typed input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Mapping[str, Any] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model with weights by name; Python integers are int64."""
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def normal(seed: int, *shape: int) -> Array:
    """Standard normal entries."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def verdict(a: Any, b: Any, inputs: Any = None) -> str:
    """The checker's verdict, with little time for the search."""
    return graphnorm.check(a, b, inputs, seconds=0.2).verdict
