"""Weights below the normal range of their format: what counts may not be lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper, numpy_helper

import graphnorm
from graphnorm.certificates.verify import save_certificate, verify_certificate
from graphnorm.ir import float_format
from graphnorm.verification.certificate import check_certificate
from graphnorm.weights.coefficients import rescale
from graphnorm.weights.products import multiplied
from graphnorm.weights.underflow import underflowed

FORMATS: list[Any] = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
RNG = np.random.default_rng(0)


def smallest(dtype: Any) -> float:
    return float_format(np.dtype(dtype)).smallest_normal


def scaled(old: np.ndarray, *factors: np.ndarray) -> np.ndarray | None:
    return underflowed(old, multiplied(old, factors, exact=False)[0], factors)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 3), (7,), (1,), ()], ids=str)
@pytest.mark.parametrize("bits", [-3, 1, 4])
def test_few_bits_left(dtype: Any, shape: tuple[int, ...], bits: int) -> None:
    old = np.asarray(RNG.uniform(1, 2, shape)).astype(dtype)
    least = smallest(dtype) * float_format(np.dtype(dtype)).eps  # the smallest of all
    between = (
        np.floor(1.3 * 2.0**bits) + 0.4
    ) * least  # where the first entry goes: not a number of the format
    factor = np.full((1,) * len(shape), between / float(old.flat[0]))
    bad = scaled(old, factor)
    assert bad is not None
    assert bad.any()
    assert scaled(old, np.full((1,) * len(shape), 4 * smallest(dtype))) is None, "in the normal range"


@pytest.mark.parametrize("dtype", FORMATS)
def test_small_entries_beside_large_ones_may_go(dtype: Any) -> None:
    wide = RNG.uniform(1, 2, (8, 8))
    wide[np.arange(8), RNG.permutation(8)] = smallest(dtype) * 1.1
    old = wide.astype(dtype)
    assert scaled(old, np.full((8, 1), 0.03)) is None
    wide[3] = smallest(dtype) * RNG.uniform(1, 2, 8)  # a whole row
    bad = scaled(wide.astype(dtype), np.full((8, 1), 0.03))
    assert bad is not None
    assert bad[3].any()
    column = wide.T.astype(dtype)
    assert scaled(column, np.full((8, 1), 0.03)) is not None, "a whole column"


def test_zeros_lose_nothing() -> None:
    old = np.zeros((3, 4), np.float32)
    assert scaled(old, np.full((3, 1), 1e-30)) is None
    assert underflowed(old[:0], old[:0], [np.ones((1, 1))]) is None


def test_what_is_small_already_and_stays_loses_nothing() -> None:
    old = np.full(5, 3e-45, np.float32)
    assert scaled(old, np.full(5, 2.0)) is None
    assert scaled(old, np.full(5, 0.5)) is None, "exact"
    assert scaled(old, np.full(5, 0.3)) is not None


# In whole models.


def mlp(weights: list[np.ndarray], bias: np.ndarray | None = None) -> onnx.ModelProto:
    """x, weights with Relu between, a bias after the first."""
    kind = helper.np_dtype_to_tensor_dtype(weights[0].dtype)
    nodes, last = [], "x"
    for index in range(len(weights)):
        nodes.append(helper.make_node("MatMul", [last, f"W{index}"], [f"h{index}"]))
        last = f"h{index}"
        if bias is not None and not index:
            nodes.append(helper.make_node("Add", [last, "bias"], ["biased"]))
            last = "biased"
        if index < len(weights) - 1:
            nodes.append(helper.make_node("Relu", [last], [f"r{index}"]))
            last = f"r{index}"
    held = {f"W{index}": weight for index, weight in enumerate(weights)} | (
        {} if bias is None else {"bias": bias}
    )
    inputs = [helper.make_tensor_value_info("x", kind, [2, weights[0].shape[0]])]
    outputs = [helper.make_tensor_value_info(last, kind, [2, weights[-1].shape[1]])]
    initializers = [numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph(nodes, "mlp", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def with_weights(model: onnx.ModelProto, **arrays: np.ndarray) -> onnx.ModelProto:
    other = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in other.graph.initializer:
        if tensor.name in arrays:
            old = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name].astype(old.dtype), tensor.name))
    return other


def half_model() -> onnx.ModelProto:
    weights = [RNG.normal(size=shape) * scale for shape, scale in (((6, 8), 1e-2), ((8, 3), 0.1))]
    return mlp([weight.astype(np.float16) for weight in weights])


@pytest.mark.parametrize("factor", [1e-3, 1e-5, 1e-7])
def test_check_proves_no_lost_weights(factor: float) -> None:
    a = half_model()
    first, second = (numpy_helper.to_array(t).astype(np.float64) for t in a.graph.initializer)
    b = with_weights(a, W0=first * factor, W1=np.clip(second / factor, -6e4, 6e4))
    assert graphnorm.check(a, b, seconds=0.5).verdict != "proved"


def test_check_proves_what_keeps_its_bits() -> None:
    a = half_model()
    first, second = (numpy_helper.to_array(t).astype(np.float64) for t in a.graph.initializer)
    assert graphnorm.check(a, with_weights(a, W0=first * 3, W1=second / 3), seconds=0.5).verdict == "proved"


@pytest.mark.parametrize("bias", [None, 1e-7, 2e-5])
@pytest.mark.parametrize("scales", [(1e-2, 3e-5), (3e-5, 30.0), (1e-4, 1e-4)])
def test_canonicalize_holds_what_would_be_lost(scales: tuple[float, float], bias: float | None) -> None:
    """Half precision, weights near its lower end: proved, and never refused."""
    weights = [
        (RNG.normal(size=s) * f).astype(np.float16) for s, f in zip(((6, 8), (8, 3)), scales, strict=True)
    ]
    array = None if bias is None else (RNG.normal(size=8) * bias).astype(np.float16)
    result = graphnorm.canonicalize(mlp(weights, array), verify=False)
    assert result.report.objective["after"] <= result.report.objective["before"]
    assert graphnorm.check(mlp(weights, array), result.model, seconds=0.5).verdict in {"proved", "identical"}


@pytest.mark.parametrize("scale", [-92.0, 92.0])
def test_a_certificate_of_lost_weights_is_rejected(scale: float) -> None:
    """Equations hold, every weight is correctly rounded, and one layer is nearly nothing."""
    weights = [(RNG.normal(size=s) * 1e-6).astype(np.float32) for s in ((6, 8), (8, 3))]
    graph = graphnorm.trace(mlp(weights))
    rescaled = rescale(graph, np.full(graph.dimension, scale))
    assert len(rescaled.lost) == graph.dimension
    new = {**graph.network.weights, **rescaled.weights}
    found = check_certificate(graph, new, graph.log_scales(np.full(graph.dimension, scale)))
    assert not found.valid
    assert "fall below the normal range of float32" in found.failure


@pytest.mark.parametrize("honest", [True, False])
def test_the_gap_is_computed_anew(honest: bool, tmp_path: Path) -> None:
    a = mlp(
        [
            (RNG.normal(size=s) * f).astype(np.float32)
            for s, f in (((6, 8), 1), ((8, 9), 9), ((9, 5), 1), ((5, 3), 7))
        ]
    )
    onnx.save(a, tmp_path / "a.onnx")
    result = graphnorm.canonicalize(tmp_path / "a.onnx", max_cycles=1000 if honest else 1, method="cyclic")
    save_certificate(result, tmp_path / "c.json")
    onnx.save(onnx_ir.to_proto(result.model), tmp_path / "b.onnx")
    claims = json.loads((tmp_path / "c.json").read_text())
    (tmp_path / "c.json").write_text(json.dumps({**claims, "gap": claims["gap"] if honest else 0.0}))
    found = verify_certificate(tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "c.json")
    assert found.valid, found.failure
    assert ("not verified" in found.remark) is not honest
    assert ("recomputed" in found.remark) is True
