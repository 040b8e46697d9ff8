"""The intermediate representation: every invariant that `Graph.verify` lists, broken in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import ml_dtypes
import numpy as np
import pytest

from graphnorm.errors import GraphNormError, InvalidGraphError
from graphnorm.ir import FLOAT_TYPES, Graph, Node, Value, shape_of


def sound() -> Graph:
    """relu(x @ w + one): every kind of value once."""
    return Graph(
        name="net",
        inputs=("x",),
        outputs=("y",),
        nodes=(
            Node("matmul", "MatMul", ("x", "w"), ("h",), scope="layer.0"),
            Node("add", "Add", ("h", "one"), ("s",)),
            Node("clip", "Clip", ("s", "", ""), ("y",)),
        ),
        values={
            "x": Value("x", (2, 3), "float32"),
            "w": Value("w", (3, 4), "float32"),
            "one": Value("one", (), "float32"),
            "h": Value("h", (2, 4), "float32"),
            "s": Value("s", (2, 4), "float32"),
            "y": Value("y", None, "float32"),
        },
        weights={"w": np.ones((3, 4), dtype=np.float32)},
        constants={"one": np.array(1, dtype=np.float32)},
    )


def with_node(graph: Graph, index: int, **changes: object) -> Graph:
    nodes = list(graph.nodes)
    nodes[index] = replace(nodes[index], **changes)  # type: ignore[arg-type]
    return replace(graph, nodes=tuple(nodes))


def with_value(graph: Graph, value: Value) -> Graph:
    return replace(graph, values={**graph.values, value.name: value})


def without_value(graph: Graph, name: str) -> Graph:
    return replace(graph, values={key: value for key, value in graph.values.items() if key != name})


def swapped(graph: Graph) -> Graph:
    return replace(graph, nodes=(graph.nodes[1], graph.nodes[0], graph.nodes[2]))


Breakage = Callable[[Graph], Graph]

# Name -> (what breaks it, the message).
BROKEN: dict[str, tuple[Breakage, str]] = {
    "input twice": (lambda g: replace(g, inputs=("x", "x")), r"input 'x' is defined twice"),
    "weight is an input": (
        lambda g: replace(g, weights={**g.weights, "x": np.ones((2, 3), dtype=np.float32)}),
        r"weight 'x' is defined twice",
    ),
    "constant is a weight": (
        lambda g: replace(g, constants={**g.constants, "w": g.weights["w"]}),
        r"constant 'w' is defined twice",
    ),
    "node defines an input": (
        lambda g: with_node(g, 1, outputs=("x",)),
        r"node 'add' \(Add\) defines 'x' a second time",
    ),
    "node defines a weight": (
        lambda g: with_node(g, 1, outputs=("w",)),
        r"node 'add' \(Add\) defines 'w' a second time",
    ),
    "two nodes define a value": (
        lambda g: with_node(g, 1, outputs=("h",)),
        r"node 'add' \(Add\) defines 'h' a second time",
    ),
    "one node defines a value twice": (
        lambda g: with_node(g, 0, outputs=("h", "h")),
        r"node 'matmul' \(MatMul\) defines 'h' a second time",
    ),
    "operand without a definition": (
        lambda g: with_node(g, 0, inputs=("x", "lost")),
        r"node 'matmul' \(MatMul\) reads 'lost' before it is defined",
    ),
    "not in topological order": (swapped, r"node 'add' \(Add\) reads 'h' before it is defined"),
    "node reads its own output": (
        lambda g: with_node(g, 0, inputs=("h", "w")),
        r"node 'matmul' \(MatMul\) reads 'h' before it is defined",
    ),
    "output without a definition": (
        lambda g: replace(g, outputs=("y", "lost")),
        r"output 'lost' is never defined",
    ),
    "input without a type": (lambda g: without_value(g, "x"), r"value 'x' has no type"),
    "weight without a type": (lambda g: without_value(g, "w"), r"value 'w' has no type"),
    "result without a type": (lambda g: without_value(g, "s"), r"value 's' has no type"),
    "weight of another shape": (
        lambda g: with_value(g, Value("w", (4, 3), "float32")),
        r"value 'w' is declared float32\(4, 3\), its data is float32\(3, 4\)",
    ),
    "weight of no shape": (
        lambda g: with_value(g, Value("w", None, "float32")),
        r"value 'w' is declared float32None, its data is float32\(3, 4\)",
    ),
    "weight of another type": (
        lambda g: with_value(g, Value("w", (3, 4), "float16")),
        r"value 'w' is declared float16\(3, 4\), its data is float32\(3, 4\)",
    ),
    "constant of another shape": (
        lambda g: with_value(g, Value("one", (1,), "float32")),
        r"value 'one' is declared float32\(1,\), its data is float32\(\)",
    ),
    "node without a name": (lambda g: with_node(g, 0, name=""), r"node '' has no name or no operator"),
    "node without an operator": (
        lambda g: with_node(g, 0, op=""),
        r"node 'matmul' has no name or no operator \(''\)",
    ),
    "two nodes of one name": (lambda g: with_node(g, 1, name="matmul"), r"two nodes are named 'matmul'"),
}


def test_a_sound_graph_passes() -> None:
    sound().verify()


@pytest.mark.parametrize(("breakage", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_invariant_is_found(breakage: Breakage, message: str) -> None:
    with pytest.raises(InvalidGraphError, match=f"^graph 'net': {message}"):
        breakage(sound()).verify()


def test_an_invalid_graph_is_a_graphnorm_error() -> None:
    assert issubclass(InvalidGraphError, GraphNormError)


def test_absent_operands_and_results_need_no_definition() -> None:
    graph = with_node(sound(), 0, outputs=("h", "", ""))
    graph.verify()
    assert "" not in graph.producers()
    assert "" not in graph.consumers()


def test_an_empty_graph_is_sound() -> None:
    Graph("empty", (), (), (), {}).verify()


def test_an_output_may_be_an_input_or_a_weight() -> None:
    replace(sound(), outputs=("x", "w", "y")).verify()


def test_bfloat16_data_carries_its_own_type_name() -> None:
    array = np.ones((3, 4), dtype=ml_dtypes.bfloat16)
    graph = replace(sound(), weights={"w": array})
    with_value(graph, Value("w", (3, 4), "bfloat16")).verify()
    with pytest.raises(InvalidGraphError, match=r"declared float32\(3, 4\), its data is bfloat16\(3, 4\)"):
        graph.verify()


def test_producers_and_consumers() -> None:
    graph = with_node(sound(), 1, inputs=("h", "h"))
    matmul, add, clip = graph.nodes
    assert graph.producers() == {"h": matmul, "s": add, "y": clip}
    assert graph.consumers() == {
        "x": [matmul],
        "w": [matmul],
        "h": [add],
        "s": [clip],
    }  # once, though read twice


def test_a_node_is_named_by_its_layer() -> None:
    matmul, add, _ = sound().nodes
    assert matmul.label == "layer.0"
    assert add.label == "add"


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float32", "float64", "int64", "bool", "float8_e4m3fn"]
)
def test_float_types(dtype: str) -> None:
    assert Value("v", (), dtype).is_float is (dtype in FLOAT_TYPES)


def test_everything_is_frozen() -> None:
    graph = sound()
    for item in (graph, graph.nodes[0], graph.values["x"]):
        with pytest.raises(FrozenInstanceError):
            item.name = "other"  # type: ignore[misc]


def test_shapes_are_python_integers() -> None:
    shape = shape_of(np.zeros((2, 0, 3)))
    assert shape == (2, 0, 3)
    assert all(type(size) is int for size in shape)
    assert shape_of(np.float32(1)) == ()
