"""The same networks as ONNX models: the same freedoms through both front ends, and the oracle's for ONNX."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.frontends.torch.read import read_torch
from graphnorm.rescaling.graph import build
from tests.support.exports import export, onnx_nullity
from tests.support.networks import NETWORKS

# A few of each family; the others are behind the marker `slow`.
FEW = (
    "mlp", "divided_by_sum", "grouped", "transposed", "attention_causal", "qkv_permute", "reglu",
    "layer_norm", "rms_norm_written_no_epsilon", "shared_matrix", "topk", "pixel_shuffle", "bilinear",
    "rnn_relu",
)  # fmt: skip
NOT_EXPORTED = {
    **dict.fromkeys(
        ("rrelu", "hypotenuse", "median", "cumprod", "adaptive_max_pool"),
        "torch.onnx has no such operator",
    ),
    "lstm_projected": "torch.onnx writes an LSTM without its projection",
}
# Dimensions that differ from torch's by intention.
FOLDED = {  # torch.onnx computes weight expressions, or breaks ties between weights
    "autoencoder_tied": 4, "batch_norm_eval": 3, "cosine_head": 2, "dora": 7, "embedding_tied": 6,
    "factorised": 7, "lora_alpha": 7, "low_rank": 4, "spectral_norm": 7, "weight_elementwise": 7,
    "weight_gain": 7, "weight_gain_scalar": 7, "weight_norm_whole": 7, "weight_outer": 7, "weight_softmax": 7,
    "weight_standardised": 5, "weight_standardised_no_epsilon": 5, "weight_sum": 7, "weight_symmetric": 6,
}  # fmt: skip
CONSTANTS = {  # torch.onnx writes constants as initializers, which are weights to ONNX
    "add_some": 4, "blur": 6, "blur_bias": 6, "concat_ones": 5, "concat_zeros": 5, "graph_convolution": 5,
    "group_norm": 6, "group_norm_plain": 6, "instance_norm_plain": 4, "rotary": 7, "scatter": 6,
    "slice_assign": 6, "times_constant": 8, "times_some": 8,
}  # fmt: skip
RUN_TIME = {"max_unpool": 1}  # written as a scatter to places computed from the input
OTHERWISE = FOLDED | CONSTANTS | RUN_TIME
# Models that onnx's reference implementation doesn't run, or not with random weights.
NOT_MEASURED = {
    "grid_sample": "the grid is a weight: random ones lie outside of the image",
    "max_unpool": "pooling with places fails in onnx's reference implementation",
    "nearest": "resizing without a region fails in onnx's reference implementation",
    "upsampler": "resizing without a region fails in onnx's reference implementation",
}
REST = [name for name in NETWORKS if name not in FEW and name not in NOT_EXPORTED]


def dimension_of_torch(name: str) -> int:
    torch.manual_seed(0)
    builder, inputs = NETWORKS[name]
    return build(read_torch(builder().double(), inputs(torch.Generator().manual_seed(1)))).dimension


def check(name: str) -> None:
    model = export(name)
    graph = read_onnx(model)
    rescaling = build(graph)
    assert not rescaling.scales.unknown
    assert rescaling.dimension == (OTHERWISE[name] if name in OTHERWISE else dimension_of_torch(name))
    if name not in NOT_MEASURED:
        with np.errstate(all="ignore"):
            assert rescaling.dimension == onnx_nullity(name, model, graph)


@pytest.mark.parametrize("name", FEW)
def test_exported_networks_agree_with_torch_and_the_oracle(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", REST)
def test_all_exported_networks_agree_with_torch_and_the_oracle(name: str) -> None:
    check(name)


def test_names_of_exceptions_are_networks() -> None:
    assert set(FEW) | set(NOT_EXPORTED) | set(OTHERWISE) | set(NOT_MEASURED) <= set(NETWORKS)
    assert not set(FEW) & (set(NOT_EXPORTED) | set(OTHERWISE) | set(NOT_MEASURED))


def test_the_oracle_sees_a_wrong_dimension() -> None:
    """A planted error: a hidden bias that may not move takes the freedom of its four channels."""
    model = export("mlp")
    graph = read_onnx(model)
    pinned = {name: array for name, array in graph.weights.items() if name != "0.bias"}
    assert onnx_nullity("mlp", model, graph) == 8
    assert onnx_nullity("mlp", model, dataclasses.replace(graph, weights=pinned)) == 4
