"""Initializers that callers may override: kept and named, or taken as weights on request."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphnorm
from graphnorm.certificates.verify import save_certificate, verify_certificate
from graphnorm.errors import InputError
from graphnorm.explain import explain
from graphnorm.ir import Array
from graphnorm.passes.onnx import CanonicalizePass

X = np.random.default_rng(1).normal(size=(2, 3, 8)).astype(np.float32)
SHAPES = {"w1": (4, 3, 3), "b1": (4,), "slope": (4, 1), "w2": (5, 4, 1)}


def network(inputs: Sequence[str], ir_version: int = 9) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="first"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Mul", ["r", "slope"], ["d"], name="scaled"),
        helper.make_node("Conv", ["d", "w2"], ["y"], name="last"),
    ]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPES[name]) for name in inputs]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape), *given],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 5, 6])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    opset = 17 if ir_version > 3 else 8
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def run(model: onnx.ModelProto | onnx_ir.Model, **given: Array) -> Array:
    proto = onnx_ir.to_proto(model) if isinstance(model, onnx_ir.Model) else model
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": X, **given})[0])


def same(a: Array, b: Array) -> bool:
    return bool(np.abs(a - b).max() <= 1e-5 * np.abs(a).max())


@pytest.mark.parametrize("inputs", [["w1"], ["w2"], ["slope"], ["b1"], ["w1", "w2"], list(SHAPES)])
def test_each_of_them_is_named_and_keeps_its_meaning(inputs: list[str]) -> None:
    model = network(inputs)
    result = graphnorm.canonicalize(model)
    causes = [str(cause) for cause in result.graph.pins if "initializer" in str(cause)]
    assert len(causes) == len(inputs)
    assert all(any(repr(name) in cause for cause in causes) for name in inputs)
    (remark,) = result.report.remarks
    assert "inputs_as_weights" in remark
    assert all(repr(name) in remark for name in inputs)
    other = {name: np.full(SHAPES[name], 0.5, np.float32) for name in inputs}
    assert same(run(model), run(result.model))
    assert same(run(model, **other), run(result.model, **other))


@pytest.mark.parametrize("inputs", [["w1"], ["slope"], list(SHAPES)])
def test_taken_as_weights_they_move_and_are_no_inputs(inputs: list[str]) -> None:
    model = network(inputs)
    before = model.SerializeToString()
    result = graphnorm.canonicalize(model, inputs_as_weights=True)
    free = graphnorm.trace(network([]))
    assert result.graph.dimension == free.dimension == 8
    assert not any("initializer" in str(cause) for cause in result.graph.pins)
    (remark,) = result.report.remarks
    assert remark.startswith("initializers treated as weights")
    assert [value.name for value in result.model.graph.input] == ["x"]
    assert {value.name for value in result.model.graph.initializer} == {*SHAPES}
    assert same(run(model), run(result.model))
    assert model.SerializeToString() == before
    assert graphnorm.check(model, result.model, inputs_as_weights=True).verdict == "proved"
    assert graphnorm.check(model, result.model).verdict in {"agrees", "proved"}


def test_without_any_the_option_changes_nothing() -> None:
    plain, old = network([]), network(list(SHAPES), ir_version=3)
    assert graphnorm.canonicalize(plain, inputs_as_weights=True).report.remarks == ()
    result = graphnorm.canonicalize(old, inputs_as_weights=True)
    assert result.graph.dimension == 8
    assert [value.name for value in result.model.graph.input] == ["x", *SHAPES]  # which version 3 asks for


def test_why_says_the_way_out() -> None:
    with pytest.raises(InputError, match=r"w2: an initializer that is a graph input, too.*as-weights"):
        explain(graphnorm.trace(network(["w2"])), "w2")
    assert explain(graphnorm.trace(network(["w2"]), inputs_as_weights=True), "w2")


def test_certificates_and_passes_take_the_option(tmp_path: Path) -> None:
    model = onnx_ir.from_proto(network(["w1", "w2"]))
    result = graphnorm.canonicalize(model, inputs_as_weights=True)
    result.source.save(result.model, tmp_path / "out.onnx", False)
    save_certificate(result, tmp_path / "c.json", tmp_path / "out.onnx")
    out = tmp_path / "out.onnx"
    assert verify_certificate(model, out, tmp_path / "c.json", inputs_as_weights=True).valid
    assert not verify_certificate(model, out, tmp_path / "c.json").valid
    assert CanonicalizePass(inputs_as_weights=True)(model).modified
    assert [value.name for value in model.graph.inputs] == ["x", "w1", "w2"]


def test_command_line(tmp_path: Path) -> None:
    onnx.save(network(["w1", "w2"]), str(tmp_path / "m.onnx"))

    def graphnorm_said(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "graphnorm", *arguments], cwd=tmp_path, capture_output=True, text=True,
            check=True, env={**os.environ, "COLUMNS": "250"},
        )  # fmt: skip
        return " ".join(done.stdout.split())

    assert "--initializers-as-weights" in graphnorm_said("inspect", "m.onnx")
    said = graphnorm_said("canonicalize", "m.onnx", "-o", "o.onnx", "--initializers-as-weights")
    assert "no longer inputs: 'w1', 'w2'" in said
    assert "proved" in graphnorm_said("check", "m.onnx", "o.onnx", "--initializers-as-weights")
    assert same(run(network([])), run(onnx.load(str(tmp_path / "o.onnx"))))
