"""The networks of Stock et al. 2019, and the layers that they are compared with."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from graphnorm.cli.models.demo import ResNet18C

Norm = Callable[[int], nn.Module]


def fully_connected(
    layers: int, inputs: int = 3072, width: int = 500, classes: int = 10, norm: str = "none"
) -> nn.Sequential:
    """FC: input to `width`, `layers` intermediate layers width x width, and a classifier; biases, ReLU."""
    made: list[nn.Module] = [nn.Flatten()]
    sizes = [inputs, *[width] * (layers + 1)]
    for before, after in itertools.pairwise(sizes):
        made += [nn.Linear(before, after), *_vector_norm(norm, after), nn.ReLU()]
    return nn.Sequential(*made, nn.Linear(width, classes))


def _vector_norm(norm: str, width: int) -> list[nn.Module]:
    kinds: dict[str, list[nn.Module]] = {
        "none": [],
        "batch": [nn.BatchNorm1d(width)] if norm == "batch" else [],
        "group": [nn.GroupNorm(min(20, width), width)] if norm == "group" else [],
    }
    return kinds[norm]


class CifarNV(nn.Module):
    """CIFAR-NV (Gitman & Ginsburg 2017): nine convolutions, two poolings, no fully connected layer."""

    def __init__(self, channels: int = 3, width: int = 128, classes: int = 10, norm: str = "none") -> None:
        super().__init__()
        last = width * 5 // 2
        plan = [(channels, width, 3), (width, width, 3), (width, width, 3), None]
        plan += [(width, 2 * width, 3), (2 * width, 2 * width, 3), (2 * width, 2 * width, 3), None]
        plan += [(2 * width, last, 3), (last, last, 1)]
        made: list[nn.Module] = []
        for step in plan:
            if step is None:
                made.append(nn.MaxPool2d(3, 2, 1))
                continue
            before, after, kernel = step
            made.append(nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=norm == "none"))
            if norm == "batch":
                made.append(nn.BatchNorm2d(after))
            elif norm == "group":
                made.append(nn.GroupNorm(16, after))
            made.append(nn.ReLU())
        self.features = nn.Sequential(*made)
        self.classifier = nn.Conv2d(last, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.features(x))
        return y.mean(dim=(2, 3))


class ResNet(nn.Module):
    """A ResNet of basic or bottleneck blocks for images of any size; identity or projection shortcuts.

    Args:
        blocks: per stage.
        bottleneck: bottleneck blocks (ResNet-50) instead of basic ones (ResNet-18).
        norm: ``batch``, ``group`` or ``none``.
        width: channels of the first stage.
        stem: 7 x 7 stride 2 and pooling (ImageNet), or 3 x 3.
    """

    def __init__(
        self,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        bottleneck: bool = False,
        norm: str = "batch",
        width: int = 64,
        classes: int = 1000,
        stem: bool = True,
    ) -> None:
        super().__init__()
        made = _norm2d(norm)
        first = nn.Conv2d(3, width, 7, 2, 3, bias=norm == "none") if stem else nn.Conv2d(3, width, 3, 1, 1)
        self.stem = nn.Sequential(
            first, made(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1) if stem else nn.Identity()
        )
        stages: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks):
            for index in range(count):
                inner = width << stage
                block = _Block(channels, inner, 2 if stage and not index else 1, bottleneck, norm)
                channels = block.channels
                stages.append(block)
        self.blocks = nn.Sequential(*stages)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.blocks(self.stem(x)).mean(dim=(2, 3)))
        return y


class _Block(nn.Module):
    def __init__(self, before: int, inner: int, stride: int, bottleneck: bool, norm: str) -> None:
        super().__init__()
        self.channels = 4 * inner if bottleneck else inner
        bias = norm == "none"
        plan = [(before, inner, 3, stride), (inner, inner, 3, 1)]
        if bottleneck:
            plan = [(before, inner, 1, 1), (inner, inner, 3, stride), (inner, self.channels, 1, 1)]
        made: list[nn.Module] = []
        for a, b, kernel, step in plan:
            made += [
                nn.Conv2d(a, b, kernel, step, kernel // 2, bias=bias),
                _norm2d(norm)(b),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*made[:-1])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != self.channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, self.channels, 1, stride, bias=bias), _norm2d(norm)(self.channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _norm2d(norm: str) -> Norm:
    kinds: dict[str, Norm] = {
        "none": lambda channels: nn.Identity(),
        "batch": nn.BatchNorm2d,
        "group": lambda channels: nn.GroupNorm(min(32, channels), channels),
    }
    return kinds[norm]


def resnet18_type_c(width: int = 64, classes: int = 10) -> nn.Module:
    """ResNet-18 with a projection in every shortcut, without BatchNorm (the paper's section 4)."""
    model = ResNet18C(width, classes)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.Conv2d):
                child.bias = nn.Parameter(torch.zeros(child.out_channels))
    return model
