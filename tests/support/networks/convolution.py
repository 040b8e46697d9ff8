"""Convolutions, pools, skips, and what residual and dense architectures do between them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.networks.common import IMAGE, Function, Network, normal, parameter


class Residual(nn.Module):
    def __init__(self, project: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 1)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 3, 3, padding=1)
        self.skip = nn.Conv2d(3, 3, 1) if project else nn.Identity()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.second(F.relu(self.first(x))) + self.skip(x))
        return self.head(x.mean((2, 3)))


class ZeroPadShortcut(nn.Module):
    """ResNet type A: subsample and pad the channels with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        return self.head(F.relu(self.conv(x) + short).mean((2, 3)))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.norm = nn.BatchNorm2d(4, eps=0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        x = torch.cat([x, F.relu(self.b(x))], 1)
        return self.c(F.relu(self.norm(x)))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 1)
        self.down, self.up = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.b(x * gate)


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2)
        self.depth, self.c = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(F.relu(self.a(x))))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        left, right = self.depth(x).chunk(2, 1)
        return self.c(torch.maximum(left, right))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.mid = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(3, 2, 2, stride=2), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        x = F.relu(self.up(F.relu(self.mid(F.max_pool2d(skip, 2)))))
        return self.out(torch.cat([x, skip], 1))


def chain(*layers: nn.Module) -> nn.Module:
    """Layers with a ReLU between each two."""
    parts = [part for layer in layers for part in (layer, nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def blurred(bias: bool) -> nn.Module:
    """A depthwise kernel that is a constant (anti-aliased pooling), optionally with a constant bias."""
    kernel = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64).view(1, 1, 1, 3)
    offset = torch.full((3,), 0.3, dtype=torch.float64)

    def forward(s: Any, x: Tensor) -> Tensor:
        taps = torch.tensor(kernel.tolist(), dtype=x.dtype).expand(3, 1, 1, 3)
        shift = torch.tensor(offset.tolist(), dtype=x.dtype) if bias else None
        return s.b(F.relu(F.conv2d(F.relu(s.a(x)), taps, shift, groups=3)))

    return Function(forward, a=nn.Conv2d(2, 3, 1), b=nn.Conv2d(3, 1, 1))


NETWORKS: dict[str, Network] = {
    "mlp_flatten": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 2, 3), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(2, 3)
        ),
        normal(3, 2, 4, 4),
    ),
    "residual_identity": (lambda: Residual(False), IMAGE),
    "residual_projection": (lambda: Residual(True), IMAGE),
    "zero_pad_shortcut": (ZeroPadShortcut, IMAGE),
    "densenet": (lambda: Dense().eval(), IMAGE),
    "squeeze_excite": (SqueezeExcite, IMAGE),
    "shuffle": (Shuffle, IMAGE),
    "unet": (UNet, normal(2, 1, 4, 4)),
    "grouped": (
        lambda: chain(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 2, 1)),
        IMAGE,
    ),
    "depthwise_multiplier": (
        lambda: chain(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 4, 3, groups=2), nn.Conv2d(4, 1, 1)),
        IMAGE,
    ),
    "dilated": (
        lambda: chain(nn.Conv2d(2, 3, 2, dilation=2), nn.Conv2d(3, 2, 1), nn.Conv2d(2, 1, 1)),
        IMAGE,
    ),
    "transposed": (
        lambda: chain(nn.Conv2d(2, 3, 1), nn.ConvTranspose2d(3, 2, 2), nn.Conv2d(2, 1, 1)),
        IMAGE,
    ),
    "transposed_grouped": (
        lambda: chain(nn.Conv2d(2, 4, 1), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Conv2d(6, 1, 1)),
        IMAGE,
    ),
    "transposed_1d": (
        lambda: chain(nn.Conv1d(2, 3, 1), nn.ConvTranspose1d(3, 2, 2, stride=2), nn.Conv1d(2, 1, 1)),
        normal(2, 2, 4),
    ),
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(3, 1, 1)),
        normal(2, 2, 6),
    ),
    "conv3d": (
        lambda: chain(nn.Conv3d(1, 2, 2), nn.Conv3d(2, 2, 1, groups=2), nn.Conv3d(2, 1, 2)),
        normal(2, 1, 3, 3, 3),
    ),
    "blur": (lambda: blurred(bias=False), IMAGE),
    "blur_bias": (lambda: blurred(bias=True), IMAGE),
    "prelu": (lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.PReLU(3), nn.Conv2d(3, 1, 1)), IMAGE),
    "prelu_shared": (lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.PReLU(), nn.Conv2d(3, 1, 1)), IMAGE),
    "relu6": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 1), nn.ReLU6(), nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1)
        ),
        normal(2, 2, 4, 4, size=6.0),
    ),
    "learned_map_computed_kernel": (
        lambda: Function(
            lambda s, z: s.o(F.relu(F.conv1d(s.q, s.k(z).view(2, 3, 2)))),
            q=parameter(1, 3, 5), k=nn.Linear(2, 12), o=nn.Conv1d(2, 2, 1),
        ),
        normal(1, 2),
    ),
    "learned_map_computed_kernel_grouped": (
        lambda: Function(
            lambda s, z: s.o(F.relu(F.conv_transpose1d(F.relu(s.q), s.k(z).view(4, 1, 2), s.b, groups=2))),
            q=parameter(2, 4, 5), k=nn.Linear(2, 8), b=parameter(2), o=nn.Conv1d(2, 2, 1),
        ),
        normal(1, 2),
    ),
    "learned_map_through_layers": (
        lambda: Function(
            lambda s, x: s.o(F.relu(s.b(F.relu(s.a(s.q))) + s.c(x))), q=parameter(1, 2, 4, 4),
            a=nn.Conv2d(2, 3, 1), b=nn.ConvTranspose2d(3, 2, 1, bias=False), c=nn.Conv2d(2, 2, 1),
            o=nn.Conv2d(2, 1, 1),
        ),
        IMAGE,
    ),
}  # fmt: skip
