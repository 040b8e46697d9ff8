"""ATen -> ONNX: attention, in all forms that torch has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnorm.frontends.torch.call import Call, Unlowerable, known_shape, rank
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import combined, expanded, multiplied, reshaped, turned
from graphnorm.ir import Value

TABLE = Lowerings()


@TABLE.lowers("scaled_dot_product_attention")
def attention(
    call: Call,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> None:
    call.yields(attended(call, q, k, v, mask, dropout, is_causal, scale, enable_gqa))


def attended(
    call: Call,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """ONNX's Attention takes ``[batch, heads, tokens, features]``; other ranks are reshaped to it."""
    q, k, v = _aligned(call, [q, k, v], shared_heads=enable_gqa)
    if scale is None and not known_shape(q)[-1]:  # 1 / sqrt(0)
        raise Unlowerable
    attributes: dict[str, Any] = {
        "is_causal": int(is_causal),
        "scale": float(1 / math.sqrt(known_shape(q)[-1]) if scale is None else scale),
    }
    if dropout:
        attributes["dropout_p"] = float(dropout)  # beyond ONNX: a training-mode graph
    shape = (*known_shape(q)[:-1], known_shape(v)[-1])
    dynamic = frozenset(axis for axis in q.dynamic if axis < rank(q) - 1)
    dynamic |= {rank(q) - 1} & v.dynamic
    if rank(q) == 4:
        return call.step("Attention", q, k, v, mask, shape=shape, dynamic=dynamic, **attributes)
    if mask is not None and rank(mask) > 2:
        if math.prod(known_shape(mask)[:-2]) not in (1, math.prod(shape[:-2])):
            mask = expanded(call, mask, (*shape[:-2], *known_shape(mask)[-2:]), mask.dynamic)
        mask = reshaped(call, mask, _four(known_shape(mask)))
    result = call.step(
        "Attention", *(reshaped(call, operand, _four(known_shape(operand))) for operand in (q, k, v)), mask,
        shape=_four(shape), dynamic=frozenset(range(4)) if dynamic else frozenset(), **attributes,
    )  # fmt: skip
    return reshaped(call, result, shape)


def _aligned(call: Call, operands: Sequence[Value], shared_heads: bool) -> list[Value]:
    """Queries, keys and values with equal leading axes; the heads may be shared."""
    leading = [known_shape(operand)[:-2] for operand in operands]
    ranks = {len(axes) for axes in leading}
    if len(ranks) > 1 and shared_heads:
        raise Unlowerable
    heads = -1 if shared_heads and ranks != {0} else None
    common = np.broadcast_shapes(*(axes[:heads] for axes in leading))
    result = []
    for operand, axes in zip(operands, leading, strict=True):
        own = axes[heads:] if heads else ()
        dynamic = frozenset[int]().union(*(o.dynamic for o in operands)) & set(range(len(common)))
        result.append(expanded(call, operand, (*common, *own, *known_shape(operand)[-2:]), dynamic))
    return result


def _four(shape: Sequence[int]) -> tuple[int, ...]:
    """``[..., heads, tokens, features]`` with the leading axes merged; a lone batch axis counts as such."""
    *leading, tokens, features = shape
    if len(leading) < 2:
        return (*leading, *[1] * (2 - len(leading)), tokens, features)
    return (math.prod(leading[:-1]), leading[-1], tokens, features)


# Kernel variants; the results besides the first are statistics for gradients.


@TABLE.lowers("_scaled_dot_product_flash_attention", "_scaled_dot_product_attention_math_for_mps")
def flash(
    call: Call,
    q: Value,
    k: Value,
    v: Value,
    dropout: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    scale: float | None = None,
) -> None:
    _only_first(call)
    attention(call, q, k, v, None, dropout, is_causal, scale)


@TABLE.lowers("_scaled_dot_product_flash_attention_for_cpu")
def flash_on_cpu(
    call: Call,
    q: Value,
    k: Value,
    v: Value,
    dropout: float = 0.0,
    is_causal: bool = False,
    mask: Value | None = None,
    scale: float | None = None,
) -> None:
    _only_first(call)
    attention(call, q, k, v, mask, dropout, is_causal, scale)


