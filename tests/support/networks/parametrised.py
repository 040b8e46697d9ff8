"""Weights that are expressions of parameters, and parameters that are used more than once."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.support.networks.common import IMAGE, ROWS, Function, Network, linear, parameter, tokens


class Tied(nn.Module):
    """One matrix used twice: both of its uses must agree."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.shared, self.b = nn.Linear(3, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.shared(F.relu(self.shared(F.relu(self.a(x)))))))


class Embedding(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.hidden = nn.Linear(3, 3)
        self.head = nn.Linear(3, 5, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(F.relu(self.embed(x)))))


class LowRank(nn.Module):
    """W + B A."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)
        self.left, self.right = nn.Parameter(torch.randn(2, 2)), nn.Parameter(torch.randn(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(self.a(x)), self.b.weight + self.left @ self.right, self.b.bias)


def middle(weight: Any, **parts: Any) -> nn.Module:
    """Three layers; the middle one's matrix (3, 4) is `weight` of the module."""
    return Function(
        lambda s, x: s.c(F.relu(F.linear(F.relu(s.a(x)), weight(s)))), a=linear(3, 4), c=linear(3, 2), **parts
    )


def layered(middle_layer: nn.Module) -> nn.Module:
    return nn.Sequential(linear(3, 4), nn.ReLU(), middle_layer, nn.ReLU(), linear(3, 2)).eval()


def hooked(dim: int | None) -> nn.Module:
    """The weight_norm of old, which computes the weight in a hook (here without a gradient, to be copied)."""
    with torch.no_grad():
        return nn.utils.weight_norm(linear(4, 3), dim=dim)  # type: ignore[arg-type]


def standardised(s: Any, x: Tensor, epsilon: float) -> Tensor:
    """Weight standardisation (Qiao et al. 2019) of a convolution."""
    w = s.w - s.w.mean((1, 2, 3), keepdim=True)
    w = w / (w.square().mean((1, 2, 3), keepdim=True) + epsilon).sqrt()
    return s.c(F.relu(F.conv2d(F.relu(s.a(x)), w, s.bias)))


def dora(s: Any) -> Tensor:
    """Weight-decomposed low-rank adaptation (Liu et al. 2024): magnitude times direction."""
    w = s.w + 2.0 * (s.left @ s.right)
    return s.magnitude * w / w.norm(dim=1, keepdim=True)


KEEP = torch.tensor([[True, False, True, True], [True, True, False, True], [False, True, True, True]])

