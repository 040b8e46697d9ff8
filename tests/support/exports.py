"""Networks as ONNX models, exported by PyTorch, and the numeric oracle for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from scipy.special import erf
from torch import nn

from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.ir import Array, Graph
from tests.support.networks import NETWORKS
from tests.support.oracle import draw, nullity_by_differences


class Gelu(OpRun):
    """In float64: onnx rounds the error function to float32."""

    op_domain = ""

    def _run(self, x: Array, approximate: str | None = None) -> tuple[Array]:
        assert approximate in {None, "none"}
        return (np.asarray(x * 0.5 * (1.0 + erf(x / np.sqrt(2.0)))),)


def export(name: str) -> onnx.ModelProto:
    """The network in float64, with random weights: the exporter merges tensors that happen to be equal."""
    torch.manual_seed(0)
    builder, inputs = NETWORKS[name]
    generator = torch.Generator().manual_seed(1)
    model = _with_random_weights(builder().double(), generator)
    logging.disable(logging.WARNING)
    try:
        program = torch.onnx.export(model, inputs(generator), dynamo=True, verbose=False)
    finally:
        logging.disable(logging.NOTSET)
    assert program is not None
    return program.model_proto


def _with_random_weights(model: nn.Module, generator: torch.Generator) -> nn.Module:
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for key, value in draw(model, generator).items():
            state[key].copy_(value)
    return model


def onnx_nullity(name: str, model: onnx.ModelProto, graph: Graph | None = None) -> int:
    """The oracle's dimension of an exported model, by differences on ONNX's reference implementation."""
    graph = graph or read_onnx(model)
    open_model = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in model.graph.initializer:
        if tensor.name in graph.weights:
            open_model.graph.initializer.remove(tensor)
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            open_model.graph.input.append(value)
    session = ReferenceEvaluator(open_model, new_ops=[Gelu])
    names = [value.name for value in model.graph.input]
    inputs = NETWORKS[name][1]

    def run(weights: Mapping[str, Array], rng: np.random.Generator) -> Array:
        arrays = inputs(torch.Generator().manual_seed(int(rng.integers(1 << 31))))
        feeds = {key: x.numpy() for key, x in zip(names, arrays, strict=True)}
        outputs = session.run(None, {**feeds, **weights})
        assert isinstance(outputs, list)
        return np.concatenate([np.asarray(y, dtype=np.float64).ravel() for y in outputs])

    return nullity_by_differences(run, graph.weights)
