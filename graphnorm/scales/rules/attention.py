"""Attention with its softmax inside: scores are pinned, values pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphnorm.ir import Node
from graphnorm.scales import labels as lb
from graphnorm.scales.labels import FREE, PINNED, Labels
from graphnorm.scales.registry import Rule

if TYPE_CHECKING:
    from graphnorm.scales.propagate import Propagation


def attention(ctx: Propagation, node: Node) -> None:
    """softmax(q k^T) v: scores are pinned, so q[n, d] + k[m, d] = 0; v passes its scale.

    Operands of rank 4 are (batch, heads, sequence, size), of rank 3 (batch, sequence, heads * size).
    """
    q, k, v, mask, past_k, past_v, *rest = (*node.inputs, *("",) * 7)[:7]
    if any(rest) or bool(past_k) != bool(past_v) or any(node.outputs[3:]):
        ctx.pin_node(node, "attention with padding lengths or scores as a result")
        return
    if mask:
        ctx.pin_value(mask, "added to attention scores")
    heads = int(node.attributes.get("q_num_heads", 0)), int(node.attributes.get("kv_num_heads", 0))
    query = _with_heads(ctx, q, heads[0])
    new_k, new_v = _with_heads(ctx, k, heads[1]), _with_heads(ctx, v, heads[1])
    if past_k:
        new_k, new_v = _append(ctx, past_k, new_k), _append(ctx, past_v, new_v)
    number = heads[0] or ctx.shape(q)[1]
    shared = heads[1] or ctx.shape(k)[1]
    key, value = (_repeat_heads(labels, number, shared) for labels in (new_k, new_v))
    ctx.equation([(1.0, query[:, :, :, None, :]), (1.0, key[:, :, None, :, :])], "scores reach a softmax")
    out = ctx.uniform(value, [2], "mixed by attention")
    if heads[0]:
        batch, length, _ = ctx.shape(node.outputs[0])
        size = ctx.shape(v)[2] // heads[1]
        out = lb.reshape(out.transpose(0, 2, 1, 3), (batch, length, number, size), ctx.shape(node.outputs[0]))
    for name, labels in zip(node.outputs, (out, new_k, new_v), strict=False):
        ctx.set(name, labels)


def _with_heads(ctx: Propagation, name: str, heads: int) -> Labels:
    labels = np.where(ctx.labels(name) == FREE, PINNED, ctx.labels(name))
    if labels.ndim == 4:
        return labels
    batch, length, size = ctx.shape(name)
    split = lb.reshape(labels, (batch, length, size), (batch, length, heads, size // heads))
    return split.transpose(0, 2, 1, 3)


def _append(ctx: Propagation, past: str, new: Labels) -> Labels:
    """Cached keys or values in front: both share a scale along the sequence."""
    both = [ctx.uniform(labels, [2], "cached with others") for labels in (ctx.labels(past), new)]
    ctx.tie(*both, "cached with others")
    return both[1]


def _repeat_heads(labels: Labels, heads: int, shared: int) -> Labels:
    return labels if labels.shape[1] == 1 else np.repeat(labels, heads // shared, axis=1)


RULES = (
    Rule(("Attention",), "h n d, h m -d, h m v -> h n v", attention, "contractions", "attention"),
)
