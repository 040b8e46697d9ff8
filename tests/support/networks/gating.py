"""Gates, gains and products of branches."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.networks.common import ROWS, Function, Network, linear, parameter


class Gated(nn.Module):
    """SwiGLU (pinned gate) or ReGLU (both branches free)."""

    def __init__(self, relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.gate, self.up, self.down = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.relu(self.gate(x)) if self.relu else F.silu(self.gate(x))
        return self.down(gate * self.up(x))


class Scalar(nn.Module):
    """ReZero: one learned number on a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.c(x + self.alpha * F.relu(self.b(x)))


class SquaredRelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)).square())


class LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.gamma = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.c(F.relu(x + self.gamma * self.b(F.gelu(x))))


def experts(hidden: Tensor, gates: Tensor) -> Tensor:
    """(rows, experts, features) weighted by (rows, experts)."""
    return (hidden * gates.unsqueeze(-1)).sum(1)


def soft_experts(s: Any, x: Tensor) -> Tensor:
    """Dense mixture: per-expert matrices in one parameter (experts, in, hidden)."""
    hidden = F.relu(torch.einsum("ni,eih->neh", x, s.up))
    return experts(torch.einsum("neh,eho->neo", hidden, s.down), torch.softmax(s.router(x), -1))


def top_experts(s: Any, x: Tensor) -> Tensor:
    """The same with all gates but the best one masked out."""
    scores = s.router(x)
    best = scores.topk(1, -1).values
    gates = torch.softmax(scores.masked_fill(scores < best, float("-inf")), -1)
    hidden = F.relu(torch.einsum("ni,eih->neh", x, s.up))
    return experts(torch.einsum("neh,eho->neo", hidden, s.down), gates)


def listed_experts(s: Any, x: Tensor) -> Tensor:
    """Experts as modules, their results stacked."""
    outputs = torch.stack([second(F.relu(first(x))) for first, second in zip(s.up, s.down, strict=True)], 1)
    return experts(outputs, torch.softmax(s.router(x), -1))


NETWORKS: dict[str, Network] = {
    "swiglu": (lambda: Gated(relu=False), ROWS),
    "reglu": (lambda: Gated(relu=True), ROWS),
    "bilinear_glu": (
        lambda: Function(
            lambda s, x: s.c(s.a(x) * s.b(x)), a=linear(3, 4), b=linear(3, 4), c=linear(4, 2)
        ),
        ROWS,
    ),
    "glu_fused": (
        lambda: Function(lambda s, x: s.c(F.glu(s.a(x))), a=linear(3, 8), c=linear(4, 2)),
        ROWS,
    ),
    "squared_relu": (SquaredRelu, ROWS),
    "layer_scale": (LayerScale, ROWS),
    "rezero": (Scalar, ROWS),
    "scalar_shared": (
        lambda: Function(
            lambda s, x: s.c(s.alpha * F.relu(s.b(s.alpha * F.relu(s.a(x))))),
            a=linear(3, 4), b=linear(4, 3), c=linear(3, 2), alpha=parameter(1),
        ),
        ROWS,
    ),
    "gains": (
        lambda: Function(
            lambda s, x: s.c(s.h * F.relu(s.b(F.relu(s.g * s.a(x))))),
            a=linear(3, 4), b=linear(4, 3), c=linear(3, 2), g=parameter(4), h=parameter(3),
        ),
        ROWS,
    ),
    "temperature": (  # a learned number that divides logits
        lambda: Function(
            lambda s, x: torch.sigmoid(s.b(F.relu(s.a(x))) / s.t),
            a=linear(3, 4), b=linear(4, 2), t=parameter(1),
        ),
        ROWS,
    ),
    "experts_soft": (
        lambda: Function(
            soft_experts, up=parameter(2, 3, 3), down=parameter(2, 3, 2), router=linear(3, 2)
        ),
        ROWS,
    ),
    "experts_top": (
        lambda: Function(
            top_experts, up=parameter(2, 3, 3), down=parameter(2, 3, 2), router=linear(3, 2)
        ),
        ROWS,
    ),
    "experts_listed": (
        lambda: Function(
            listed_experts,
            up=nn.ModuleList(linear(3, 3) for _ in range(2)),
            down=nn.ModuleList(linear(3, 2) for _ in range(2)),
            router=linear(3, 2),
        ),
        ROWS,
    ),
}  # fmt: skip
