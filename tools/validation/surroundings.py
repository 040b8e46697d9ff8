"""A network around a case: its operands come in roundabout ways, and its results go on.

On the way in, data are turned round, cut, multiplied by numbers or by weights; on the way out, results meet
gains, biases and movements, which a normal form folds, moves and merges.  All factors are powers of two, so
that no order of the products rounds anything and what an operator decides stays decided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphnorm.ir import Array, Graph, Node, Value
from tools.validation.case import Case, Rng
from tools.validation.evaluate import evaluator

Arrays = list[Array | None]
Undo = Callable[[Array], Array]
_FACTORS = (-2.0, -1.0, -0.5, 0.25, 0.5, 4.0)


@dataclass
class Surroundings:
    """A network, and the inputs that give the case's operator certain operands."""

    case: Case
    plain: bool = False
    inputs: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    undo: dict[str, Undo] = field(default_factory=dict)  # input -> its array from the operand's
    outputs: list[str] = field(default_factory=list)

    def graph(self) -> Graph:
        """The network.

        Raises:
            InvalidGraphError: it breaks an invariant.
        """
        found = Graph(
            self.case.op, tuple(self.inputs), tuple(self.outputs), tuple(self.nodes), self.values,
            self.weights, self.constants,
        )  # fmt: skip
        found.verify()
        return found

    def given(self, operands: Arrays) -> list[Array]:
        """The network's inputs for these operands of the operator."""
        return [
            np.linspace(0.5, 2.0, int(np.prod(shape))).reshape(shape)
            if name.startswith("e") and (shape := self.values[name].shape) is not None
            else self.undo[name](_array(operands, name))
            for name in self.inputs
        ]

    def declare(self, name: str, array: Array) -> str:
        self.values[name] = Value(name, array.shape, array.dtype.name)
        return name

    def weight(self, array: Array) -> str:
        """A new weight."""
        name = self.declare(f"w{len(self.weights)}", array)
        self.weights[name] = array
        return name

    def constant(self, value: Any, dtype: Any) -> str:
        """A new constant."""
        name = self.declare(f"c{len(self.constants)}", np.asarray(value, dtype))
        self.constants[name] = np.asarray(value, dtype)
        return name

    def step(self, op: str, names: list[str], result: Array, **attributes: Any) -> str:
        """A new node; `result` is an example."""
        name = self.declare(f"v{len(self.nodes)}", result)
        self.nodes.append(Node(name, op, tuple(names), (name,), attributes))
        return name

    def consumed(self, name: str, array: Array) -> str:
        """A product with a new input."""
        given = self.declare(f"e{name}", np.ones_like(array))
        self.inputs.append(given)
        return self.step("Mul", [given, name], array)


def _array(operands: Arrays, name: str) -> Array:
    found = operands[int(name[1:])]
    assert found is not None
    return found


def surround(case: Case, operands: Arrays, rng: Rng, plain: bool = False) -> Surroundings:
    """The network around one draw of operands; `plain`: the operator alone."""
    s = Surroundings(case, plain)
    names = []
    for k, (operand, array) in enumerate(zip(case.operands, operands, strict=True)):
        if array is None:
            names.append("")
        elif operand.kind == "weight":
            names.append(s.weight(array))
        elif operand.kind == "constant":
            names.append(s.constant(array, array.dtype))
        else:
            names.append(_way_in(s, k, array, rng, operand.kind != "input" and not plain))
    results = evaluator(case)(operands)
    ys = tuple(f"y{j}" for j in range(case.results))
    for name, array in zip(ys, results, strict=True):
        s.declare(name, array)
    s.nodes.append(Node("op", case.op, tuple(names), ys, case.attributes))
    is_expression = not s.inputs
    for name, array in zip(ys, results, strict=True):
        if is_expression and array.dtype.kind == "f":  # the consumer of a weight expression
            name, array = s.consumed(name, array), array * 1.0
        is_moved = array.dtype.kind == "f" and array.size > 0 and not plain
        s.outputs.append(_way_out(s, name, array, rng) if is_moved else name)
    return s


