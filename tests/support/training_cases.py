"""Networks and loops for the tests of training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from graphnorm.cli.models.demo import resnet18c
from tools.experiments.networks import CifarNV, ResNet, fully_connected, resnet18_type_c


class Attention(nn.Module):
    """A transformer block of a tiny ViT: fused QKV, LayerNorm, MLP with ReLU, dropout."""

    def __init__(self, width: int = 16, heads: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, width))

    def forward(self, x: Tensor) -> Tensor:
        b, n, w = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(y.transpose(1, 2).reshape(b, n, w))
        return x + self.mlp(self.norm2(x))


class TinyViT(nn.Module):
    def __init__(self, width: int = 16, depth: int = 2, dropout: float = 0.0, heads: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.position = nn.Parameter(0.1 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(Attention(width, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


def images(batch: int = 4) -> Tensor:
    return torch.randn(batch, 3, 32, 32)


CASES: dict[str, Callable[[], nn.Module]] = {
    "fc15": lambda: fully_connected(15, 3072, 20),
    "cifar_nv": lambda: CifarNV(width=8),
    "resnet18_bn": lambda: ResNet(norm="batch", width=8, classes=7, stem=False),
    "resnet18_gn": lambda: ResNet((1, 1), norm="group", width=8, classes=7, stem=False),
    "resnet18_c": lambda: resnet18_type_c(width=8),
    "resnet18_c_bn": lambda: resnet18c(width=8, unbalanced=False).train(),
    "vit": TinyViT,
}


def build(name: str, dtype: torch.dtype = torch.float64) -> Any:
    """A network whose output depends on every layer, biases included."""
    torch.manual_seed(0)
    model = CASES[name]()
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
    return model.to(dtype).train()


def momentum(model: nn.Module, lr: float = 0.01) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-3)


def train_step(model: nn.Module, optimizer: Optimizer, x: Tensor) -> None:
    loss = -model(x).log_softmax(dim=1)[:, 0].mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """In training mode, then in evaluation mode; the model itself is left alone."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        return [other(x), other.eval()(x)]


def worst(one: list[Tensor], two: list[Tensor]) -> float:
    """Largest difference over the largest value."""
    return max(
        float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in zip(one, two, strict=True)
    )
