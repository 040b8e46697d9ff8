"""EquiNorm written out as loops over the formulas, in float64."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CONVOLUTIONS = {2: F.linear, 3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


def sums(x: Tensor, axis: int) -> list[float]:
    """v."""
    total = []
    for c in range(x.shape[axis]):
        v = 0.0
        for item in x.select(axis, c).reshape(-1).tolist():
            v += item
        total.append(v)
    return total


def normalized(weight: Tensor, v: list[float], r: float, groups: int, one_pass: bool) -> Tensor:
    """w''."""
    w = weight.reshape(*weight.shape[:2], -1)
    out, inputs, taps = w.shape
    result = torch.zeros_like(w)
    for d in range(out):
        first = d // (out // groups) * inputs  # the first input channel of d's group
        top = bottom = 0.0
        for c in range(inputs):
            for tap in range(taps):
                top += v[first + c] * float(w[d, c, tap])
            bottom += v[first + c]
        b = -top / (taps * bottom)
        denominator = 0.0
        for c in range(inputs):
            positive, count = 0.0, 0
            for tap in range(taps):
                value = float(w[d, c, tap])
                if one_pass and value > 0:
                    positive, count = positive + value, count + 1
                if not one_pass and value + b > 0:
                    positive += value + b
            denominator += v[first + c] * (positive + b * count)
        for c in range(inputs):
            for tap in range(taps):
                result[d, c, tap] = r / denominator * (float(w[d, c, tap]) + b)
    return result.reshape(weight.shape)


def padded(layer: Any, x: Tensor) -> Tensor:
    """The input with its borders, by hand for all padding modes."""
    ends = layer._reversed_padding_repeated_twice
    return F.pad(x, list(ends), mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)


def forward(layer: Any, x: Tensor, samples: int) -> Tensor:
    """A layer in training, its statistics from the first samples."""
    weight, gain, bias = layer.weight.detach(), layer.gain.detach(), layer.bias.detach()
    axis, stride = x.ndim - weight.ndim + 1, 1
    linear = weight.ndim == 2
    options = {} if linear else {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
    data: Any = x if linear else padded(layer, x)
    call: Any = CONVOLUTIONS[weight.ndim]
    out = call(data, weight, **options)
    for step in () if linear else layer.stride:
        stride *= step
    r = samples * out[0].numel() / len(weight) * stride
    new = normalized(weight, sums(x[:samples], axis), r, layer.groups, layer.options.one_pass)
    y = call(data, new, **options)
    shape = [1] * y.ndim
    shape[axis] = -1
    result: Tensor = y * gain.reshape(shape) + bias.reshape(shape)
    return result
