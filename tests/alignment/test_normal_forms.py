"""A normal form computes what the network computes, and so do its rescaled and permuted copies.

All are run in float64, operator by operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from graphnorm import ir
from graphnorm.alignment.normal import normalise
from graphnorm.api.sources import Source, open_model
from tests.api.test_canonicalize import exported, network, small_cnn
from tests.api.test_check_differences import tied
from tests.support.equivalents import equivalent_weights
from tests.support.ir_interpreter import SPECIAL, run_node
from tests.support.networks import NETWORKS

Array = np.ndarray
FAST = ("mlp", "residual_projection", "grouped", "densenet", "transformer", "batch_norm_eval", "unet",
        "prelu", "squeeze_excite", "attention_sdpa", "reglu", "zero_pad_shortcut",
        "weight_elementwise")  # fmt: skip
NOT_INTERPRETED = {"rnn_relu", "rnn_relu_deep"}  # ONNX's reference implementation knows no Relu there


def _slice(x: Array, at: Mapping[str, Any]) -> Array:
    region = [slice(None)] * x.ndim
    for start, end, axis, step in zip(at["starts"], at["ends"], at["axes"], at["steps"], strict=True):
        region[axis] = slice(start, end if end >= 0 else None, step)
    return x[tuple(region)]


def _reduce(function: Callable[..., Any]) -> Callable[[Array, Mapping[str, Any]], Array]:
    return lambda x, at: np.asarray(function(x, axis=tuple(at["axes"]), keepdims=True))


def _pad(x: Array, at: Mapping[str, Any]) -> Array:
    pads = list(zip(at["pads"][: x.ndim], at["pads"][x.ndim :], strict=True))
    if at["mode"] == "constant":
        return np.pad(x, pads, constant_values=at["value"])
    return np.pad(x, pads, mode=at["mode"])


# Operators whose arguments a normal form writes as attributes.
WRITTEN_OUT: dict[str, tuple[str, Callable[[Array, Mapping[str, Any]], Array]]] = {
    "Reshape": ("shape", lambda x, at: x.reshape(at["shape"])),
    "Expand": ("shape", lambda x, at: np.broadcast_to(x, at["shape"])),
    "Slice": ("starts", _slice),
    "Clip": ("min", lambda x, at: np.clip(x, at["min"], at["max"])),
    "ReduceMean": ("axes", _reduce(np.mean)),
    "ReduceSum": ("axes", _reduce(np.sum)),
    "ReduceMax": ("axes", _reduce(np.max)),
    "ReduceMin": ("axes", _reduce(np.min)),
    "Pad": ("pads", _pad),
}


def evaluated(graph: ir.Graph, inputs: list[Array]) -> list[Array]:
    values = {**graph.weights, **graph.constants, **dict(zip(graph.inputs, inputs, strict=True))}
    values = {name: wide(array) for name, array in values.items()}
    for node in graph.nodes:
        operands = [values[name] if name else None for name in node.inputs]
        attribute, function = WRITTEN_OUT.get(node.op, ("", None))
        if function is not None and attribute in node.attributes and operands[0] is not None:
            results = [function(operands[0], node.attributes)]
        else:
            if node.op == "BatchNormalization":
                node = replace(node, attributes={"training_mode": 0, "epsilon": 1e-5, **node.attributes})
            special = SPECIAL.get(node.op)
            results = special(node, operands) if special else run_node(node, operands)
        for name, result in zip(node.outputs, results, strict=False):
            if name:
                assert graph.values[name].shape in (None, np.shape(result)), (node, np.shape(result))
                values[name] = wide(np.asarray(result))
    return [values[name] for name in graph.outputs]


def wide(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.name in ir.FLOAT_TYPES else array


def same_function(source: Source) -> int:
    """Check the normal form, and an equivalent copy of it, on two inputs; returns its number of nodes."""
    assert source.example is not None
    graph = normalise(source.network).graph
    moved = replace(graph, weights=equivalent_weights(graph, seed=3))
    for seed in range(2):
        generator = np.random.default_rng(seed)
        inputs = [
            generator.standard_normal(array.shape) if array.dtype.kind == "f" else array
            for array in source.example
        ]
        expected = evaluated(source.network, inputs)
        for other in (graph, moved):
            for first, second in zip(expected, evaluated(other, inputs), strict=True):
                size = np.nanmax(np.abs(first), initial=0.0)
                assert np.allclose(first, second, rtol=1e-6, atol=1e-7 * size, equal_nan=True)
    return len(graph.nodes)


NAMES = [name for name in NETWORKS if name not in NOT_INTERPRETED]


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_of_torch_modules(name: str) -> None:
    model, arguments = network(name, torch.float64)
    assert same_function(open_model(model.eval(), arguments)) > 0


@pytest.mark.parametrize("name", ["tied", "small_cnn"])
def test_of_exports(name: str) -> None:
    model, example = {"tied": tied, "small_cnn": small_cnn}[name]()
    source = open_model(exported(model, example))
    generator = np.random.default_rng(0)
    shape = source.network.values[source.network.inputs[0]].shape or ()
    inputs = [generator.standard_normal(shape)]
    one, two = (evaluated(graph, inputs) for graph in (source.network, normalise(source.network).graph))
    assert np.allclose(one[0], two[0], rtol=1e-6, atol=1e-7)


def test_the_check_sees_a_wrong_lowering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphnorm.alignment.folding.leaves.multiply", lambda first, second: first)
    model, arguments = network("batch_norm_eval", torch.float64)
    with pytest.raises(AssertionError):
        same_function(open_model(model.eval(), arguments))
