"""Fit EquiNorm layers to convolutions with BatchNorm, on one calibration batch.

w'' = s (w + b) has no v-weighted mean, v repeated for each tap: of the output it cannot have the part that
follows the patch's brightness.  Let z = W x be what the original layer gives, x' the input that the new one
gets, and C the covariance of its patches plus a ridge (larger where patches are few).  Of all w with v w = 0,
for which b = 0,

    w = u - C^-1 v (v u) / (v C^-1 v),   u = W + C^-1 cov(x', z - W x')

leaves the least variance of z - w x', with the ridge drawing towards W.  Then per output channel, with z'
what w gives and y what the BatchNorm gives in evaluation mode,

    gain = cov(z', y) / var(z'),   bias = mean(y) - gain mean(z')

minimise the mean of (gain z' + bias - y)^2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graphnorm.passes.fx.equinorm_layers import evaluating

_RIDGE = 1e-6  # at least, of the patches' mean variance


class _Target(NamedTuple):
    layer: Tensor
    norm: Tensor


@torch.no_grad()
def fit(
    original: nn.Module | None,
    changed: nn.Module,
    pairs: Mapping[str, str],
    layers: Mapping[str, Any],
    calibration: tuple[Any, ...],
) -> dict[str, float]:
    """Set statistics, weights, gain and bias of each layer, in the order in which they run.

    Args:
        original: The model with BatchNorm; None: statistics only.
        changed: The model with EquiNorm layers.
        pairs: path of each layer in both models -> path of its BatchNorm in the original.
        layers: path -> EquiNorm layer.
        calibration: Positional arguments of both models.

    Returns:
        path -> root mean square of the residual over the standard deviation of the target.
    """
    targets = _targets(original, pairs, calibration) if original is not None else {}
    errors: dict[str, float] = {}

    def watch(path: str, layer: Any) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            _take_statistics(layer, args[0])
            if path in targets:
                target = targets.pop(path)
                _fit_weight(layer, args[0], target.layer)
                errors[path] = _fit_affine(layer, args[0], target.norm)

        return layer.register_forward_pre_hook(hook)

    handles = [watch(path, layer) for path, layer in layers.items()]
    try:
        with evaluating(changed):
            changed(*calibration)
    finally:
        for handle in handles:
            handle.remove()
    return errors


def _targets(
    original: nn.Module, pairs: Mapping[str, str], calibration: tuple[Any, ...]
) -> dict[str, _Target]:
    """What each layer and its BatchNorm give, by the layer's path; copies, for relu may work in place."""
    found: dict[str, _Target] = {}

    def watch(path: str, norm: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            found[path] = _Target(args[0].clone(), out.clone())

        return original.get_submodule(norm).register_forward_hook(hook)

    handles = [watch(layer, norm) for layer, norm in pairs.items()]
    try:
        with evaluating(original):
            original(*calibration)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _take_statistics(layer: Any, x: Tensor) -> None:
    if bool((x < 0).any()):
        layer.options = replace(layer.options, signed_inputs=True)
    if layer.running_v is not None:
        layer.running_v.copy_(layer.batch_statistics(x))


def _fit_weight(layer: Any, x: Tensor, target: Tensor) -> None:
    groups, size = layer.groups, layer.weight[0].numel()
    w = layer.weight.double().reshape(groups, -1, size)
    covariance, cross, count = _moments(layer, x, target, w)
    ridge = max(size / count, _RIDGE) * covariance.diagonal(dim1=1, dim2=2).mean(1)
    known = ridge > 0  # a constant input says nothing about its weights
    system = covariance + torch.where(known, ridge, 1)[:, None, None] * torch.eye(size).to(covariance)
    v = layer.batch_statistics(x).double().clamp_min(0).reshape(groups, layer.weight.shape[1], 1, 1)
    v = v.expand(-1, -1, size // v.shape[1], -1).reshape(groups, size, 1)
    solved = torch.linalg.solve(system, torch.cat([cross, v], 2))
    free, direction = w + solved[..., :-1].mT, solved[..., -1:]
    length = v.mT @ direction
    step = torch.where(length > 0, direction / length, 0)
    layer.weight.copy_((free - (free @ v) * step.mT).reshape(layer.weight.shape))


def _moments(layer: Any, x: Tensor, target: Tensor, w: Tensor) -> tuple[Tensor, Tensor, int]:
    """Of the patches that a kernel sees: covariance, covariance with target - w x, and their number.

    Shapes ``(groups, size, size)`` and ``(groups, size, out_channels // groups)``; float64, sample by sample.
    """
    groups, outputs, size = w.shape
    second = w.new_zeros(groups, size, size + outputs)
    first, count = w.new_zeros(groups, size + outputs, 1), 0
    for part, goal in zip(torch.split(x, 1), torch.split(target, 1), strict=True):
        patches = _patches(layer, part).double().reshape(groups, size, -1)
        left = _by_channel(goal, layer).reshape(groups, outputs, -1) - w @ patches
        both = torch.cat([patches, left], 1)
        second += patches @ both.mT
        first += both.sum(2, keepdim=True)
        count += patches.shape[2]
    mean = first / count
    moments = second / count - mean[:, :size] @ mean.mT
    return moments[..., :size], moments[..., size:], count


def _patches(layer: Any, x: Tensor) -> Tensor:
    """``(groups * size, entries)``: a convolution by the unit kernels, for any padding and dilation."""
    if layer.weight.ndim == 2:
        return x.movedim(-1, 0).flatten(1)
    kernels = torch.eye(layer.weight[0].numel(), dtype=x.dtype, device=x.device)
    kernels = kernels.reshape(-1, *layer.weight.shape[1:]).repeat(
        layer.groups, *[1] * (layer.weight.ndim - 1)
    )
    out: Tensor = layer._conv_forward(x, kernels, None)
    return out.movedim(1, 0).flatten(1)


def _fit_affine(layer: Any, x: Tensor, target: Tensor) -> float:
    z, y = (_by_channel(out, layer) for out in (layer.folded(affine=False)(x), target))
    z_mean, y_mean = z.mean(1, keepdim=True), y.mean(1, keepdim=True)
    z, y = z - z_mean, y - y_mean
    variance = z.square().mean(1)
    gain = torch.where(variance > 0, (z * y).mean(1) / variance, 0)
    layer.gain.copy_(gain)
    layer.bias.copy_(y_mean[:, 0] - gain * z_mean[:, 0])
    left, spread = (gain[:, None] * z - y).square().mean(), y.square().mean()
    return float((left / spread).sqrt()) if spread > 0 else 0.0


def _by_channel(out: Tensor, layer: Any) -> Tensor:
    """``(out_channels, entries)`` in float64."""
    axis = out.ndim - layer.weight.ndim + 1
    return out.double().movedim(axis, 0).flatten(1)
