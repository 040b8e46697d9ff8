"""The two networks of ``graphnorm demo``, with deliberately unbalanced weights.

Unbalancing multiplies each layer by a factor between 1e-3 and 1e3 and each of its channels by a random
one.  It makes another function of the network, on purpose: the demo shows how far the weights then are
from the balanced ones of *that* function.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

if TYPE_CHECKING:
    from graphnorm.ir import Array

_FACTORS = (1e3, 1.0, 1e-3, 30.0, 1e-1)


class BlockC(nn.Module):
    """A basic residual block with a projection shortcut (type C: in every block)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.bn3(self.shortcut(x)))


class ResNet18C(nn.Module):
    """ResNet-18 for small images, projection shortcuts in every block (He et al. 2016, option C)."""

    def __init__(self, width: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        sizes = [
            (width, width, 1),
            (width, 2 * width, 2),
            (2 * width, 4 * width, 2),
            (4 * width, 8 * width, 2),
        ]
        self.blocks = nn.Sequential(
            *(block for i, o, stride in sizes for block in (BlockC(i, o, stride), BlockC(o, o, 1)))
        )
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(torch.relu(self.bn(self.conv(x))))
        return self.fc(y.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def resnet18c(seed: int = 0, width: int = 64, unbalanced: bool = True) -> ResNet18C:
    """A ResNet-18 of type C in evaluation mode, for inputs such as (1, 3, 32, 32).

    Args:
        seed: of weights and running statistics.
        width: channels of the first layer.
        unbalanced: scale layers and channels (see the module's docstring).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ResNet18C(width).eval()
    generator = torch.Generator().manual_seed(seed)
    factors = _cycle(_FACTORS)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                channels = module.num_features
                module.running_mean.copy_(0.1 * torch.randn(channels, generator=generator))  # type: ignore[union-attr]
                module.running_var.copy_(0.5 + torch.rand(channels, generator=generator))  # type: ignore[union-attr]
                module.weight.copy_(0.5 + torch.rand(channels, generator=generator))
                module.bias.copy_(0.1 * torch.randn(channels, generator=generator))
            elif isinstance(module, nn.Conv2d) and unbalanced:
                spread = torch.exp(torch.randn(module.out_channels, generator=generator))
                module.weight.mul_(next(factors) * spread.reshape(-1, 1, 1, 1))
    return model


def small_onnx(seed: int = 0, unbalanced: bool = True) -> onnx.ModelProto:
    """An ONNX network with convolution, depthwise, residual, hard-swish and Gemm, input (N, 3, 32, 32)."""
    random = np.random.default_rng(seed)
    factors = _cycle(_FACTORS)
    tensors: list[onnx.TensorProto] = []

    def weight(name: str, shape: tuple[int, ...], fan_in: int) -> str:
        values = random.standard_normal(shape) / np.sqrt(fan_in)
        if unbalanced:
            values *= next(factors) * np.exp(random.standard_normal((shape[0], *(1,) * (len(shape) - 1))))
        tensors.append(_tensor(name, values))
        return name

    def bias(name: str, size: int) -> str:
        tensors.append(_tensor(name, 0.1 * random.standard_normal(size)))
        return name

    def conv(layer: str, x: str, out: int, into: int, kernel: int, group: int = 1) -> onnx.NodeProto:
        shape = (out, into // group, kernel, kernel)
        names = [weight(f"{layer}.weight", shape, shape[1] * kernel**2), bias(f"{layer}.bias", out)]
        pads = [kernel // 2] * 4
        return helper.make_node(
            "Conv", [x, *names], [f"{layer}.out"], layer, kernel_shape=[kernel] * 2, pads=pads, group=group
        )

    def simple(op: str, inputs: list[str], name: str) -> onnx.NodeProto:
        return helper.make_node(op, inputs, [f"{name}.out"], name)

    nodes = [
        conv("stem", "image", 16, 3, 3),
        simple("Relu", ["stem.out"], "stem.relu"),
        conv("expand", "stem.relu.out", 48, 16, 1),
        simple("Relu", ["expand.out"], "expand.relu"),
        conv("depthwise", "expand.relu.out", 48, 48, 3, group=48),
        simple("Relu", ["depthwise.out"], "depthwise.relu"),
        conv("project", "depthwise.relu.out", 16, 48, 1),
        simple("Add", ["project.out", "stem.relu.out"], "residual"),
        conv("wide", "residual.out", 32, 16, 3),
        simple("HardSwish", ["wide.out"], "wide.hardswish"),
        conv("last", "wide.hardswish.out", 64, 32, 1),
        simple("Relu", ["last.out"], "last.relu"),
        simple("GlobalAveragePool", ["last.relu.out"], "pool"),
        simple("Flatten", ["pool.out"], "flatten"),
        helper.make_node(
            "Gemm",
            ["flatten.out", weight("hidden.weight", (32, 64), 64), bias("hidden.bias", 32)],
            ["hidden.out"],
            "hidden",
            transB=1,
        ),
        simple("Relu", ["hidden.out"], "hidden.relu"),
        helper.make_node(
            "Gemm",
            ["hidden.relu.out", weight("classes.weight", (10, 32), 32), bias("classes.bias", 10)],
            ["scores"],
            "classes",
            transB=1,
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "small_cnn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10])],
        tensors,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="graphnorm demo"
    )
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


def _tensor(name: str, values: Array) -> onnx.TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)


def _cycle(values: tuple[float, ...]) -> Iterator[float]:
    while True:
        yield from values
