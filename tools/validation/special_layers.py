"""Layers in float64: pools of everything, normalisations, recurrent layers, attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812

from graphnorm.ir import Array
from tools.validation import recurrence
from tools.validation.case import Case
from tools.validation.specials import special, tensor


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
def _batch_norm(
    case: Case, x: Array, gain: Array | None = None, bias: Array | None = None, mean: Array | None = None,
    var: Array | None = None,
) -> list[Any]:  # fmt: skip
    shape = (1, -1) + (1,) * (x.ndim - 2)
    if case.attributes["training_mode"] or mean is None or var is None:
        axes = (0, *range(2, x.ndim))
        mean, var = x.mean(axes), x.var(axes)
    y = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + case.attributes["epsilon"])
    y = y if gain is None else y * gain.reshape(shape)
    return [y if bias is None else y + bias.reshape(shape)]


@special("InstanceNormalization")
def _instance_norm(case: Case, x: Array, gain: Array | None = None, bias: Array | None = None) -> list[Any]:
    axes, shape = tuple(range(2, x.ndim)), (1, -1) + (1,) * (x.ndim - 2)
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + case.attributes["epsilon"])
    y = y if gain is None else y * gain.reshape(shape)
    return [y if bias is None else y + bias.reshape(shape)]


@special("LinearAttention")
def _linear_attention(
    case: Case, q: Array, k: Array, v: Array, past: Array | None = None, decay: Array | None = None,
    rate: Array | None = None,
) -> list[Any]:  # fmt: skip
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


@special("Attention")
def _attention(
    case: Case, q: Array, k: Array, v: Array, mask: Array | None = None, past_k: Array | None = None,
    past_v: Array | None = None, lengths: Array | None = None,
) -> list[Any]:  # fmt: skip
    """softmax(cap(scale q k^T) + mask) v, a head of keys for several of queries."""
    a = case.attributes
    if past_k is not None or past_v is not None or lengths is not None or case.results > 1:
        raise NotImplementedError("Attention with a cache")
    packed = q.ndim == 3
    if packed:
        q = _heads(q, a["q_num_heads"])
        k, v = (_heads(x, a["kv_num_heads"]) for x in (k, v))
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    scores = q @ k.swapaxes(-1, -2) * a.get("scale", 1 / np.sqrt(q.shape[-1]))
    cap = a.get("softcap", 0.0)
    scores = cap * np.tanh(scores / cap) if cap else scores
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == np.bool_ else scores + mask
    if a.get("is_causal", 0):
        scores = np.where(np.tril(np.ones(scores.shape[-2:], dtype=bool)), scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    y = shares / shares.sum(-1, keepdims=True) @ v
    return [y.swapaxes(1, 2).reshape(y.shape[0], y.shape[2], -1) if packed else y]


def _heads(x: Array, count: int) -> Array:
    """(batch, rows, heads * size) as (batch, heads, rows, size)."""
    return x.reshape(*x.shape[:2], count, -1).swapaxes(1, 2)