def _way_in(s: Surroundings, k: int, array: Array, rng: Rng, roundabout: bool) -> str:
    """A new input and how it becomes operand `k`, built from its end."""
    steps: list[tuple[str, str, Undo, dict[str, Any], Array | None]] = []
    seen = array
    while roundabout and rng.random() < 0.6 and len(steps) < 3:
        found = _backwards(seen, rng)
        steps.append(found)
        seen = found[2](seen)
    name = s.declare(f"x{k}", seen)
    s.inputs.append(name)
    undone = [step[2] for step in steps]

    def undo(array: Array) -> Array:
        for one in undone:
            array = one(array)
        return array

    s.undo[name] = undo
    chain = [array]
    for one in undone:
        chain.append(one(chain[-1]))
    for (op, kind, _, attributes, argument), result in zip(
        reversed(steps), reversed(chain[:-1]), strict=True
    ):
        names = [name]
        if argument is not None:
            is_weight = kind == "weight"
            names.append(s.weight(argument) if is_weight else s.constant(argument, argument.dtype))
        if op == "Slice":
            names = [name, *(s.constant([n], np.int64) for n in attributes.values())]
            attributes = {}
        name = s.step(op, names, result, **attributes)
    return name


def _backwards(array: Array, rng: Rng) -> tuple[str, str, Undo, dict[str, Any], Array | None]:
    """An operator that ends in `array`: name, kind of its argument, inverse, attributes, argument."""
    rank = array.ndim
    kind = str(rng.choice(["number", "weight", "neg", "transpose", "reshape", "slice"]))
    if kind == "neg" or array.size == 0:
        return "Neg", "", np.negative, {}, None
    if kind == "number" or rank == 0:
        factor = np.asarray(rng.choice(_FACTORS))
        return "Mul", "number", lambda x: x / factor, {}, factor
    if kind == "weight":
        size = tuple(n if rng.random() < 0.5 else 1 for n in array.shape)
        gain = rng.choice(_FACTORS, size)
        return "Mul", "weight", lambda x: x / gain, {}, gain
    if kind == "transpose":
        perm = [int(axis) for axis in rng.permutation(rank)]
        back = np.argsort(perm)
        return "Transpose", "", lambda x: x.transpose(back), {"perm": perm}, None
    if kind == "reshape":
        axis = int(rng.integers(0, rank))
        before = (*array.shape[:axis], -1, *array.shape[axis + 2 :])
        return "Reshape", "sizes", lambda x: x.reshape(before), {}, np.asarray(array.shape, np.int64)
    axis, low, high = int(rng.integers(0, rank)), int(rng.integers(0, 2)), int(rng.integers(0, 2))
    widths = [(low, high) if a == axis else (0, 0) for a in range(rank)]
    size = array.shape[axis]
    cut = {"starts": low, "ends": low + size, "axes": axis, "steps": 1}
    return "Slice", "", lambda x: np.pad(x, widths, constant_values=0.75), cut, None


def _way_out(s: Surroundings, name: str, array: Array, rng: Rng) -> str:
    """Up to three operators behind a result."""
    while rng.random() < 0.7 and array.ndim < 5:
        kind = str(rng.choice(["number", "gain", "bias", "channels", "transpose", "reshape", "neg", "add"]))
        if kind == "neg":
            array = -array
            name = s.step("Neg", [name], array)
        elif kind == "number":
            factor = rng.choice(_FACTORS)
            array = array * factor
            name = s.step("Mul", [name, s.constant(factor, np.float64)], array)
        elif kind in {"gain", "bias", "channels"}:
            size = _vector(array.shape, kind, rng)
            held = rng.choice(_FACTORS, size)
            array = array + held if kind == "bias" else array * held
            pair = [name, s.weight(held)]
            name = s.step(
                "Add" if kind == "bias" else "Mul", pair if rng.random() < 0.7 else pair[::-1], array
            )
        elif kind == "add":
            array = array + array
            name = s.step("Add", [name, name], array)
        elif kind == "transpose" and array.ndim:
            perm = [int(axis) for axis in rng.permutation(array.ndim)]
            array = array.transpose(perm)
            name = s.step("Transpose", [name], array, perm=perm)
        else:
            array = array.reshape(-1, *array.shape[2:])
            name = s.step("Reshape", [name, s.constant(array.shape, np.int64)], array)
    return name


def _vector(shape: tuple[int, ...], kind: str, rng: Rng) -> tuple[int, ...]:
    """Sizes of a gain or bias: of channels, of the last axis, of everything, or one number."""
    if kind == "channels" and len(shape) > 1:
        return (shape[1], *(1,) * (len(shape) - 2))
    return [shape[-1:], shape, (), (1,) * len(shape)][int(rng.integers(4))]
