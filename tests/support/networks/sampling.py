"""Interpolation, sampling, windows and rearrangements of images."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.networks.common import IMAGE, ROWS, Function, Network, normal


def between(change: Callable[[Tensor], Tensor], channels: int = 3, after: int = 3) -> nn.Module:
    """Two 1x1 convolutions with `change` between them."""
    return Function(
        lambda s, x: s.b(change(F.relu(s.a(x)))), a=nn.Conv2d(2, channels, 1), b=nn.Conv2d(after, 1, 1)
    )


def upsampler() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.LeakyReLU(), nn.PixelShuffle(2), nn.Conv2d(1, 2, 1), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.Conv2d(2, 1, 1),
    )  # fmt: skip


def warped(y: Tensor) -> Tensor:
    """Sampled at a fixed grid."""
    turn = torch.tensor([[0.8, 0.3, 0.1], [-0.3, 0.8, 0.0]], dtype=y.dtype).expand(y.shape[0], 2, 3)
    return F.grid_sample(y, F.affine_grid(turn, list(y.shape), align_corners=False), align_corners=False)


NETWORKS: dict[str, Network] = {
    "upsampler": (upsampler, normal(2, 1, 3, 3)),
    "nearest": (lambda: between(lambda y: F.interpolate(y, scale_factor=2)), normal(2, 2, 3, 3)),
    "bilinear": (
        lambda: between(lambda y: F.interpolate(y, size=(5, 5), mode="bilinear", align_corners=False)),
        normal(2, 2, 3, 3),
    ),
    "bicubic": (
        lambda: between(lambda y: F.interpolate(y, size=(5, 5), mode="bicubic", align_corners=False)),
        normal(2, 2, 3, 3),
    ),
    "grid_sample": (lambda: between(warped), IMAGE),
    "unfold": (
        lambda: Function(
            lambda s, x: s.b(F.unfold(F.relu(s.a(x)), 2)), a=nn.Conv2d(2, 2, 1), b=nn.Conv1d(8, 1, 1)
        ),
        normal(2, 2, 3, 3),
    ),
    "fold": (
        lambda: Function(
            lambda s, x: s.b(F.relu(F.fold(s.a(x), (3, 3), 2))), a=nn.Conv1d(2, 8, 1), b=nn.Conv2d(2, 1, 1)
        ),
        normal(3, 2, 4),
    ),
    "pixel_shuffle": (lambda: between(lambda y: F.pixel_shuffle(y, 2), 8, 2), normal(2, 2, 2, 2)),
    "pixel_unshuffle": (lambda: between(lambda y: F.pixel_unshuffle(y, 2), 2, 8), IMAGE),
    "space_roll": (lambda: between(lambda y: torch.roll(y, (1, 1), (2, 3))), IMAGE),
    "reflection_pad": (lambda: between(lambda y: F.pad(y, (1, 1, 1, 1), mode="reflect")), IMAGE),
    "ones_pad": (lambda: between(lambda y: F.pad(y, (1, 1, 1, 1), value=1.0)), IMAGE),
    "one_unit_padded_with_ones": (
        lambda: Function(
            lambda s, x: s.b(F.pad(F.relu(s.a(x)), (1, 2), value=1.0)), a=nn.Linear(3, 1), b=nn.Linear(4, 2)
        ),
        ROWS,
    ),
    "one_unit_padded_with_zeros": (  # the other three units of c are added to zeros
        lambda: Function(
            lambda s, x: s.b(F.pad(F.relu(s.a(x)), (1, 2)) + F.relu(s.c(x))),
            a=nn.Linear(3, 1), b=nn.Linear(4, 2), c=nn.Linear(3, 4),
        ),
        ROWS,
    ),
    "avg_pool": (lambda: between(lambda y: F.avg_pool2d(y, 2)), IMAGE),
    "adaptive_avg_pool": (lambda: between(lambda y: F.adaptive_avg_pool2d(y, (2, 3))), IMAGE),
    "adaptive_max_pool": (lambda: between(lambda y: F.adaptive_max_pool2d(y, (2, 3))), IMAGE),
    "lp_pool": (lambda: between(lambda y: F.lp_pool2d(y, 2.0, 2)), IMAGE),
    "max_unpool": (
        lambda: between(lambda y: F.max_unpool2d(*F.max_pool2d(y, 2, return_indices=True), [2, 2])),
        IMAGE,
    ),
    "flattened_map": (  # every position of every channel has its own consumer
        lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)),
        normal(2, 1, 2, 2),
    ),
    "windows": (
        lambda: between(
            lambda y: (
                y.view(2, 2, 2, 2, 2, 2).permute(0, 2, 4, 3, 5, 1).softmax(3)
                .permute(0, 5, 1, 3, 2, 4).reshape(2, 2, 4, 4)
            ),
            2, 2,
        ),
        IMAGE,
    ),
    "max_over_space": (lambda: between(lambda y: y.amax((2, 3), keepdim=True) + y), IMAGE),
}  # fmt: skip
