"""Fit EquiNorm layers to what BatchNorm gave, on one calibration batch.

Per output channel, with z the layer's output before its affine and y the target,

    gain = cov(z, y) / var(z),   bias = mean(y) - gain mean(z)

minimise the mean of (gain z + bias - y)^2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from graphnorm.passes.fx_equinorm_layers import evaluating


@torch.no_grad()
def fit(
    original: nn.Module | None,
    changed: nn.Module,
    pairs: Mapping[str, str],
    layers: Mapping[str, Any],
    calibration: tuple[Any, ...],
) -> dict[str, float]:
    """Set statistics, gain and bias of each layer, in the order in which they run.

    Args:
        original: The model with BatchNorm; None leaves gain and bias alone.
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
                errors[path] = _fit_affine(layer, args[0], targets.pop(path))

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
) -> dict[str, Tensor]:
    """What each BatchNorm gives, by the path of the layer before it; copies, for relu may work in place."""
    found: dict[str, Tensor] = {}
    handles = [
        original.get_submodule(norm).register_forward_hook(
            lambda _, __, out, path=layer: found.__setitem__(path, out.clone())
        )
        for layer, norm in pairs.items()
    ]
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
