"""Lowerings by hand: which operators are left, and that they compute the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphnorm import ir
from graphnorm.alignment.normal import normalise
from graphnorm.ir import Node, Value
from tools.validation.interpret import run

X = np.random.default_rng(0).standard_normal((2, 12))


def graph(
    nodes: Sequence[Node],
    shapes: Mapping[str, Sequence[int]],
    weights: Mapping[str, Any] | None = None,
    constants: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> ir.Graph:
    """From x, and further inputs, to y, in float64."""
    given = {"x": X, **(inputs or {})}
    held = {name: np.asarray(a) for name, a in {**given, **(weights or {}), **(constants or {})}.items()}
    values = {name: Value(name, array.shape, array.dtype.name) for name, array in held.items()}
    values |= {name: Value(name, tuple(shape), "float64") for name, shape in shapes.items()}
    moved, still = ({name: held[name] for name in names or ()} for names in (weights, constants))
    found = ir.Graph("g", tuple(given), ("y",), tuple(nodes), values, moved, still)
    found.verify()
    return found


def operators(network: ir.Graph, *inputs: Any) -> list[str]:
    """Of the normal form, which computes the same and lost nothing on the way."""
    form = normalise(network)
    assert form.defects == ()
    given = [
        X if name == "x" else np.asarray(array)
        for name, array in zip(network.inputs, (X, *inputs), strict=True)
    ]
    for one, two in zip(run(network, given), run(form.graph, given), strict=True):
        np.testing.assert_allclose(one, two)
    return [node.op for node in form.graph.nodes]


@pytest.mark.parametrize("order", ["weight", "bias first"])
def test_a_gain_per_channel_goes_into_a_matrix(order: str) -> None:
    w, b, g = (
        np.random.default_rng(i).standard_normal(shape) for i, shape in enumerate([(12, 5), (5,), (5,)])
    )
    nodes = [Node("a", "MatMul", ("x", "w"), ("a",))]
    nodes += [Node("c", "Add", ("a", "b"), ("c",))] if order != "weight" else []
    nodes.append(Node("y", "Mul", ("c" if order != "weight" else "a", "g"), ("y",)))
    shapes = dict.fromkeys("acy", (2, 5))
    found = operators(
        graph(nodes, shapes, {"w": w, "b": b, "g": g} if order != "weight" else {"w": w, "g": g})
    )
    assert found == (["MatMul"] if order == "weight" else ["MatMul", "Add"])


def test_a_gain_per_row_stays() -> None:
    w, g = np.ones((12, 5)), np.array([[2.0], [3.0]])
    nodes = [Node("a", "MatMul", ("x", "w"), ("a",)), Node("y", "Mul", ("a", "g"), ("y",))]
    assert operators(graph(nodes, {"a": (2, 5), "y": (2, 5)}, {"w": w, "g": g})) == ["MatMul", "Mul"]


@pytest.mark.parametrize(
    ("axis", "start", "stop", "shape"),
    [(0, 1, 2, (1, 2, 3, 2)), (1, 1, 2, (2, 1, 3, 2)), (2, 1, 3, (2, 2, 2, 2)), (3, 0, 1, (2, 2, 3, 1))],
)
def test_a_slice_is_taken_before_a_reshape(axis: int, start: int, stop: int, shape: Sequence[int]) -> None:
    at = {"starts": (start,), "ends": (stop,), "axes": (axis,), "steps": (1,)}
    nodes = [
        Node("r", "Reshape", ("x", "n"), ("r",)),
        Node("s", "Slice", ("r",), ("s",), at),
        Node("y", "Relu", ("s",), ("y",)),
    ]
    made = graph(nodes, {"r": (2, 2, 3, 2), "s": shape, "y": shape}, None, {"n": np.array([2, 2, 3, 2])})
    assert "Slice" in operators(made)


ENDS = {"starts": [2], "ends": [9], "axes": [1], "steps": [1]}


@pytest.mark.parametrize("unknown", [*ENDS, None])
def test_a_slice_at_places_known_at_run_time_is_kept(unknown: str | None) -> None:
    nodes = [Node("y", "Slice", ("x", *ENDS), ("y",))]
    constants = {name: np.array(array) for name, array in ENDS.items() if name != unknown}
    inputs = {} if unknown is None else {unknown: np.array(ENDS[unknown])}
    made = graph(nodes, {"y": (2, 7)}, None, constants, inputs)
    assert operators(made, *inputs.values()) == ["Slice"]
    (kept,) = normalise(made).graph.nodes
    assert ("starts" in kept.attributes) == (unknown is None)


@pytest.mark.parametrize("varying", [*ENDS])
def test_a_slice_at_places_of_the_traced_size_is_kept(varying: str) -> None:
    nodes = [Node("y", "Slice", ("x", *ENDS), ("y",))]
    made = graph(nodes, {"y": (2, 7)}, None, {name: np.array(array) for name, array in ENDS.items()})
    values = {**made.values, varying: replace(made.values[varying], dynamic=frozenset({0}))}
    (kept,) = normalise(replace(made, values=values)).graph.nodes
    assert "starts" not in kept.attributes


@pytest.mark.parametrize(("size", "pooled", "same"), [(8, 4, True), (7, 4, False)])
def test_opsets_differ_where_a_window_is_cut(size: int, pooled: int, same: bool) -> None:
    """AveragePool with ceil_mode, before opset 19 and since: by what a cut window is divided."""

    def form(**more: int) -> list[dict[str, Any]]:
        given = {"kernel_shape": (2, 2), "strides": (2, 2), "ceil_mode": 1, **more}
        node = Node("y", "AveragePool", ("x",), ("y",), given)
        shapes = {"x": (1, 3, size, size), "y": (1, 3, pooled, pooled)}
        values = {name: Value(name, shape, "float64") for name, shape in shapes.items()}
        found = normalise(ir.Graph("g", ("x",), ("y",), (node,), values))
        return [dict(kept.attributes) for kept in found.graph.nodes if kept.op == "AveragePool"]

    assert (form() == form(**{ir.BEFORE: 19})) is same
    assert len(form()) == 1
