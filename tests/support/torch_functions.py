"""Runs a torch model and the ONNX operators that it is lowered to on the same inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path

from graphnorm.frontends.torch.read import read_torch
from graphnorm.frontends.torch.tensors import to_numpy
from graphnorm.ir import Graph
from tests.support.ir_interpreter import run

Functions = dict[str, Callable[[Tensor], Any]]


class Fn(nn.Module):
    """A module from a function of tensors."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


class Table(nn.Module):
    """Many functions of one tensor: exporting them together is ten times as fast."""

    def __init__(self, functions: Functions) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {name: function(x) for name, function in self.functions.items()}


def check(model: nn.Module, *inputs: Tensor) -> Graph:
    """Run torch and the graph's ONNX nodes on the same inputs."""
    torch.manual_seed(0)
    graph = read_torch(model, inputs)
    feeds = {name: to_numpy(tensor) for name, tensor in zip(graph.inputs, inputs, strict=True)}
    values = run(graph, feeds)
    with torch.no_grad():
        outputs = model(*inputs)
    leaves = [(str(path), leaf) for path, leaf in tree_flatten_with_path(outputs)[0]]
    assert len(leaves) == len(graph.outputs)
    for name, (where, tensor) in zip(graph.outputs, leaves, strict=True):
        expected = to_numpy(tensor)
        np.testing.assert_allclose(values[name], expected, rtol=1e-5, atol=_noise(expected), err_msg=where)
    return graph


def _noise(values: Any) -> float:
    """Float32 sums are off by a share of their largest terms, also where these cancel."""
    finite = np.abs(values[np.isfinite(values)].astype(np.float64))
    return 1e-5 + 1e-6 * float(finite.max(initial=0.0))


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape)


x23, x234, image, seq = rand(2, 3), rand(2, 3, 4), rand(2, 4, 6, 6), rand(2, 6, 5)
