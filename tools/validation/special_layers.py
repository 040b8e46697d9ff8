"""Layers in float64: convolutions, pools, normalisations, recurrent layers, attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812

from graphnorm.ir import Array
from tools.validation import recurrence
from tools.validation.case import Case
from tools.validation.specials import special, tensor


@special("Conv")
def _conv(case: Case, x: Array, w: Array, b: Array | None = None) -> list[Any]:
    rank = x.ndim - 2
    a = case.attributes
    pads = a.get("pads", [0] * 2 * rank)
    widths = [p for axis in reversed(range(rank)) for p in (pads[axis], pads[rank + axis])]
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    y = convolve(
        F.pad(tensor(x), widths), tensor(w), None if b is None else tensor(b),
        stride=a["strides"], dilation=a.get("dilations", [1] * rank), groups=a["group"],
    )  # fmt: skip
    return [y.numpy()]


@special("ConvTranspose")
def _conv_transpose(case: Case, x: Array, w: Array, b: Array | None = None) -> list[Any]:
    rank = x.ndim - 2
    a = case.attributes
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    y = convolve(
        tensor(x), tensor(w), None if b is None else tensor(b),
        stride=a["strides"], groups=a["group"],
    )  # fmt: skip
    return [y.numpy()]


@special("RNN", "GRU", "LSTM", "aten::lstm_projected")
def _recurrent(case: Case, x: Array, w: Array, r: Array, *rest: Array | None) -> list[Any]:
    bias, _, *states = (*rest, None, None)[: max(2, len(rest))]
    return list(recurrence.run(case.op, case.attributes, x, w, r, bias, *states))


@special("GlobalLpPool")
def _global_lp_pool(case: Case, x: Array) -> list[Any]:
    p = case.attributes["p"]
    return [(np.abs(x) ** p).sum(tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)]


@special("GlobalMaxPool")
def _global_max_pool(case: Case, x: Array) -> list[Any]:
    return [x.max(tuple(range(2, x.ndim)), keepdims=True)]


@special("MeanVarianceNormalization")
def _mean_variance(case: Case, x: Array) -> list[Any]:
    axes = tuple(case.attributes["axes"])
    return [(x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + 1e-9)]


@special("LRN")
def _local_response(case: Case, x: Array) -> list[Any]:
    a = case.attributes
    return [F.local_response_norm(tensor(x), a["size"], a["alpha"], a["beta"], a["bias"]).numpy()]


@special("MaxRoiPool")
def _max_roi_pool(case: Case, x: Array, rois: Array) -> list[Any]:
    """Whole-image regions only, pooled to one entry."""
    del rois
    return [x.max((2, 3), keepdims=True)]


@special("BatchNormalization")
def _batch_norm(case: Case, x: Array, gain: Array, bias: Array, mean: Array, var: Array) -> list[Any]:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    if case.attributes["training_mode"]:
        axes = (0, *range(2, x.ndim))
        mean, var = x.mean(axes), x.var(axes)
    y = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + case.attributes["epsilon"])
    return [y * gain.reshape(shape) + bias.reshape(shape)]


@special("InstanceNormalization")
def _instance_norm(case: Case, x: Array, gain: Array | None = None, bias: Array | None = None) -> list[Any]:
    axes, shape = tuple(range(2, x.ndim)), (1, -1) + (1,) * (x.ndim - 2)
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + case.attributes["epsilon"])
    y = y if gain is None else y * gain.reshape(shape)
    return [y if bias is None else y + bias.reshape(shape)]


@special("LinearAttention")
def _linear_attention(
    case: Case, q: Array, k: Array, v: Array, past: Array | None, decay: Array | None, rate: Array | None
) -> list[Any]:
    """Two heads of two channels; the state is (batch, heads, d_k, d_v)."""
    batch, time, _ = q.shape
    q, k, v = (x.reshape(batch, time, 2, 2) for x in (q, k, v))
    state = np.zeros((batch, 2, 2, 2)) if past is None else past
    steps = []
    for t in range(time):
        if decay is not None:
            state = state * np.exp(decay.reshape(batch, time, 2, 2)[:, t, :, :, None])
        value = v[:, t]
        if rate is not None:
            value = rate[:, t, :, None] * (value - np.einsum("bhkv,bhk->bhv", state, k[:, t]))
        state = state + k[:, t, :, :, None] * value[:, :, None, :]
        steps.append(case.attributes["scale"] * np.einsum("bhkv,bhk->bhv", state, q[:, t]))
    return [np.stack(steps, axis=1).reshape(batch, time, -1), state]


@special("DeformConv")
def _deform_conv(case: Case, x: Array, w: Array, offset: Array, b: Array | None = None) -> list[Any]:
    """Kernels of one tap: each place looks at one shifted place, interpolated."""
    del case
    height, width = x.shape[2:]
    rows, columns = (np.arange(n, dtype=np.float64) for n in (height, width))
    y = offset[:, 0] + rows[:, None]
    z = offset[:, 1] + columns
    grid = np.stack([2 * z / (width - 1) - 1, 2 * y / (height - 1) - 1], axis=-1)
    seen = F.grid_sample(tensor(x), tensor(grid), align_corners=True).numpy()
    out = np.einsum("oi,nihw->nohw", w[:, :, 0, 0], seen)
    return [out if b is None else out + b.reshape(1, -1, 1, 1)]


@special("MaxPool")
def _max_pool(case: Case, x: Array) -> list[Any]:
    """Values, and where they stand in the flat input."""
    a, rank = case.attributes, x.ndim - 2
    pads = a.get("pads", [0] * 2 * rank)
    widths = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    padded = np.pad(x, widths, constant_values=-np.inf)
    index = np.pad(np.arange(x.size).reshape(x.shape), widths)
    axes = tuple(range(2, x.ndim))
    view = np.lib.stride_tricks.sliding_window_view
    steps = (slice(None), slice(None), *(slice(None, None, step) for step in a["strides"]))
    kernel = tuple(a["kernel_shape"])
    values, places = (view(array, kernel, axes)[steps] for array in (padded, index))
    flat = values.reshape(*values.shape[: x.ndim], -1)
    best = flat.argmax(-1)[..., None]
    found = np.take_along_axis(places.reshape(flat.shape), best, -1)[..., 0]
    return [flat.max(-1), found][: case.results]
