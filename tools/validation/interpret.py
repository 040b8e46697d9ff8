"""Running a network or a normal form in float64, operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphnorm import ir
from graphnorm.ir import Array, Graph, Node
from tools.validation.case import ABSENT, Case, Operand
from tools.validation.evaluate import evaluator

Attributes = Mapping[str, Any]


def run(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """The outputs of a network, floats as float64.

    Raises:
        ValueError: a result has another shape than the graph says.
    """
    values = {**graph.weights, **graph.constants, **dict(zip(graph.inputs, inputs, strict=True))}
    values = {name: wide(array) for name, array in values.items()}
    for node in graph.nodes:
        operands = [values[name] if name else None for name in node.inputs]
        for name, found in zip(node.outputs, run_node(node, operands), strict=False):
            declared = graph.values[name].shape if name else None
            if declared not in (None, found.shape):
                raise ValueError(f"{node.op} {name!r} is of shape {found.shape}, declared {declared}")
            values[name] = wide(found)
    return [values[name] for name in graph.outputs]


def run_node(node: Node, operands: Sequence[Array | None]) -> list[Array]:
    """The results of one operator, whose arguments may be operands or, as in normal forms, attributes."""
    attribute, function = _WRITTEN_OUT.get(node.op, ("", None))
    if function is not None and attribute in node.attributes and operands[0] is not None:
        return [np.asarray(function(operands[0], node.attributes))]
    given = tuple(ABSENT if x is None else Operand("constant", x.shape, value=x) for x in operands)
    case = Case(node.op, given, {**_DEFAULTS.get(node.op, {}), **node.attributes}, len(node.outputs))
    return evaluator(case)(list(operands))


def wide(array: Array) -> Array:
    """Floats as float64."""
    return array.astype(np.float64) if array.dtype.name in ir.FLOAT_TYPES else array


def _slice(x: Array, at: Attributes) -> Array:
    region = [slice(None)] * x.ndim
    for start, end, axis, step in zip(at["starts"], at["ends"], at["axes"], at["steps"], strict=True):
        region[axis] = slice(start, end if end >= 0 else None, step)
    return x[tuple(region)]


def _reduce(function: Callable[..., Any]) -> Callable[[Array, Attributes], Array]:
    return lambda x, at: np.asarray(function(x, axis=tuple(at["axes"]), keepdims=True))


def _pad(x: Array, at: Attributes) -> Array:
    half = x.ndim
    before, after = at["pads"][:half], at["pads"][half:]
    region = tuple(slice(max(-b, 0), n - max(-a, 0)) for b, a, n in zip(before, after, x.shape, strict=True))
    widths = [(max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True)]
    if at["mode"] == "constant":
        return np.pad(x[region], widths, constant_values=at["value"])
    return np.pad(x[region], widths, mode=at["mode"])


# Operators whose arguments a normal form writes as attributes, by an attribute that says so.
_WRITTEN_OUT: dict[str, tuple[str, Callable[[Array, Attributes], Array]]] = {
    "Reshape": ("shape", lambda x, at: x.reshape(at["shape"])),
    "Expand": ("shape", lambda x, at: np.broadcast_to(x, at["shape"])),
    "Slice": ("starts", _slice),
    "Clip": ("min", lambda x, at: np.minimum(np.maximum(x, at["min"]), at["max"])),
    "ReduceMean": ("axes", _reduce(np.mean)),
    "ReduceSum": ("axes", _reduce(np.sum)),
    "ReduceMax": ("axes", _reduce(np.max)),
    "ReduceMin": ("axes", _reduce(np.min)),
    "Pad": ("pads", _pad),
}
# Defaults that a normal form leaves out and our own functions want.
_DEFAULTS: dict[str, Attributes] = {
    "BatchNormalization": {"training_mode": 0, "epsilon": 1e-5},
    "GroupNormalization": {"epsilon": 1e-5},
    "InstanceNormalization": {"epsilon": 1e-5},
    "LayerNormalization": {"epsilon": 1e-5, "axis": -1},
    "RMSNormalization": {"epsilon": 1e-5, "axis": -1},
    "MeanVarianceNormalization": {"axes": (0, 2, 3)},
    "AffineGrid": {"align_corners": 0},
    "GRU": {"linear_before_reset": 0, "direction": "forward"},
    "RNN": {"direction": "forward", "activations": ("Tanh", "Tanh")},
    "LSTM": {"direction": "forward"},
    "aten::lstm_projected": {"direction": "forward"},
    "ScatterElements": {"axis": 0},
    "Scatter": {"axis": 0},
}
