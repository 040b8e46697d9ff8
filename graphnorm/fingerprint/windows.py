"""Linear layers with windows on arrays of float64, by torch: convolutions, and sums over windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphnorm import ir
from graphnorm.errors import InputError

Floats = ir.Array


def convolution(op: str, x: Floats, weight: Floats, attributes: Mapping[str, Any], shape: Any) -> Floats:
    """Conv or ConvTranspose; the result has `shape`."""
    functional = _functional()
    import torch

    rank = x.ndim - 2
    stride, dilation = tuple(attributes["strides"]), tuple(attributes["dilations"])
    kernel = torch.from_numpy(_writable(weight))
    if op == "Conv":
        padded = torch.from_numpy(_writable(_padded(x, attributes["pads"])))
        apply = getattr(functional, f"conv{rank}d")
        return np.asarray(apply(padded, kernel, None, stride, 0, dilation, attributes["group"]).numpy())
    apply = getattr(functional, f"conv_transpose{rank}d")
    data = torch.from_numpy(_writable(x))
    out = apply(
        data, kernel, None, stride, 0, tuple(attributes["output_padding"]), attributes["group"], dilation
    )
    before = attributes["pads"][:rank]
    region = tuple(slice(b, b + n) for b, n in zip(before, shape[2:], strict=True))
    return np.asarray(out.numpy()[(slice(None), slice(None), *region)])


def window_sum(x: Floats, attributes: Mapping[str, Any], shape: tuple[int, ...]) -> Floats:
    """Sums over a pool's windows."""
    functional = _functional()
    import torch

    rank = x.ndim - 2
    kernel, strides = tuple(attributes["kernel_shape"]), tuple(attributes["strides"])
    dilations, pads = tuple(attributes["dilations"]), list(attributes["pads"])
    for i in range(rank):  # the last window may extend beyond the edge
        reach = (shape[2 + i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1
        pads[rank + i] = max(pads[rank + i], reach - x.shape[2 + i] - pads[i])
    padded = _padded(x, pads)
    flat = torch.from_numpy(_writable(padded.reshape(-1, 1, *padded.shape[2:])))
    ones = torch.ones((1, 1, *kernel), dtype=torch.float64)
    found = getattr(functional, f"conv{rank}d")(flat, ones, None, strides, 0, dilations).numpy()
    region = tuple(slice(0, n) for n in shape[2:])
    return np.asarray(found[(slice(None), slice(None), *region)].reshape(shape))


def window_count(size: Sequence[int], attributes: Mapping[str, Any], shape: Sequence[int]) -> Floats:
    """Entries that count in each window's mean; padding does where `count_include_pad` says so."""
    inside = np.ones((1, 1, *size))
    if attributes.get("count_include_pad", 0):
        inside = np.pad(inside, _widths(attributes["pads"]), constant_values=1.0)
        attributes = {**attributes, "pads": (0,) * len(attributes["pads"])}
    return window_sum(inside, attributes, (1, 1, *shape))


def _padded(x: Floats, pads: Any) -> Floats:
    return np.pad(x, _widths(pads))


def _widths(pads: Any) -> list[tuple[int, int]]:
    rank = len(pads) // 2
    return [(0, 0), (0, 0), *((int(pads[i]), int(pads[rank + i])) for i in range(rank))]


def _functional() -> Any:
    try:
        import torch
    except ImportError as error:
        raise InputError("fingerprints need torch: pip install 'graphnorm[torch]'") from error
    return torch.nn.functional


def _writable(x: Floats) -> Floats:
    """An array that torch can share memory with: contiguous, and not a read-only view."""
    return np.require(x, requirements=["C", "W"])
