"""Fused attention: scores are pinned, the values' scale passes."""

from __future__ import annotations

import numpy as np

from graphnorm.ir import Node
from graphnorm.ops.rules import Rules
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Role
from graphnorm.scales.labels import FREE, PINNED, Labels, overlay, pinned
from graphnorm.scales.registry import Registry, Rule
from graphnorm.scales.scale_array import ScaleArray


def attention(ctx: Context, node: Node) -> None:
    """softmax(q k^T) v: scores are pinned, so q[n, d] + k[m, d] = 0; v passes its scale.

    Operands of rank 4 are (batch, heads, sequence, size), of rank 3 (batch, sequence, heads * size).
    """
    q, k, v, mask, past_k, past_v = (*node.inputs, *("",) * 6)[:6]
    if bool(past_k) != bool(past_v):
        ctx.pin_node(node, "attention with half a cache")
        return
    if mask:
        ctx.pin_value(mask, "added to attention scores")
    ctx.set_pinned(node)  # also the scores, where they are a result
    heads = int(node.attributes.get("q_num_heads", 0)), int(node.attributes.get("kv_num_heads", 0))
    query = _by_head(ctx, q, heads[0])
    new_k, new_v = _by_head(ctx, k, heads[1]), _by_head(ctx, v, heads[1])
    if past_k:
        new_k, new_v = _append(ctx, past_k, new_k), _append(ctx, past_v, new_v)
    number = heads[0] or ctx.shape(q)[1]
    shared = heads[1] or ctx.shape(k)[1]
    key, value = (_repeat_heads(labels, number, shared) for labels in (new_k, new_v))
    pairs = query[:, :, :, None, :], key[:, :, None, :, :]
    zero = (pairs[0] == FREE) | (pairs[1] == FREE)  # adds nothing to a score
    ctx.equation([(1.0, np.where(zero, PINNED, side)) for side in pairs], "scores reach a softmax")
    out = ctx.uniform(value, [2], "mixed by attention")
    size = ctx.shape(v)[2] // heads[1] if heads[1] else 0
    out = _without_heads(out, ctx.shape(node.outputs[0]), size)
    for name, labels in zip(node.outputs, (out, new_k, new_v), strict=False):
        ctx.set(name, labels)


def _with_heads(ctx: Context, name: str, heads: int) -> Labels:
    labels = _by_head(ctx, name, heads)
    return np.where(labels == FREE, PINNED, labels)


def _by_head(ctx: Context, name: str, heads: int) -> Labels:
    scale = ctx.scale(name, Role.WEIGHT)
    if len(scale.shape) == 4:
        return scale.labels
    batch, length, size = scale.shape
    return scale.reshape((batch, length, heads, size // heads)).transpose((0, 2, 1, 3)).labels


def _append(ctx: Context, past: str, new: Labels) -> Labels:
    """Cached keys or values in front: both share a scale along the sequence."""
    new = ctx.uniform(new, [2], "cached with others")
    old = ctx.uniform(ctx.labels(past), [2], "cached with others")
    ctx.tie(old, new, "cached with others")
    return overlay(old, new)


def _repeat_heads(labels: Labels, heads: int, shared: int) -> Labels:
    return labels if labels.shape[1] <= 1 else np.repeat(labels, heads // shared, axis=1)


def rotary(ctx: Context, node: Node) -> None:
    """Members of a rotated pair share a scale; sines and cosines are pinned."""
    for name in node.inputs[1:3]:
        ctx.pin_value(name, "angles")
    x = node.inputs[0]
    labels = _with_heads(ctx, x, int(node.attributes.get("num_heads", 0)))
    size = ctx.shape(x)[3] if ctx.rank(x) == 4 else ctx.shape(x)[2] // int(node.attributes["num_heads"])
    turned = int(node.attributes["rotary_embedding_dim"]) or size
    if labels.shape[3] > 1:
        if node.attributes["interleaved"]:
            pairs = slice(0, turned, 2), slice(1, turned, 2)
        else:
            pairs = slice(0, turned // 2), slice(turned // 2, turned)
        ctx.tie(labels[..., pairs[0]], labels[..., pairs[1]], "rotated together")
    ctx.set(node.outputs[0], _without_heads(labels, ctx.shape(x), size))


def linear_attention(ctx: Context, node: Node) -> None:
    """S += beta k v^T, o = q^T S; the delta rule also takes S^T k from v."""
    q, k, v, past, decay, beta = (*node.inputs, *("",) * 6)[:6]
    heads = int(node.attributes["q_num_heads"]), int(node.attributes["kv_num_heads"])
    query = _with_heads(ctx, q, heads[0])
    key, value = (ctx.uniform(_with_heads(ctx, name, heads[1]), [2], "summed over time") for name in (k, v))
    if decay:
        ctx.pin_value(decay, "exponent of the decay")
    rate = _with_heads(ctx, beta, heads[1]) if beta else pinned(4)
    rate = ctx.uniform(rate, [2], "summed over time")
    shape = np.broadcast_shapes(key.shape[:2], value.shape[:2], rate.shape[:2])
    state = ctx.fresh((*shape, key.shape[3], value.shape[3]), "state of linear attention")
    rows, columns = key.transpose(0, 1, 3, 2), value
    ctx.equation([(1.0, rate), (1.0, rows), (1.0, columns), (-1.0, state)])
    if "delta" in node.text("update_rule"):
        ctx.equation([(1.0, state), (1.0, rows), (-1.0, columns)], "delta rule")
    if past:
        ctx.tie(state, ctx.labels(past))
    shared = _repeat_heads(state, heads[0], heads[1])
    out_shape = np.broadcast_shapes(query.shape[:2], shared.shape[:2])
    out = ctx.fresh((*out_shape, query.shape[2], state.shape[3]), "read out of the state")
    ctx.equation([
        (1.0, query[:, :, :, :, None]), (1.0, shared[:, :, None]), (-1.0, out[:, :, :, None, :])
    ])  # fmt: skip
    result = node.outputs[0]
    ctx.set(result, _without_heads(out, ctx.shape(result), ctx.shape(result)[2] // heads[0]))
    if len(node.outputs) > 1:
        ctx.set(node.outputs[1], state)


def _without_heads(labels: Labels, shape: tuple[int, ...], size: int) -> Labels:
    """Labels by head as labels of a tensor of rank 3, or as they are."""
    if len(shape) == 4:
        return labels
    batch, length, width = shape
    by_head = ScaleArray(labels, (batch, width // size, length, size))
    return by_head.transpose((0, 2, 1, 3)).reshape(shape).labels


RULES: Registry = Rules("scales")
RULES.add(Rule("h n d, h m -d, h m v -> h n v", attention, "attention"), "Attention")
RULES.add(Rule("x (equal in pairs), 0, 0 -> x", rotary, "rotated"), "RotaryEmbedding")
RULES.add(
    Rule("n d, m k, m v, .. -> n v: d + k + v equal for all d", linear_attention, "summed over time"),
    "LinearAttention",
)
