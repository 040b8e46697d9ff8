"""Every pointwise function of the table between two layers: its channels are permuted, and copies proved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphnorm import ir
from graphnorm.ops.table import TABLE, having
from graphnorm.ops.traits import Trait
from graphnorm.permutation.order import canonical_order
from graphnorm.permutation.rules import RULES
from graphnorm.permutation.symmetry import symmetry
from graphnorm.proof.prove import attempt
from tests.support.planting import uproot

BATCH, INPUTS, CHANNELS, OUTPUTS = 3, 4, 6, 2
FUNCTIONS = sorted(having(Trait.POINTWISE))
BITS = {"BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitShift"}
TRUTH = {"And", "Or", "Xor", "Not"}
ATTRIBUTES: dict[str, dict[str, object]] = {
    "Cast": {"to": 1},
    "Mod": {"fmod": 1},
    "BitShift": {"direction": "RIGHT"},
    "BitCast": {"to": 6},
    "aten::polygamma": {"n": 1},
}
INTEGERS = {"BitCast": "int32"} | dict.fromkeys(BITS, "int64")


class Writer:
    """A graph, node by node."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.values: dict[str, ir.Value] = {}

    def value(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> str:
        self.values[name] = ir.Value(name, shape, dtype)
        return name

    def add(
        self, op: str, *operands: str, dtype: str = "float32", results: int = 1, **attributes: object
    ) -> str:
        """A node whose results have the shape of hidden layers."""
        names = [f"{op}{len(self.nodes)}.{i}" for i in range(results)]
        for name in names:
            self.value(name, (BATCH, CHANNELS), dtype)
        self.nodes.append(ir.Node(names[0], op, operands, tuple(names), attributes))
        return names[0]


def operand(writer: Writer, op: str, hidden: str) -> str:
    """A hidden layer as what the function takes."""
    if op in TRUTH:
        return writer.add("Greater", hidden, writer.value("zero", ()), dtype="bool")
    if op in BITS:
        return writer.add("Cast", hidden, dtype="int64", to=7)
    return hidden


def mlp(op: str) -> ir.Graph:
    """f(x A1 + a1, x A2 + a2, ..) B, with as many operands as f takes."""
    rng, writer = np.random.default_rng(3), Writer()
    weights: dict[str, ir.Array] = {}
    least, most = TABLE[op].operands
    count = least if op in {"Clip", "Dropout"} else least if most is None else most
    writer.value("x", (BATCH, INPUTS))
    weights[writer.value("B", (CHANNELS, OUTPUTS))] = rng.standard_normal((CHANNELS, OUTPUTS), np.float32)
    operands = []
    for i in range(max(count, 2) if op == "Where" else max(count, 1)):
        for name, shape in {f"A{i}": (INPUTS, CHANNELS), f"a{i}": (CHANNELS,)}.items():
            weights[writer.value(name, shape)] = rng.standard_normal(shape).astype(np.float32)
        layer = writer.add("Add", writer.add("MatMul", "x", f"A{i}"), f"a{i}")
        operands.append(operand(writer, "And" if op == "Where" and i == 0 else op, layer))
    boolean = op in TRUTH or TABLE[op].has(Trait.COMPARES)
    dtype = "bool" if boolean else INTEGERS.get(op, "float32")
    found = writer.add(
        op, *operands, dtype=dtype, results=2 if op == "aten::frexp" else 1, **ATTRIBUTES.get(op, {})
    )
    if dtype != "float32":
        found = writer.add("Cast", found, to=1)
    writer.value("y", (BATCH, OUTPUTS))
    writer.nodes.append(ir.Node("y", "MatMul", (found, "B"), ("y",), {}))
    constants: dict[str, ir.Array] = {"zero": np.zeros((), np.float32)} if "zero" in writer.values else {}
    return ir.Graph("mlp", ("x",), ("y",), tuple(writer.nodes), writer.values, weights, constants)


def permuted(network: ir.Graph) -> ir.Graph:
    order = np.array([3, 0, 5, 1, 4, 2])
    weights = {
        name: array[order] if name == "B" or array.ndim == 1 else array[:, order]
        for name, array in network.weights.items()
    }
    return replace(network, weights=weights)


def in_order(network: ir.Graph) -> dict[str, ir.Array]:
    allowed = symmetry(network)
    assert not allowed.defects
    order = canonical_order(allowed, {k: v.astype(np.float64) for k, v in network.weights.items()})
    return allowed.apply(order, network.weights)


@pytest.mark.parametrize("op", FUNCTIONS)
def test_permuted_copies_are_proved_and_put_in_one_order(op: str) -> None:
    network = mlp(op)
    network.verify()
    assert set(symmetry(network).sizes.values()) == {CHANNELS}
    copy = permuted(network)
    found = attempt(network, copy)
    assert found.proof is not None, found.note
    assert set(map(len, found.proof.permutation.values())) == {CHANNELS}
    one, two = in_order(network), in_order(copy)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not all(np.array_equal(network.weights[name], two[name]) for name in one)


def test_a_function_without_a_rule_is_not_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail."""
    uproot(monkeypatch, RULES, "aten::special_erfcx")
    network = mlp("aten::special_erfcx")
    assert not symmetry(network).sizes
    assert attempt(network, permuted(network)).proof is None
