"""The residual networks of the comparison, each with BatchNorm, GroupNorm or EquiNorm.

After a convolution, BatchNorm and GroupNorm normalise its output; EquiNorm takes the convolution's place.  In
the pre-activation network BatchNorm and GroupNorm stand before the ReLU, while EquiNorm normalises the
convolutions that follow it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graphnorm.nn import EquiNormConv2d

NORMS = ("batch", "group", "equinorm", "equinorm-unit", "equinorm-1pass", "equinorm-quarter")
GROUPS = 32  # of GroupNorm, fewer where there are fewer channels


class Mix(NamedTuple):
    """Which hidden values of a batch are mixed: lam * h + (1 - lam) * h[order] before stage `stage`."""

    stage: int
    lam: float
    order: Tensor

    def __call__(self, h: Tensor) -> Tensor:
        return self.lam * h + (1 - self.lam) * h[self.order]


def norm_of(norm: str, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(GROUPS, channels // 2), channels) if norm == "group" else nn.Identity()


def convolution(norm: str, i: int, o: int, kernel: int, stride: int = 1, signed: bool = False) -> nn.Module:
    """Convolution without bias, or EquiNorm convolution."""
    padding = kernel // 2
    if not norm.startswith("equinorm"):
        return nn.Conv2d(i, o, kernel, stride, padding, bias=False)
    layer = EquiNormConv2d(
        i, o, kernel, stride, padding,
        one_pass=norm.endswith("1pass"),
        stats_fraction=0.25 if norm.endswith("quarter") else 1.0,
        signed_inputs=signed,
    )  # fmt: skip
    if norm.endswith("unit") and layer.gain is not None:
        nn.init.constant_(layer.gain, unit_gain(i * kernel**2))
    return layer


def unit_gain(n: int) -> float:
    """The gain with which an EquiNorm layer's output starts with variance 1, like BatchNorm's.

    Of n independent inputs max(g, 0), g normal, each has a mean m and the variance (pi - 1) m^2.  Of n
    weights w'', uniform around 0, E w''^2 = 4/3 (E |w''|)^2 and n E |w''| m = 2.  The output's variance is
    n E w''^2 (pi - 1) m^2 = 16 (pi - 1) / (3 n).
    """
    return math.sqrt(3 * n / (16 * (math.pi - 1)))


def normalised(norm: str, i: int, o: int, kernel: int, stride: int = 1, signed: bool = False) -> nn.Module:
    """Convolution and the normalisation of its output."""
    return nn.Sequential(convolution(norm, i, o, kernel, stride, signed), norm_of(norm, o))


class PostBlock(nn.Module):
    """relu(n(conv(relu(n(conv(x))))) + shortcut(x))."""

    def __init__(self, norm: str, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = normalised(norm, i, o, 3, stride), normalised(norm, o, o, 3)
        same = i == o and stride == 1
        self.shortcut = nn.Identity() if same else normalised(norm, i, o, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.relu(self.first(x))) + self.shortcut(x)
        return torch.relu(out)


class PreBlock(nn.Module):
    """x + conv(relu(n(conv(relu(n(x)))))), the shortcut taken after the first ReLU where sizes change."""

    def __init__(self, norm: str, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm_of(norm, i), norm_of(norm, o)
        self.conv1, self.conv2 = convolution(norm, i, o, 3, stride), convolution(norm, o, o, 3)
        self.shortcut = None if i == o and stride == 1 else convolution(norm, i, o, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(h)
        out: Tensor = skip + self.conv2(torch.relu(self.norm2(self.conv1(h))))
        return out


class ResNet(nn.Module):
    """Stem, stages of residual blocks, each with twice the channels at half the size, and a linear head."""

    def __init__(
        self, block: Callable[..., nn.Module], norm: str, planes: int, blocks: tuple[int, ...],
        channels: int, classes: int,
    ) -> None:  # fmt: skip
        super().__init__()
        pre = block is PreBlock
        stem = convolution if pre else normalised
        self.stem = nn.Sequential(
            stem(norm, channels, planes, 3, signed=True), nn.Identity() if pre else nn.ReLU()
        )
        self.stages = nn.ModuleList()
        i = planes
        for stage, count in enumerate(blocks):
            o = planes << stage
            strides = [2 if stage else 1, *[1] * (count - 1)]
            self.stages.append(
                nn.Sequential(*(block(norm, i if k == 0 else o, o, s) for k, s in enumerate(strides)))
            )
            i = o
        self.end = nn.Sequential(norm_of(norm, i), nn.ReLU()) if pre else nn.Identity()
        self.head = nn.Linear(i, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.mixed(x, None)

    def mixed(self, x: Tensor, mix: Mix | None) -> Tensor:
        """With images or hidden values mixed between samples."""
        for stage, module in enumerate((self.stem, *self.stages)):
            x = module(mix(x) if mix is not None and mix.stage == stage else x)
        out: Tensor = self.head(self.end(x).mean((2, 3)))
        return out


def wide_resnet20(norm: str, planes: int = 96, **options: Any) -> ResNet:
    """3 stages of 3 blocks: 19 convolutions of 3x3, two projections, and the head."""
    return ResNet(PostBlock, norm, planes, (3, 3, 3), **options)


def preact_resnet18(norm: str, planes: int = 64, **options: Any) -> ResNet:
    """4 stages of 2 pre-activation blocks (He et al. 2016)."""
    return ResNet(PreBlock, norm, planes, (2, 2, 2, 2), **options)


def small_resnet(norm: str, planes: int = 8, **options: Any) -> ResNet:
    """3 stages of one block: 7 convolutions of 3x3 and two projections."""
    return ResNet(PostBlock, norm, planes, (1, 1, 1), **options)


def small_preact(norm: str, planes: int = 8, **options: Any) -> ResNet:
    """3 stages of one pre-activation block."""
    return ResNet(PreBlock, norm, planes, (1, 1, 1), **options)


NETWORKS: dict[str, Callable[..., ResNet]] = {
    build.__name__: build for build in (wide_resnet20, preact_resnet18, small_resnet, small_preact)
}
