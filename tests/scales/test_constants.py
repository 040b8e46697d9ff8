"""Constants next to channels: entries that are 0 or infinite suit any scale, others none; moved ones too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphnorm.ir import Graph, Node, Value
from graphnorm.rescaling.graph import RescalingGraph, build

HELD = np.array([[1.0, 0.0, 0.0]])


def after(op: str, constants: dict[str, Any], *nodes: Node, width: int = 3) -> RescalingGraph:
    """z = op(x g, c) k, where nodes make c of the constants."""
    known = {name: np.asarray(array) for name, array in constants.items()}
    joined = width if op != "Concat" else width + next(iter(known.values())).shape[1]
    arrays = {
        "x": np.ones((2, width)), "g": np.ones((1, width)), "h": np.ones((2, width)),
        "y": np.ones((2, joined)), "k": np.ones((1, joined)), "z": np.ones((2, joined)), **known,
    }  # fmt: skip
    values = {name: Value(name, array.shape, array.dtype.name) for name, array in arrays.items()}
    for node in nodes:
        shape = node.attributes.get("made", (1, width))
        values[node.outputs[0]] = Value(node.outputs[0], shape, "float64")
    attributes = {"axis": 1} if op == "Concat" else {}
    body = (
        Node("first", "Mul", ("x", "g"), ("h",)),
        *nodes,
        Node("op", op, ("h", "c"), ("y",), attributes),
        Node("last", "Mul", ("y", "k"), ("z",)),
    )
    return build(Graph("g", ("x",), ("z",), body, values, {n: arrays[n] for n in "gk"}, known))


def node(op: str, *inputs: str, **attributes: Any) -> Node:
    return Node("make", op, inputs, ("c",), attributes)


def dimension(graph: RescalingGraph) -> int:
    assert not graph.remarks
    return graph.dimension


def test_entries_of_zero_suit_any_scale() -> None:
    assert dimension(after("Add", {"c": HELD})) == 2
    assert dimension(after("Max", {"c": np.array([[np.inf, 1.0, -np.inf]])})) == 2
    assert dimension(after("Add", {"c": np.zeros((1, 3))})) == 3
    assert dimension(after("Add", {"c": np.ones((1, 3))})) == 0


@pytest.mark.parametrize("first", [False, True])
def test_products_with_zero_are_zero(first: bool) -> None:
    """z = (c (x g) + x f) k: where c is 0, g may be rescaled alone, and the other two together."""
    arrays = {"x": np.ones((2, 3)), **{name: np.ones((1, 3)) for name in "gfk"}, "c": HELD}
    arrays |= {name: np.ones((2, 3)) for name in ("h", "m", "n", "y", "z")}
    product = ("c", "h") if first else ("h", "c")
    nodes = tuple(
        Node(out, op, operands, (out,))
        for out, op, operands in (
            ("h", "Mul", ("x", "g")), ("m", "Mul", product), ("n", "Mul", ("x", "f")),
            ("y", "Add", ("m", "n")),
            ("z", "Mul", ("y", "k")),
        )
    )  # fmt: skip
    values = {name: Value(name, array.shape, "float64") for name, array in arrays.items()}
    weights = {name: arrays[name] for name in "gfk"}
    assert dimension(build(Graph("g", ("x",), ("z",), nodes, values, weights, {"c": HELD}))) == 1 + 2 + 2


def test_of_constants_that_are_moved() -> None:
    assert dimension(after("Add", {"d": HELD.T}, node("Transpose", "d", perm=(1, 0)))) == 2
    assert dimension(after("Add", {"d": HELD[:, ::-1].T}, node("Transpose", "d"))) == 2
    assert dimension(after("Add", {"d": HELD}, node("Exp", "d"))) == 0, "computed: not known"


@pytest.mark.parametrize(("value", "free"), [(None, 3), (0.0, 3), (2.0, 0), (np.inf, 3)])
def test_of_constants_of_a_shape(value: float | None, free: int) -> None:
    given = {} if value is None else {"value": np.array([value])}
    made = node("ConstantOfShape", "s", **given)
    assert dimension(after("Max" if value == np.inf else "Add", {"s": np.array([1, 3])}, made)) == free


def test_nothing_constrains_nothing() -> None:
    """A constant without entries: all channels stay free."""
    assert dimension(after("Concat", {"c": np.ones((2, 0))})) == 3
    assert dimension(after("Concat", {"c": np.ones((2, 1))})) == 3
    assert dimension(after("Concat", {"c": np.zeros((2, 2))})) == 3


def test_which_entries_are_free() -> None:
    graph = after("Add", {"d": HELD.T}, node("Transpose", "d"))
    x = graph.log_scales(np.arange(1.0, 3.0))
    (demand,) = (d for d in graph.demands if d.weight == "g")
    scale = np.broadcast_to(graph.demand_scale(demand, x), (1, 3)).ravel()
    assert (scale != 0).tolist() == [False, True, True]
