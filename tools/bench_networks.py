"""The networks of the solver's benchmark, as torch modules with random weights."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Built = tuple[nn.Module, tuple[Any, ...]]


def mlp(depth: int, width: int, inputs: int = 64, outputs: int = 10) -> Built:
    """`depth` linear layers with ReLU between."""
    widths = [inputs, *[width] * (depth - 1), outputs]
    layers: list[nn.Module] = []
    for here, there in pairwise(widths):
        layers += [nn.Linear(here, there, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval(), (torch.randn(1, inputs),)


def paper_net() -> Built:
    """Stock et al. 2019: 3072-(500 x 20)-10, layers 6 and 12 scaled by 1.2 and 0.8."""
    net, example = mlp(21, 500, 3072)
    with torch.no_grad():
        net[2 * 5].weight *= 1.2  # type: ignore[operator,union-attr]
        net[2 * 11].weight *= 0.8  # type: ignore[operator,union-attr]
    return net, example


class TypeC(nn.Module):
    """A residual block whose shortcut is always a 1x1 convolution (He et al. 2016, option C)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(functional.relu(self.first(x))) + self.shortcut(x))


def resnet18_c() -> Built:
    """ResNet-18 with type-C blocks, without normalization, as in the paper."""
    blocks, width = [], 64
    for stage, outputs in enumerate((64, 128, 256, 512)):
        for k in range(2):
            blocks.append(TypeC(width, outputs, 2 if stage and not k else 1))
            width = outputs
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    return nn.Sequential(*stem, *blocks, *head).eval(), (torch.randn(1, 3, 64, 64),)


class LlamaBlock(nn.Module):
    """RMSNorm, grouped-query attention, SwiGLU."""

    def __init__(self, width: int, heads: int, groups: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, groups * self.size, bias=False)
        self.v = nn.Linear(width, groups * self.size, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        q = self.q(h).unflatten(-1, (self.heads, self.size)).transpose(1, 2)
        k, v = (f(h).unflatten(-1, (self.groups, self.size)).transpose(1, 2) for f in (self.k, self.v))
        a = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(a.transpose(1, 2).flatten(2))
        h = self.norm2(x)
        return x + self.down(functional.silu(self.gate(h)) * self.up(h))


def llama(layers: int = 24, width: int = 768) -> Built:
    """A stack of Llama-like blocks."""
    blocks = [LlamaBlock(width, 12, 4, 2048) for _ in range(layers)]
    return nn.Sequential(*blocks).eval(), (torch.randn(1, 8, width),)


def zoo(name: str, size: int) -> Built:
    """A model of torchvision."""
    from graphnorm.cli.models.zoo import build_module

    model: nn.Module = build_module("torchvision", name, seed=0).module
    return model.eval(), (torch.randn(1, 3, size, size),)


NETWORKS: dict[str, Callable[[], Built]] = {
    "paper 3072-(500x20)-10": paper_net,
    "ResNet-18 type C": resnet18_c,
    "ResNet-50": lambda: zoo("resnet50", 224),
    "ViT-B/16": lambda: zoo("vit_b_16", 224),
    "Llama-like, 24 blocks": llama,
    "MLP depth 10": lambda: mlp(10, 256),
    "MLP depth 100": lambda: mlp(100, 256),
    "MLP depth 1000": lambda: mlp(1000, 64),
}
