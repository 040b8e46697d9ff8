"""Fold inference-mode BatchNormalization into the operator before it, in an ``onnx_ir.Model``.

At inference BatchNormalization is affine per channel.  With s = scale / sqrt(var + epsilon),

    BN(W x + b) = s (W x + b - mean) + B = W' x + b'
    W' = s W,    b' = s (b - mean) + B

where s runs along the output channels of W: axis 0 for Conv ``(M, C / group, *kernel)``; group by group,
axis 1 for ConvTranspose ``(C, M / group, *kernel)``; for Gemm the axis of its output's columns, 0 with
``transB`` and 1 without (its C may have any shape that broadcasts to ``(rows, columns)``; so does C').
All is computed in float64 and rounded once to the type of W.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir.passes import InPlacePass, PassResult

from graphnorm.ir import Array
from graphnorm.passes.onnx.constants import Constants, is_standard, require_model, stored_array
from graphnorm.passes.onnx.dead import remove_dead_nodes

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})
_FIRST_VERSION = 7  # of BatchNormalization without the attribute is_test


@dataclass(eq=False)
class FoldBatchNormPass(InPlacePass):
    """Fold each inference-mode BatchNormalization into the Conv, ConvTranspose or Gemm that feeds only it.

    Works on the main graph and on the bodies of control flow.  The operator takes over the name of the
    BatchNormalization's output; a weight that others use too is left alone and a folded copy added;
    initializers and Constants that are no longer read are removed, dead nodes before anything else.

    Attributes:
        skipped: After a call, why each BatchNormalization left was not folded: ``"bn2: ..."``.

    >>> import onnx.parser, onnx_ir
    >>> model = onnx_ir.from_proto(onnx.parser.parse_model(
    ...     '<ir_version: 10, opset_import: ["": 20]> small (float[1,1,2] x) => (float[1,1,2] y)'
    ...     "<float[1,1,1] w = {2}, float[1] s = {3}, float[1] b = {4}, float[1] m = {5}, float[1] v = {1}>"
    ...     "{ h = Conv(x, w) y = BatchNormalization(h, s, b, m, v) }"))
    >>> [node.op_type for node in FoldBatchNormPass()(model).model.graph]
    ['Conv']
    """

    skipped: tuple[str, ...] = field(default=(), init=False)

    def call(self, model: onnx_ir.Model) -> PassResult:
        """Fold what can be folded, in graph order, so that a second one in a row is folded too.

        Raises:
            InputError: `model` is no ``onnx_ir.Model``.
        """
        require_model(self, model)
        modified, constants, skipped = remove_dead_nodes(model), Constants(model), []
        for graph in (model.graph, *model.graph.subgraphs()):
            for node in list(graph):
                if node.op_type == "BatchNormalization" and is_standard(node):
                    reason = next(_obstacles(constants, node), None) or _fold(constants, node)
                    if reason:
                        skipped.append(f"{node.name or node.outputs[0].name}: {reason}")
                    else:
                        modified = True
        self.skipped = tuple(skipped)
        return PassResult(model, modified)


def _obstacles(constants: Constants, norm: onnx_ir.Node) -> Iterator[str]:
    """All obstacles; a later test may rely on the earlier ones, so only the first is used."""
    version = norm.version or constants.model.graph.opset_imports.get("", 0)
    if version < _FIRST_VERSION:
        yield f"opset {version} is older than {_FIRST_VERSION}; convert the model to a newer one"
    if not norm.attributes.get_int("spatial", 1):
        yield "its statistics are per position (spatial = 0)"
    if norm.attributes.get_int("training_mode", 0) or any(value.name for value in norm.outputs[1:]):
        yield "it is in training mode"
    source, layer = norm.inputs[0], _producer(norm.inputs[0])
    if source is None or layer is None or layer.op_type not in _LAYERS or not is_standard(layer):
        yield f"its input {source.name if source else ''} is not computed by Conv, ConvTranspose or Gemm"
        return
    if layer.graph is not norm.graph:
        yield f"{source.name} is computed in another graph"
    if source.is_graph_output():
        yield f"{source.name} is also an output of the graph"
    if len(source.uses()) > 1:
        yield f"{source.name} is also used elsewhere"
    if layer.attributes.get_float("beta", 1.0) != 1.0:
        yield f"{source.name} is computed by a Gemm with beta other than 1"
    for value in (*layer.inputs[1:], *norm.inputs[1:]):
        obstacle = constants.obstacle(value) if value is not None else None
        if obstacle:
            yield obstacle
    channels = _channels(layer)
    if [np.shape(_data(value)) for value in norm.inputs[1:]] != [(channels,)] * 4:
        yield f"its parameters are not four vectors of {channels} numbers, the channels of {source.name}"


def _fold(constants: Constants, norm: onnx_ir.Node) -> str | None:
    """Fold one pair; the reason if the result does not fit its type."""
    layer = _producer(norm.inputs[0])
    assert layer is not None
    old_weight, old_bias, parameters = layer.inputs[1], (*layer.inputs, None)[2], norm.inputs[1:]
    weight, dtype = _exact(old_weight), _data(old_weight).dtype
    gamma, beta, mean, variance = map(_exact, parameters)
    bias = np.zeros_like(mean) if old_bias is None else _exact(old_bias)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
        new_weight = _scaled(layer, weight, scale).astype(dtype)
        new_bias = (scale * (bias - mean) + beta).astype(dtype)
    if not all(np.isfinite(array.astype(np.float64)).all() for array in (new_weight, new_bias)):
        return f"the folded weights of {layer.outputs[0].name} are not finite in {dtype.name}"
    name = old_weight.name if old_weight else ""
    layer.resize_inputs(3)
    layer.replace_input_with(1, constants.store(new_weight, old_weight, f"{name}_folded"))
    layer.replace_input_with(2, constants.store(new_bias, old_bias, f"{name}_folded_bias"))
    take_over(layer.outputs[0], norm)
    for value in (old_weight, old_bias, *parameters):
        constants.drop_if_unused(value)
    return None


def take_over(source: onnx_ir.Value, norm: onnx_ir.Node) -> None:
    """Let ``source`` stand for the output of ``norm``, under its name, and remove ``norm``."""
    output, graph = norm.outputs[0], norm.graph
    assert graph is not None
    name, source.type, source.shape = output.name, output.type or source.type, output.shape or source.shape
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    source.name = name


def _producer(value: onnx_ir.Value | None) -> onnx_ir.Node | None:
    return None if value is None else value.producer()


def _data(value: onnx_ir.Value | None) -> Array:
    array = None if value is None else stored_array(value)
    return np.empty(0) if array is None else array


def _exact(value: onnx_ir.Value | None) -> Array:
    return _data(value).astype(np.float64)


def _outputs_first(layer: onnx_ir.Node) -> bool:
    """Whether axis 0 of the weight is the output's channels (group by group)."""
    return layer.op_type == "Conv" or (
        layer.op_type == "Gemm" and bool(layer.attributes.get_int("transB", 0))
    )


def _channels(layer: onnx_ir.Node) -> int:
    shape: tuple[Any, ...] = _data(layer.inputs[1]).shape
    return int(shape[0] if _outputs_first(layer) else shape[1] * layer.attributes.get_int("group", 1))


def _scaled(layer: onnx_ir.Node, weight: Array, scale: Array) -> Array:
    """The weight with its output channels multiplied by ``scale``."""
    taps = [1] * (weight.ndim - 2)
    if _outputs_first(layer):
        return np.asarray(weight * scale.reshape(-1, 1, *taps))
    groups = layer.attributes.get_int("group", 1)  # 1 for Gemm
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    return np.asarray((by_group * scale.reshape(groups, 1, -1, *taps)).reshape(weight.shape))
