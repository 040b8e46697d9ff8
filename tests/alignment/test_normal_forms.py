"""A normal form computes what the network computes, and so do its rescaled and permuted copies.

All are run in float64, operator by operator.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from graphnorm.alignment.normal import normalise
from graphnorm.api.sources import Source, open_model
from graphnorm.rescaling.graph import build
from tests.api.test_canonicalize import exported, network, small_cnn
from tests.api.test_check_differences import tied
from tests.support.equivalents import equivalent_weights
from tests.support.networks import NETWORKS
from tools.validation.interpret import run

FAST = ("mlp", "residual_projection", "grouped", "densenet", "transformer", "batch_norm_eval", "unet",
        "prelu", "squeeze_excite", "attention_sdpa", "reglu", "zero_pad_shortcut",
        "weight_elementwise")  # fmt: skip


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
        expected = run(source.network, inputs)
        for other in (graph, moved):
            for first, second in zip(expected, run(other, inputs), strict=True):
                size = np.nanmax(np.abs(first), initial=0.0)
                assert np.allclose(first, second, rtol=1e-6, atol=1e-7 * size, equal_nan=True)
    return len(graph.nodes)


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
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
    one, two = (run(graph, inputs) for graph in (source.network, normalise(source.network).graph))
    assert np.allclose(one[0], two[0], rtol=1e-6, atol=1e-7)


def test_the_check_sees_a_wrong_lowering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphnorm.alignment.folding.leaves.multiply", lambda first, second: first)
    model, arguments = network("batch_norm_eval", torch.float64)
    with pytest.raises(AssertionError):
        same_function(open_model(model.eval(), arguments))


MERGED = {
    "rows of the batch and of two channels": "z = Reshape(q, s) y = MatMul(z, b)",
    "channels exchanged": (
        "z = Reshape(q, t) w = Transpose<perm=[0,2,1]>(z) v = Reshape(w, u) y = MatMul(v, c)"
    ),
    "batch moved": "z = Reshape(q, t) w = Transpose<perm=[1,0,2]>(z) v = Reshape(w, s) y = MatMul(v, b)",
    "batch moved, and a function": (
        "z = Reshape(q, t) w = Transpose<perm=[1,0,2]>(z) e = Relu(w) v = Reshape(e, s) y = MatMul(v, b)"
    ),
}


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("name", MERGED)
def test_an_axis_that_takes_the_open_batch_has_one_scale(name: str, batch: int) -> None:
    """At any traced size, also at 1, where the axis is no longer than what it takes besides."""
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> net (float[N, 3] x) => (y) <int64[2] s = {-1, 2}, '
        "int64[3] t = {-1, 2, 2}, int64[2] u = {-1, 4}> { p = MatMul(x, a) q = Relu(p) " + MERGED[name] + "}"
    )
    generator = np.random.default_rng(0)
    for key, shape in (("a", (3, 4)), ("b", (2, 3)), ("c", (4, 3))):
        array = generator.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    network = open_model(proto, input_shapes={"x": (batch, 3)}).network
    free = 4 if name == "channels exchanged" else 2
    assert build(network).dimension == build(normalise(network).graph).dimension == free
