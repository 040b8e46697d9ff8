"""Example inputs of ONNX models in other types than declared; results in the kind that was given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphnorm
from graphnorm.errors import InputError
from graphnorm.frontends.onnx.examples import typed
from graphnorm.ir import Array, Graph, Value

RNG = np.random.default_rng(0)


def network(**types: str) -> Graph:
    values = {name: Value(name, (2, 3), dtype) for name, dtype in types.items()}
    return Graph("net", tuple(types), (), (), values, {}, {})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("float64", "float32"), ("float32", "float64"), ("float16", "float32"), ("float32", "bfloat16"),
        ("bfloat16", "float16"), ("int32", "int64"), ("int64", "int32"), ("int64", "uint8"),
        ("uint8", "int8"),
    ],
)  # fmt: skip
def test_types_of_one_kind_are_converted(given: str, wanted: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(np.dtype(given))
    read, (found,) = typed(network(x=wanted), [array])
    assert found.dtype.name == wanted
    assert np.array_equal(found.astype(np.float64), array.astype(np.float64))
    assert read.remarks == (f"example input 'x' was {given} and is taken as {wanted}",)


def test_what_fits_stays_as_it_is() -> None:
    arrays = [np.ones(3, np.float32), np.array(["a"]), np.array([np.inf, np.nan], ml_dtypes.bfloat16)]
    plain = network(x="float32", words="object", b="bfloat16")
    read, found = typed(plain, arrays)
    assert all(one is two for one, two in zip(arrays, found, strict=True))
    assert read.remarks == ()


def test_infinities_are_no_overflow() -> None:
    _, (found,) = typed(network(x="float16"), [np.array([np.inf, -np.inf, np.nan])])
    assert np.array_equal(found, np.array([np.inf, -np.inf, np.nan], np.float16), equal_nan=True)


@pytest.mark.parametrize(
    ("array", "wanted", "message"),
    [
        (np.array([1e5]), "float16", "'x' is float64, the model takes float16, which cannot hold its values"),
        (np.array([300]), "uint8", "'x' is int64, the model takes uint8, which cannot hold its values"),
        (np.array([-1], np.int8), "uint64", "cannot hold its values"),
        (np.array([2**63], np.uint64), "int64", "cannot hold its values"),
        (np.array([True]), "float32", "'x' is bool, the model takes float32; convert it"),
        (np.array([1]), "float32", "int64, the model takes float32; convert it"),
        (np.array([1.0]), "int64", "float64, the model takes int64; convert it"),
        (np.array([1j]), "float32", "complex128, the model takes float32; convert it"),
        (np.array(["a"]), "float32", "the model takes float32; convert it"),
        (np.zeros(1, [("a", np.float32)]), "float32", "the model takes float32; convert it"),
    ],
)
def test_types_of_other_kinds_are_refused(array: Array, wanted: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        typed(network(x=wanted), [array])


def perceptron() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Clip", ["h", "low", "high"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in "xy"]
    weights: dict[str, Any] = {"low": 0.0, "high": 6.0}
    weights |= {name: RNG.normal(size=(4, 4)) for name in "ab"}
    held = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("example", [None, np.ones((2, 4)), {"x": np.ones((2, 4))}])
@pytest.mark.parametrize("options", [{}, {"permute": True}, {"rewrite_clips": True}, {"mode": "exact"}])
def test_a_proto_gives_a_proto(tmp_path: Path, example: Any, options: dict[str, Any]) -> None:
    given = perceptron()
    before = given.SerializeToString(deterministic=True)
    result = graphnorm.canonicalize(given, example, **options)
    assert isinstance(result.model, onnx.ModelProto)
    onnx.checker.check_model(result.model)
    assert given.SerializeToString(deterministic=True) == before
    said = "example input 'x' was float64 and is taken as float32"
    assert (said in result.report.remarks) == (example is not None)
    result.source.save(result.model, tmp_path / "out.onnx", False)
    assert onnx.load(tmp_path / "out.onnx") == result.model
    assert graphnorm.check(given, result.model).verdict in {"proved", "identical", "agrees"}


def test_a_model_of_onnx_ir_gives_one() -> None:
    assert isinstance(graphnorm.canonicalize(onnx_ir.from_proto(perceptron())).model, onnx_ir.Model)
