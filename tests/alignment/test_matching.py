"""Matching of graphs by hand: results, integer types, order of operands; and softmax made safe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from graphnorm import ir
from graphnorm.alignment.matching import match, signatures
from graphnorm.alignment.normal import normalise
from graphnorm.api.sources import open_model
from graphnorm.ir import Node, Value
from tests.support.onnx_pairs import model, node, value


def graph(nodes: Sequence[Node], kinds: dict[str, str] | None = None, **constants: Any) -> ir.Graph:
    """Values of shape (2, 3) in float32 where nothing else is said; x and z are inputs, y is the output."""
    held = {name: np.asarray(array) for name, array in constants.items()}
    names = {"x", "z", *held, *(name for one in nodes for name in (*one.inputs, *one.outputs) if name)}
    values = {name: Value(name, (2, 3), (kinds or {}).get(name, "float32")) for name in names}
    values |= {name: Value(name, array.shape, array.dtype.name) for name, array in held.items()}
    return ir.Graph("g", ("x", "z"), ("y",), tuple(nodes), values, {}, held)


def test_results_of_another_type_are_another_computation() -> None:
    nodes = [Node("a", "Foo", ("x",), ("a",)), Node("b", "Bar", ("a",), ("y",))]
    one, two = graph(nodes), graph(nodes, {"a": "float64"})
    assert not match(one, graph(nodes)).failure
    assert match(one, two).failure == "Foo a computes float32[2, 3], Foo a float64[2, 3]"


@pytest.mark.parametrize(
    ("op", "place", "free"),
    [
        ("OneHot", 0, True), ("OneHot", 1, True), ("OneHot", 2, False), ("Gather", 1, True),
        ("Gather", 0, False), ("Add", 1, False), ("Slice", 4, True), ("Slice", 0, False), ("Pad", 1, True),
        ("Pad", 2, False), ("Pad", 3, True), ("TopK", 1, True), ("Mod", 1, False), ("CumSum", 1, True),
    ],
)  # fmt: skip
def test_integer_types_matter_where_they_are_computed_in(op: str, place: int, free: bool) -> None:
    operands = tuple("c" if i == place else "x" for i in range(place + 1))
    one, two = (graph([Node("n", op, operands, ("y",))], c=np.array([1, 2], kind)) for kind in ("i4", "i8"))
    assert match(one, two).failure == (
        "" if free else f"{op} n and {op} n compute in different integer types"
    )


def test_operands_of_a_sum_come_in_any_order() -> None:
    first = [Node("r", "Relu", ("x",), ("r",)), Node("t", "Tanh", ("z",), ("t",))]
    one = graph([*first, Node("n", "Add", ("r", "t"), ("y",))])
    assert not match(one, graph([*first, Node("n", "Add", ("t", "r"), ("y",))])).failure
    assert match(one, graph([*first, Node("n", "Sub", ("t", "r"), ("y",))])).failure
    assert match(one, graph([*first, Node("n", "Add", ("t", "t"), ("y",))])).failure


def test_signatures_tell_inputs_operators_and_numbers_of_attributes_apart() -> None:
    nodes = [
        Node("a", "Relu", ("x",), ("a",)), Node("b", "Relu", ("z",), ("b",)),
        Node("c", "Tanh", ("x",), ("c",)),
        Node("d", "Relu", ("x",), ("d",), {"axis": 1}), Node("e", "Relu", ("x",), ("e",), {"alpha": 0.1}),
        Node("i", "Relu", ("x",), ("i",), {"alpha": 0.2}),
        Node("f", "Add", ("a", "b"), ("f",)), Node("g", "Add", ("b", "a"), ("g",)),
        Node("h", "Sub", ("a", "b"), ("h",)), Node("y", "Sub", ("b", "a"), ("y",)),
    ]  # fmt: skip
    found = signatures(graph(nodes))
    assert found["i"] == found["e"], "floats may be computed from others"
    assert found["f"] == found["g"]
    different = ["x", "z", "a", "b", "c", "d", "e", "f", "h", "y"]
    assert len({found[name] for name in different}) == len(different)


MASK = np.array([[0, -np.inf, 0, 0], [-np.inf, -np.inf, -np.inf, 0.0]], np.float32)


def safe_softmax(mask: Any, shape: Sequence[int]) -> list[str]:
    """Operators of the normal form of Where(IsNaN(p), 0, p) with p = softmax(reshape(x w + mask))."""
    nodes = [
        node("MatMul", ["x", "w"], ["s"]), node("Add", ["s", "m"], ["t"]), node("Reshape", ["t", "n"], ["r"]),
        node("Softmax", ["r"], ["p"], axis=-1), node("IsNaN", ["p"], ["i"]),
        node("Where", ["i", "o", "p"], ["y"]),
    ]  # fmt: skip
    constants = {"m": np.asarray(mask, np.float32), "n": np.array(shape), "o": np.zeros((), np.float32)}
    made = [node("Constant", [], [name], value=_tensor(array, name)) for name, array in constants.items()]
    weights = {"w": np.ones((3, 4), np.float32)}
    out = value("y", list(shape))
    found = open_model(model([*made, *nodes], [value("x", [2, 3])], [out], weights)).network
    return [one.op for one in normalise(found).graph.nodes]


def _tensor(array: Any, name: str) -> TensorProto:
    from onnx import numpy_helper

    return numpy_helper.from_array(array, name)


@pytest.mark.parametrize(
    ("mask", "shape", "kept"),
    [
        (MASK, (2, 4), False),
        (MASK, (1, 2, 4), False),
        (MASK, (2, 1, 4), False),
        (MASK, (4, 2), True),  # rows are cut: one of them has no entry
        (np.full((2, 4), -np.inf), (2, 4), True),
        (np.full((2, 4), np.inf), (2, 4), True),
    ],
)
def test_a_guard_goes_where_no_row_is_masked_whole(mask: Any, shape: Sequence[int], kept: bool) -> None:
    assert ("Where" in safe_softmax(mask, shape)) == kept
