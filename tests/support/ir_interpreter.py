"""Executes a `graphnorm.ir.Graph` node by node with ONNX's own reference implementation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from graphnorm.ir import Array, Graph, Node

OPSET = onnx.defs.onnx_opset_version()


def run(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """All values of the graph, by name, for these inputs."""
    values: dict[str, Array] = {**graph.weights, **graph.constants}
    for name in graph.inputs:
        array = np.asarray(inputs[name])
        declared = graph.values[name]
        if declared.shape != array.shape or declared.dtype != array.dtype.name:
            raise ValueError(f"input {name!r}: got {array.dtype}{array.shape}, declared {declared}")
        values[name] = array
    for node in graph.nodes:
        operands = [values[name] if name else None for name in node.inputs]
        special = SPECIAL.get(node.op)
        results = special(node, operands) if special else run_node(node, operands)
        for name, result in zip(node.outputs, results, strict=False):
            if name:
                declared = graph.values[name]
                result = np.asarray(result)
                if declared.shape not in (None, result.shape) or declared.dtype != result.dtype.name:
                    raise ValueError(
                        f"{node.name} ({node.op}): {name!r} is {result.dtype}{result.shape}, not {declared}"
                    )
                values[name] = result
    return values


def run_node(node: Node, operands: list[Array | None]) -> list[Array]:
    """One operator of the ONNX standard."""
    names = [f"i{index}" if operand is not None else "" for index, operand in enumerate(operands)]
    outputs = [f"o{index}" for index, _ in enumerate(node.outputs)]
    proto = helper.make_node(node.op, names, outputs, **node.attributes)
    feeds = {name: operand for name, operand in zip(names, operands, strict=True) if operand is not None}
    graph = helper.make_graph(
        [proto],
        "one",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(operand.dtype), list(operand.shape)
            )
            for name, operand in feeds.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    results = ReferenceEvaluator(model).run(outputs, feeds)
    assert isinstance(results, list)
    return results


def _like(shape: tuple[int, ...], value: float, x: Array) -> Array:
    return np.full(shape, value, dtype=x.dtype)


def _given(operands: list[Array | None], index: int) -> Array | None:
    return operands[index] if index < len(operands) else None


def _normalise(x: Array, axes: tuple[int, ...], epsilon: float, centre: bool = True) -> Array:
    mean = x.mean(axes, keepdims=True) if centre else 0
    var = ((x - mean) ** 2).mean(axes, keepdims=True)
    return np.asarray((x - mean) / np.sqrt(var + epsilon), dtype=x.dtype)


def _affine(y: Array, gain: Array | None, bias: Array | None, axis: int) -> list[Array]:
    shape = [1] * axis + [-1] + [1] * (y.ndim - axis - 1)
    y = y if gain is None else y * (gain.reshape(shape) if gain.ndim == 1 and axis == 1 else gain)
    return [y if bias is None else y + (bias.reshape(shape) if bias.ndim == 1 and axis == 1 else bias)]


def _batch_norm(node: Node, operands: list[Array | None]) -> list[Array]:
    x, gain, bias, mean, var = (_given(operands, index) for index in range(5))
    assert x is not None
    if node.attributes["training_mode"] or mean is None or var is None:
        y = _normalise(x, (0, *range(2, x.ndim)), node.attributes["epsilon"])
    else:
        shape = [1, -1] + [1] * (x.ndim - 2)
        y = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + node.attributes["epsilon"])
    return _affine(y.astype(x.dtype), gain, bias, 1)


def _layer_norm(node: Node, operands: list[Array | None]) -> list[Array]:
    x, gain, bias = (_given(operands, index) for index in range(3))
    assert x is not None
    axes = tuple(range(node.attributes["axis"], 0))
    y = _normalise(x, axes, node.attributes["epsilon"], centre=node.op == "LayerNormalization")
    return _affine(y, gain, bias, x.ndim)


def _group_norm(node: Node, operands: list[Array | None]) -> list[Array]:
    x, gain, bias = (_given(operands, index) for index in range(3))
    assert x is not None
    groups = node.attributes.get("num_groups", x.shape[1])
    y = _normalise(x.reshape(x.shape[0], groups, -1), (2,), node.attributes["epsilon"]).reshape(x.shape)
    return _affine(y, gain, bias, 1)


def _adaptive_pool(reduce: Callable[..., Any]) -> Callable[[Node, list[Array | None]], list[Array]]:
    def pool(node: Node, operands: list[Array | None]) -> list[Array]:
        x = operands[0]
        assert x is not None
        rank, size = node.attributes["kernel_rank"], node.attributes["output_size"]
        result = np.empty((*x.shape[:-rank], *size), dtype=x.dtype)
        places = np.zeros(result.shape, dtype=np.int64)
        index = np.arange(np.prod(x.shape[-rank:])).reshape(x.shape[-rank:])
        for cell in itertools.product(*map(range, size)):
            window: Any = tuple(
                slice(i * n // m, -(-(i + 1) * n // m))
                for i, n, m in zip(cell, x.shape[-rank:], size, strict=True)
            )
            place: Any = (..., *cell)
            inside = x[(..., *window)]
            result[place] = reduce(inside, axis=tuple(range(-rank, 0)))
            largest = inside.reshape(*inside.shape[:-rank], -1).argmax(-1)
            places[place] = index[window].ravel()[largest]
        return [result, places][: len(node.outputs)]

    return pool


def _running(choose: Callable[..., Any]) -> Callable[[Node, list[Array | None]], list[Array]]:
    def run_along(node: Node, operands: list[Array | None]) -> list[Array]:
        (x,) = operands
        assert x is not None
        axis = node.attributes["axis"]
        values = choose.accumulate(x, axis=axis)  # type: ignore[attr-defined]
        steps = np.arange(x.shape[axis]).reshape([-1] + [1] * (x.ndim - axis - 1))
        return [values, np.maximum.accumulate(np.where(x == values, steps, 0), axis=axis)]

    return run_along


def _empty(node: Node, operands: list[Array | None]) -> list[Array]:
    return [np.zeros(node.attributes["shape"], helper.tensor_dtype_to_np_dtype(node.attributes["dtype"]))]


def _multinomial(node: Node, operands: list[Array | None]) -> list[Array]:
    (logarithms,) = operands
    assert logarithms is not None
    powers = np.exp(logarithms.astype(np.float64))
    rows = [
        np.random.default_rng(0).choice(len(row), node.attributes["sample_size"], p=row / row.sum())
        for row in powers
    ]
    return [np.stack(rows)]


def _angle(node: Node, operands: list[Array | None]) -> list[Array]:
    y, x = operands
    assert x is not None
    assert y is not None
    return [np.arctan2(y, x)]


def _pad(node: Node, operands: list[Array | None]) -> list[Array]:
    x, pads = operands[:2]
    assert x is not None
    assert pads is not None
    if (pads < 0).any():  # ONNX allows it, its reference does not
        begins, ends = np.split(pads, 2)
        crop = tuple(slice(max(-b, 0), n - max(-e, 0)) for b, e, n in zip(begins, ends, x.shape, strict=True))
        x, pads = x[crop], np.maximum(pads, 0)
    return run_node(node, [x, pads, *operands[2:]])


def _conv_transpose(node: Node, operands: list[Array | None]) -> list[Array]:
    x, weight, bias = (_given(operands, index) for index in range(3))
    assert x is not None
    assert weight is not None
    groups = node.attributes["group"]
    parts = []  # the reference ignores groups
    one = replace(node, attributes={**node.attributes, "group": 1})
    for part, kernel in zip(np.split(x, groups, 1), np.split(weight, groups, 0), strict=True):
        parts += run_node(one, [part, kernel])
    return _affine(np.concatenate(parts, 1), None, bias, 1)


def _recurrent(node: Node, operands: list[Array | None]) -> list[Array]:
    # the reference knows one direction only
    if node.attributes["direction"] == "forward":
        return run_node(node, operands)
    both = []
    for index in range(2):
        mine = [
            None if x is None or i == 4 else x if i == 0 else x[index : index + 1]
            for i, x in enumerate(operands)
        ]
        if index and mine[0] is not None:
            mine[0] = mine[0][::-1]
        names = node.attributes.get("activations", ["Tanh"])[:1] if node.op == "RNN" else None
        attributes = {**node.attributes, "direction": "forward"} | ({"activations": names} if names else {})
        y, *states = run_node(replace(node, attributes=attributes), mine)
        both.append([y[::-1] if index else y, *states])
    return [np.concatenate(pair, axis=0 if i else 1) for i, pair in enumerate(zip(*both, strict=True))]


def _projected(node: Node, operands: list[Array | None]) -> list[Array]:
    """An LSTM whose hidden state is a projection; gates in the order i, o, f, c."""
    x, w, r, b, _, hidden, cell, projection = operands
    assert x is not None
    assert w is not None
    assert r is not None
    assert hidden is not None
    assert cell is not None
    assert projection is not None
    every, last_h, last_c = [], [], []
    for d in range(w.shape[0]):
        bias = 0 if b is None else sum(np.split(b[d], 2))
        h, c, outputs = hidden[d], cell[d], []
        for step in x[::-1] if d else x:
            i, o, f, g = np.split(step @ w[d].T + h @ r[d].T + bias, 4, axis=1)
            c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
            h = (np.tanh(c) / (1 + np.exp(-o))) @ projection[d].T
            outputs.append(h)
        every.append(np.stack(outputs[::-1] if d else outputs))
        last_h.append(h)
        last_c.append(c)
    return [np.stack(every, axis=1), np.stack(last_h), np.stack(last_c)]


def _gather_elements(node: Node, operands: list[Array | None]) -> list[Array]:
    # the reference wants equal sizes on the other axes, ONNX only sizes that are not larger
    x, index = operands
    assert x is not None
    assert index is not None
    axis = node.attributes["axis"]
    kept = tuple(slice(None if i == axis else size) for i, size in enumerate(index.shape))
    return [np.take_along_axis(x[kept], index, axis)]


# Absent gains (outside ONNX) and the few operators that ONNX lacks.
SPECIAL: dict[str, Callable[[Node, list[Array | None]], list[Array]]] = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _group_norm,
    "GatherElements": _gather_elements,
    "Pad": _pad,
    "ConvTranspose": _conv_transpose,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "aten::adaptive_avg_pool": _adaptive_pool(np.mean),
    "aten::adaptive_max_pool": _adaptive_pool(np.max),
    "aten::cummax": _running(np.maximum),
    "aten::cummin": _running(np.minimum),
    "aten::atan2": _angle,
    "aten::empty": _empty,
    "aten::lstm_projected": _projected,
    "Multinomial": _multinomial,
}
