"""Normalisations, native and written out, with epsilon (0.5, so that it counts) and without."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.networks.common import IMAGE, ROWS, Function, Network, linear, normal, parameter


def between_convs(norm: nn.Module, channels: int = 4, train: bool = False) -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(2, channels, 1), norm, nn.ReLU(), nn.Conv2d(channels, 2, 1))
    return layers.train(train)


def between_linears(norm: nn.Module) -> nn.Module:
    return nn.Sequential(linear(3, 4), nn.ReLU(), norm, linear(4, 4), nn.ReLU(), linear(4, 2))


def batch_norm(train: bool = False, affine: bool = True, statistics: bool = True) -> nn.Module:
    norm = nn.BatchNorm2d(3, eps=0.5, affine=affine, track_running_stats=statistics)
    norm.num_batches_tracked = None  # a counter that functional transforms refuse to update
    return between_convs(norm, 3, train)


def written(normalise: object, **parts: object) -> nn.Module:
    """A norm written out between two linear layers; `normalise` sees the module."""
    return Function(
        lambda s, x: s.b(normalise(s, F.relu(s.a(x)))),  # type: ignore[operator]
        a=linear(3, 4), b=linear(4, 2), **parts,
    )  # fmt: skip


def layer_norm(s: Any, y: Tensor, epsilon: float) -> Tensor:
    centred = y - y.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + epsilon) * s.gain + s.bias


def rms_norm(s: Any, y: Tensor, epsilon: float) -> Tensor:
    return s.gain * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + epsilon))


def global_response_norm(s: Any, y: Tensor) -> Tensor:
    """ConvNeXt-V2 on rows (batch, length, features)."""
    size = y.norm(p=2, dim=1, keepdim=True)
    return s.gain * (y * (size / (size.mean(-1, keepdim=True) + 0.5))) + s.bias + y


def cosine(s: Any, y: Tensor) -> Tensor:
    """Similarity with two learned directions, then a temperature."""
    return s.scale * (F.normalize(y, dim=-1, eps=0.0) @ F.normalize(s.directions, dim=-1, eps=0.0).t())


NETWORKS: dict[str, Network] = {
    "batch_norm_eval": (batch_norm, IMAGE),
    "batch_norm_plain": (lambda: batch_norm(affine=False), IMAGE),
    "batch_norm_train": (lambda: batch_norm(train=True), IMAGE),
    "batch_norm_no_statistics": (lambda: batch_norm(statistics=False), IMAGE),
    "batch_norm_1d": (lambda: between_linears(nn.BatchNorm1d(4, eps=0.5)).eval(), ROWS),
    "group_norm": (lambda: between_convs(nn.GroupNorm(2, 4, eps=0.5)), IMAGE),
    "group_norm_plain": (lambda: between_convs(nn.GroupNorm(2, 4, eps=0.5, affine=False)), IMAGE),
    "instance_norm": (lambda: between_convs(nn.InstanceNorm2d(4, eps=0.5, affine=True)), IMAGE),
    "instance_norm_plain": (lambda: between_convs(nn.InstanceNorm2d(4, eps=0.5)), IMAGE),
    "layer_norm": (lambda: between_linears(nn.LayerNorm(4, eps=0.5)), ROWS),
    "layer_norm_no_bias": (lambda: between_linears(nn.LayerNorm(4, eps=0.5, bias=False)), ROWS),
    "layer_norm_no_epsilon": (lambda: between_linears(nn.LayerNorm(4, eps=0.0)), ROWS),
    "layer_norm_two_axes": (
        lambda: nn.Sequential(linear(3, 2), nn.LayerNorm((3, 2), eps=0.5), nn.ReLU(), linear(2, 2)),
        normal(2, 3, 3),
    ),
    "rms_norm": (lambda: between_linears(nn.RMSNorm(4, eps=0.5)), ROWS),
    "rms_norm_no_epsilon": (lambda: between_linears(nn.RMSNorm(4, eps=0.0)), ROWS),
    "layer_norm_written": (
        lambda: written(lambda s, y: layer_norm(s, y, 0.5), gain=parameter(4), bias=parameter(4)),
        ROWS,
    ),
    "layer_norm_written_no_epsilon": (
        lambda: written(lambda s, y: layer_norm(s, y, 0.0), gain=parameter(4), bias=parameter(4)),
        ROWS,
    ),
    "rms_norm_written": (lambda: written(lambda s, y: rms_norm(s, y, 0.5), gain=parameter(4)), ROWS),
    "rms_norm_written_no_epsilon": (
        lambda: written(lambda s, y: rms_norm(s, y, 0.0), gain=parameter(4)),
        ROWS,
    ),
    "standardised_by_std": (
        lambda: written(lambda s, y: (y - y.mean(-1, keepdim=True)) / y.std(-1, keepdim=True)),
        ROWS,
    ),
    "l2_normalised": (lambda: written(lambda s, y: y / y.norm(dim=-1, keepdim=True)), ROWS),
    "l2_normalised_by_function": (lambda: written(lambda s, y: F.normalize(y, dim=-1, eps=0.0)), ROWS),
    "global_response_norm": (
        lambda: Function(
            lambda s, x: s.c(global_response_norm(s, F.relu(s.a(x)))),
            a=linear(3, 4), c=linear(4, 2), gain=parameter(4), bias=parameter(4),
        ),
        normal(2, 3, 3),
    ),
    "local_response_norm": (lambda: between_convs(nn.LocalResponseNorm(3, alpha=2.0), 3), IMAGE),
    "cosine_similarity": (
        lambda: Function(
            lambda s, x: F.cosine_similarity(F.relu(s.a(x)), F.relu(s.b(x)), dim=-1, eps=0.0),
            a=linear(3, 4), b=linear(3, 4),
        ),
        ROWS,
    ),
    "cosine_head": (
        lambda: Function(
            lambda s, x: cosine(s, F.relu(s.a(x))),
            a=linear(3, 4), directions=parameter(2, 4), scale=parameter(1),
        ),
        ROWS,
    ),
}  # fmt: skip
