"""Certificates that are consistent in themselves and wrong: weights follow scales that keep no function."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from onnx import TensorProto, numpy_helper

from graphnorm import ir
from graphnorm.api.sources import open_model
from graphnorm.certificates.file import Claims, pack, write
from graphnorm.certificates.hashing import graph_hash, weights_hash
from graphnorm.certificates.verify import verify_certificate
from graphnorm.proof.prove import attempt
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.rescaling.objective import build_problem
from graphnorm.solver.problem import objective
from graphnorm.verification.certificate import Certificate
from graphnorm.weights.coefficients import coefficient

DOUBLE = TensorProto.DOUBLE
LOG2 = float(np.log(2.0))


def model(
    nodes: Sequence[Any], out: Sequence[int], weights: Mapping[str, Any], kind: int = DOUBLE
) -> onnx.ModelProto:
    values = [oh.make_tensor_value_info(n, kind, s) for n, s in (("x", [2, 4]), ("y", out))]
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = oh.make_graph(nodes, "g", values[:1], values[1:], held)
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 18)], ir_version=8)


def verdict(a: onnx.ModelProto, b: onnx.ModelProto, x: Any, exact: bool, folder: Path) -> Certificate:
    """Of a certificate whose hashes and objectives are right."""
    one, two = open_model(a).network, open_model(b).network
    problem = build_problem(graph := build(one), 2.0, 1.0)
    after = float(objective(problem, x[graph.solution.variables]))
    before = float(objective(problem, np.zeros(graph.solution.count)))
    vectors = pack(x, {})
    claims = Claims(
        graph_hash(one), weights_hash(one), graph_hash(two), weights_hash(two),
        exact, 2.0, 1.0, before, after, None, hashlib.sha256(vectors).hexdigest(),
    )  # fmt: skip
    write(folder / "c.json", claims, vectors)
    return verify_certificate(a, b, folder / "c.json")


def follow(a: onnx.ModelProto, x: Any, exact: bool = False) -> onnx.ModelProto:
    """A with each weight times the coefficient that the log-scales say."""
    graph = build(open_model(a).network)
    demands: dict[str, list[Any]] = {}
    for demand in graph.demands:
        demands.setdefault(demand.weight, []).append(demand)
    weights: dict[str, ir.Array] = {
        name: np.asarray(array * coefficient(graph, demands[name], x, exact))
        for name, array in graph.network.weights.items()
        if name in demands
    }
    b = onnx.ModelProto()
    b.CopyFrom(a)
    for tensor in b.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return b


def outgoing(graph: RescalingGraph, weight: str) -> Any:
    """Labels of a first layer's results."""
    (demand,) = (d for d in graph.demands if d.weight == weight)
    return next(labels.ravel() for _, labels in demand.terms if labels.any())


def branches() -> onnx.ModelProto:
    """Two branches added; channel 0 has no weights, and nobody reads it."""
    draw = np.random.default_rng(0).standard_normal
    w1, w2 = draw((4, 5)), draw((4, 5))
    w1[:, 0] = w2[:, 0] = 0
    nodes = [
        oh.make_node("MatMul", ["x", "w1"], ["a"]),
        oh.make_node("MatMul", ["x", "w2"], ["b"]),
        oh.make_node("Add", ["a", "b"], ["c"]),
        oh.make_node("Slice", ["c", "one", "five", "one"], ["h"]),
        oh.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    ends = {"one": np.array([1]), "five": np.array([5])}
    return model(nodes, [2, 3], {"w1": w1, "w2": w2, "v": draw((4, 3)), **ends})


@pytest.mark.parametrize(("large", "off"), [(0.0, 9e-10), (-1e9, 0.9)])
def test_equations_hold_row_by_row_to_the_last_digits(large: float, off: float, tmp_path: Path) -> None:
    a = branches()
    graph = build(open_model(a).network)
    x = np.zeros(graph.scales.constraints.count)
    one, two = outgoing(graph, "w1"), outgoing(graph, "w2")
    assert verdict(a, follow(a, x), x, False, tmp_path).valid
    x[[one[0], two[0]]] = large
    x[one[1]] = off
    assert not verdict(a, follow(a, x), x, False, tmp_path).valid


def test_exponents_of_exact_coefficients_are_integers(tmp_path: Path) -> None:
    """Half a power of two in each factor of a product, a whole one behind it: each is rounded on its own."""
    draw = np.random.default_rng(0).standard_normal
    nodes = [
        oh.make_node("MatMul", ["x", "w1"], ["a"]),
        oh.make_node("Relu", ["a"], ["ra"]),
        oh.make_node("MatMul", ["x", "w2"], ["b"]),
        oh.make_node("Relu", ["b"], ["rb"]),
        oh.make_node("Mul", ["ra", "rb"], ["c"]),
        oh.make_node("MatMul", ["c", "v"], ["y"]),
    ]
    a = model(nodes, [2, 2], {"w1": draw((4, 3)), "w2": draw((4, 3)), "v": draw((3, 2))})
    graph = build(open_model(a).network)
    wanted = np.zeros(graph.scales.constraints.count)
    for weight in ("w1", "w2"):
        wanted[outgoing(graph, weight)] = LOG2
    basis = graph.solution.basis.toarray()
    rows = np.flatnonzero(wanted)
    z = np.linalg.lstsq(basis[rows], wanted[rows], rcond=None)[0]
    whole, half = graph.log_scales(z), graph.log_scales(z / 2)
    assert verdict(a, follow(a, whole, True), whole, True, tmp_path).valid
    assert "not a power of two" in verdict(a, follow(a, half, True), half, True, tmp_path).failure


def test_a_weight_without_a_coefficient_keeps_its_bits(tmp_path: Path) -> None:
    """Half an ulp below a whole number is another number to Floor."""
    nodes = [oh.make_node("Floor", ["w"], ["k"]), oh.make_node("Mul", ["x", "k"], ["y"])]
    whole = np.array([4, 2, 1, 8], dtype=np.float32)
    a, b = (
        model(nodes, [2, 4], {"w": w}, TensorProto.FLOAT) for w in (whole, np.nextafter(whole, np.float32(0)))
    )
    x = np.zeros(build(open_model(a).network).scales.constraints.count)
    assert verdict(a, a, x, False, tmp_path).valid
    assert "off its coefficient, which is 1" in verdict(a, b, x, False, tmp_path).failure
    assert attempt(open_model(a).network, open_model(b).network).proof is None