NETWORKS: dict[str, Network] = {
    "shared_matrix": (Tied, ROWS),
    "siamese": (
        lambda: Function(
            lambda s, x, y: s.b(F.relu(s.a(x)) - F.relu(s.a(y))), a=linear(3, 4), b=linear(4, 2)
        ),
        lambda g: (ROWS(g)[0], ROWS(g)[0]),
    ),
    "siamese_concat": (
        lambda: Function(
            lambda s, x, y: s.b(torch.cat([F.relu(s.a(x)), F.relu(s.a(y))], -1)),
            a=linear(3, 3), b=linear(6, 2),
        ),
        lambda g: (ROWS(g)[0], ROWS(g)[0]),
    ),
    "autoencoder_tied": (
        lambda: Function(
            lambda s, x: F.linear(F.relu(F.linear(x, s.w, s.b)), s.w.t(), s.c),
            w=parameter(4, 3), b=parameter(4), c=parameter(3),
        ),
        ROWS,
    ),
    "embedding": (lambda: Embedding(tied=False), tokens(5, 2, 4)),
    "embedding_tied": (lambda: Embedding(tied=True), tokens(5, 2, 4)),
    "low_rank": (LowRank, ROWS),
    "lora_alpha": (
        lambda: middle(
            lambda s: s.w + 0.25 * (s.left @ s.right),
            w=parameter(3, 4), left=parameter(3, 2), right=parameter(2, 4),
        ),
        ROWS,
    ),
    "lora_branch": (
        lambda: Function(
            lambda s, x: s.c(F.relu(s.b(F.relu(s.a(x))) + 0.5 * s.up(s.down(F.relu(s.a(x)))))),
            a=linear(3, 4), b=linear(4, 3), c=linear(3, 2), down=linear(4, 2, False), up=linear(2, 3, False),
        ),
        ROWS,
    ),
    "factorised": (
        lambda: middle(lambda s: s.left @ s.right, left=parameter(3, 2), right=parameter(2, 4)),
        ROWS,
    ),
    "dora": (
        lambda: middle(
            dora, w=parameter(3, 4), left=parameter(3, 2), right=parameter(2, 4), magnitude=parameter(3, 1)
        ),
        ROWS,
    ),
    "weight_gain": (lambda: middle(lambda s: s.w * s.g, w=parameter(3, 4), g=parameter(3, 1)), ROWS),
    "weight_gain_scalar": (lambda: middle(lambda s: s.w * s.g, w=parameter(3, 4), g=parameter(1)), ROWS),
    "weight_elementwise": (lambda: middle(lambda s: s.w * s.g, w=parameter(3, 4), g=parameter(3, 4)), ROWS),
    "weight_masked": (
        lambda: middle(lambda s: s.w * torch.tensor(KEEP.tolist()).to(s.w.dtype), w=parameter(3, 4)),
        ROWS,
    ),
    "weight_mask_chosen": (
        lambda: middle(lambda s: torch.where(torch.tensor(KEEP.tolist()), s.w, 0.0), w=parameter(3, 4)),
        ROWS,
    ),
    "weight_relu": (lambda: middle(lambda s: F.relu(s.w), w=parameter(3, 4)), ROWS),
    "weight_square": (lambda: middle(lambda s: s.w.square(), w=parameter(3, 4)), ROWS),
    "weight_softmax": (lambda: middle(lambda s: torch.softmax(s.w, -1), w=parameter(3, 4)), ROWS),
    "weight_concat": (
        lambda: middle(lambda s: torch.cat([s.w, s.v]), w=parameter(1, 4), v=parameter(2, 4)),
        ROWS,
    ),
    "weight_sum": (lambda: middle(lambda s: s.w + s.v, w=parameter(3, 4), v=parameter(3, 1)), ROWS),
    "weight_outer": (
        lambda: middle(lambda s: torch.outer(s.u, s.v), u=parameter(3), v=parameter(4)),
        ROWS,
    ),
    "weight_symmetric": (
        lambda: Function(
            lambda s, x: s.c(F.relu(F.linear(F.relu(s.a(x)), s.w + s.w.t()))),
            a=linear(3, 3), c=linear(3, 2), w=parameter(3, 3),
        ),
        ROWS,
    ),
    "weight_norm": (lambda: layered(parametrizations.weight_norm(linear(4, 3))), ROWS),
    "weight_norm_legacy": (lambda: layered(hooked(0)), ROWS),
    "weight_norm_whole": (lambda: layered(hooked(None)), ROWS),
    "weight_norm_conv": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 1), nn.ReLU(), parametrizations.weight_norm(nn.Conv2d(3, 2, 2)), nn.ReLU(),
            nn.Conv2d(2, 1, 1),
        ),
        IMAGE,
    ),
    "spectral_norm": (lambda: layered(parametrizations.spectral_norm(linear(4, 3))), ROWS),
    "weight_standardised": (
        lambda: Function(
            lambda s, x: standardised(s, x, 0.5),
            a=nn.Conv2d(2, 3, 1), w=parameter(2, 3, 2, 2), bias=parameter(2), c=nn.Conv2d(2, 1, 1),
        ),
        IMAGE,
    ),
    "weight_standardised_no_epsilon": (
        lambda: Function(
            lambda s, x: standardised(s, x, 0.0),
            a=nn.Conv2d(2, 3, 1), w=parameter(2, 3, 2, 2), bias=parameter(2), c=nn.Conv2d(2, 1, 1),
        ),
        IMAGE,
    ),
    "dynamic_filter": (  # a hypernetwork: the matrix of each row is computed from it
        lambda: Function(
            lambda s, x: s.c(F.relu((s.w(x).view(-1, 3, 4) @ F.relu(s.a(x)).unsqueeze(-1)).squeeze(-1))),
            a=linear(3, 4), w=linear(3, 12), c=linear(3, 2),
        ),
        ROWS,
    ),
}  # fmt: skip
