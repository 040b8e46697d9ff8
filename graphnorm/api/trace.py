"""`graphnorm.trace`: from a model to its rescaling graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphnorm.api.sources import open_model
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.util.callers_state import kept_filters
from graphnorm.util.limits import enough_memory


@kept_filters()
@enough_memory()
def trace(
    model: Any,
    example_inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    inputs_as_weights: bool = False,
) -> RescalingGraph:
    """Find every positive rescaling that a model's graph allows.

    Args:
        model: ``nn.Module``, ``fx.GraphModule``, ``ExportedProgram``, ONNX model, or the path of a
            ``.onnx`` or ``.pt2`` file.
        example_inputs: inputs to trace a torch module with (tensor or tuple); ONNX: arrays.
        kwargs: keyword inputs of a torch module.
        input_shapes: sizes of an ONNX model's symbolic dimensions, by input name.
        inputs_as_weights: take an ONNX model's initializers as weights even where they are graph inputs.

    Raises:
        InputError: the model cannot be taken.

    Returns:
        The rescaling graph: equations between log-scales, their exact solution, and causes.

    >>> import torch, graphnorm
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> graphnorm.trace(model, torch.randn(3, 4))
    RescalingGraph(network='Sequential', dimension=8)
    """
    return build(open_model(model, example_inputs, kwargs, input_shapes, inputs_as_weights).network)