@TABLE.lowers(
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)  # fmt: skip
def efficient(call: Call, q: Value, k: Value, v: Value, mask: Value | None, *rest: Any) -> None:
    """After the mask: [whether to return statistics,] dropout, causality, [a debug mask,] the scale."""
    _only_first(call)
    switches = list(rest)
    if "overrideable" not in str(call.node.target):
        switches.pop(0)
    dropout, is_causal = switches[:2]
    attention(call, q, k, v, mask, dropout, is_causal, switches[-1])


def _only_first(call: Call) -> None:
    if any(call.used[1:]):
        raise Unlowerable


# The fast path of nn.MultiheadAttention and nn.TransformerEncoderLayer.


@TABLE.lowers("_native_multi_head_attention")
def native_multi_head_attention(
    call: Call,
    query: Value,
    key: Value,
    value: Value,
    size: int,
    heads: int,
    qkv_weight: Value,
    qkv_bias: Value,
    proj_weight: Value,
    proj_bias: Value,
    mask: Value | None = None,
    need_weights: bool = True,
    average_weights: bool = True,
    mask_type: int | None = None,
) -> None:
    _only_first(call)
    if mask is not None or not query.name == key.name == value.name:
        raise Unlowerable
    call.yields(self_attended(call, query, heads, qkv_weight, qkv_bias, proj_weight, proj_bias))


def self_attended(
    call: Call, x: Value, heads: int, weight: Value, bias: Value, proj_weight: Value, proj_bias: Value
) -> Value:
    """Self-attention of ``x: [batch, tokens, features]`` with fused projections."""
    batch, tokens, size = known_shape(x)
    projected = affine(call, x, weight, bias)
    q, k, v = (
        turned(call, reshaped(call, piece, [batch, tokens, heads, size // heads]), [0, 2, 1, 3])
        for piece in call.split(projected, [size] * 3, 2, projected.dynamic)
    )
    mixed = turned(call, attended(call, q, k, v), [0, 2, 1, 3])
    return affine(call, reshaped(call, mixed, [batch, tokens, size]), proj_weight, proj_bias)


def affine(call: Call, x: Value, weight: Value, bias: Value) -> Value:
    """``x W^T + b``."""
    return combined(call, "Add", multiplied(call, x, turned(call, weight, [1, 0])), bias)


@TABLE.lowers("_transformer_encoder_layer_fwd")
def encoder_layer(
    call: Call,
    x: Value,
    size: int,
    heads: int,
    qkv_weight: Value,
    qkv_bias: Value,
    proj_weight: Value,
    proj_bias: Value,
    use_gelu: bool,
    norm_first: bool,
    epsilon: float,
    gain1: Value,
    bias1: Value,
    gain2: Value,
    bias2: Value,
    weight1: Value,
    inner_bias1: Value,
    weight2: Value,
    inner_bias2: Value,
    mask: Value | None = None,
    mask_type: int | None = None,
) -> None:
    if mask is not None:
        raise Unlowerable

    def norm(y: Value, gain: Value, bias: Value) -> Value:
        return call.step("LayerNormalization", y, gain, bias, like=y, axis=-1, epsilon=float(epsilon))

    def attend(y: Value) -> Value:
        return self_attended(call, y, heads, qkv_weight, qkv_bias, proj_weight, proj_bias)

    def feed(y: Value) -> Value:
        hidden = affine(call, y, weight1, inner_bias1)
        active = call.step("Gelu" if use_gelu else "Relu", hidden, like=hidden)
        return affine(call, active, weight2, inner_bias2)

    if norm_first:
        x = combined(call, "Add", x, attend(norm(x, gain1, bias1)))
        call.yields(combined(call, "Add", x, feed(norm(x, gain2, bias2))))
    else:
        x = norm(combined(call, "Add", x, attend(x)), gain1, bias1)
        call.yields(norm(combined(call, "Add", x, feed(x)), gain2, bias2))
