"""Normalisation layers.

Layer, RMS, Group and Instance norms with eps > 0 pin their input, while gain and bias allow any output scale.
Eval-mode BatchNorm is a per-channel affine map with fixed sigma: with input scale s and output scale u, gamma
scales by u - s, the running mean by s, beta by u; the running variance stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphnorm.ir import BEFORE, Node
from graphnorm.ops.rules import Rules
from graphnorm.scales.backward import fit
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Role
from graphnorm.scales.labels import FREE, PINNED, Labels, pinned
from graphnorm.scales.registry import Registry, Rule


def batch_norm(ctx: Context, node: Node) -> None:
    data, gain, bias, mean, var = (node.inputs + ("",) * 5)[:5]
    rank = ctx.rank(data)
    training = bool(node.attributes["training_mode"]) or BEFORE in node.attributes
    affine = all(not name or ctx.is_weight(name) for name in (gain, bias))
    if not ctx.is_data(data) or not affine or "spatial" in node.attributes or rank < 2:
        ctx.pin_node(node, "BatchNorm of a form without a rule")
        return
    if gain and ctx.shape(gain) != ctx.shape(data)[1:2]:  # torch allows it where there are no channels
        ctx.pin_node(node, "BatchNorm of another number of channels")
        return
    kernel = (1,) * (rank - 2)
    incoming = _through_norm(ctx, data, [axis for axis in range(rank) if axis != 1])
    if training:
        ctx.pin_value(data, "BatchNorm in training mode")
        incoming = pinned(rank)
    channels = ctx.shape(data)[1]
    s = np.broadcast_to(incoming.reshape(-1), (channels,))
    u = ctx.fresh((channels,), "output channels") if gain else s
    if gain:
        ctx.demand(gain, [(1.0, u), (-1.0, s)], Role.WEIGHT)
    if bias:
        ctx.demand(bias, [(1.0, u)], Role.BIAS)
    if training or not ctx.is_weight(mean):
        ctx.pin_value(mean)
        if not training and mean:
            ctx.tie(s, ctx.labels(mean).reshape(-1), "running mean is a constant")
    else:
        ctx.demand(mean, [(1.0, s)], Role.BIAS)
    ctx.pin_value(var)
    ctx.set_pinned(node)
    ctx.set(node.outputs[0], u.reshape(1, -1, *kernel))


def _through_norm(ctx: Context, name: str, axes: Sequence[int]) -> Labels:
    labels = ctx.labels(name)
    labels = ctx.uniform(labels, axes, "normalised together")
    return np.where(labels == FREE, PINNED, labels)


def layer_norm(ctx: Context, node: Node) -> None:
    rank = ctx.rank(node.inputs[0])
    if not rank:
        ctx.pin_node(node, "normalisation of a number")
        return
    axis = int(node.attributes["axis"]) % rank
    _normalise(ctx, node, list(range(axis, rank)))


def channel_norm(ctx: Context, node: Node) -> None:
    """Group and Instance norms: gain and bias of one entry per channel (or per group, opset 18)."""
    channels = ctx.shape(node.inputs[0])[1]
    groups = int(node.attributes["num_groups"]) if node.op == "GroupNormalization" else channels
    _normalise(ctx, node, list(range(2, ctx.rank(node.inputs[0]))), groups)


def _normalise(ctx: Context, node: Node, axes: list[int], groups: int = 0) -> None:
    """Normalise over `axes`, and over the channels of each of `groups` groups."""
    channelwise = groups > 0
    data, gain, bias = (node.inputs + ("",) * 3)[:3]
    if not ctx.is_data(data) or any(ctx.is_data(name) for name in (gain, bias)):
        ctx.pin_node(node, "norm with a gain computed from the input")
        return
    if float(node.attributes["epsilon"]) > 0 or any(node.outputs[1:]):
        ctx.pin_value(data, "normalised (epsilon > 0)")
    else:
        labels = ctx.uniform(ctx.labels(data), axes, "normalised together")
        if channelwise and labels.shape[1] > 1:
            ctx.uniform(labels.reshape(labels.shape[0], groups, -1), [2], "normalised together")
    rank = ctx.rank(data)
    out = pinned(rank)
    if ctx.is_weight(gain):
        u = ctx.fresh(ctx.shape(gain), "norm output")
        ctx.demand(gain, [(1.0, u)], Role.WEIGHT)
        if channelwise:
            u = np.repeat(u.reshape(-1), ctx.shape(data)[1] // max(u.size, 1))
            out = u.reshape(1, -1, *(1,) * (rank - 2))
        else:
            out = u.reshape((1,) * (rank - u.ndim) + u.shape)
    if ctx.is_weight(bias):
        terms = out.reshape(-1) if channelwise and out.size > 1 else out
        if channelwise and terms.size not in (1, ctx.shape(bias)[0]):
            terms = terms.reshape(ctx.shape(bias)[0], -1)[:, 0]
        ctx.demand(bias, fit(ctx, [(1.0, terms)], ctx.shape(bias)), Role.BIAS)
    elif bias:
        ctx.tie(out.reshape(-1), ctx.labels(bias).reshape(-1), "constant bias")
    ctx.set_pinned(node)
    ctx.set(node.outputs[0], out)


def lp_norm(ctx: Context, node: Node) -> None:
    """Dividing by |x|_p along an axis has no epsilon: a scale shared along the axis is lost."""
    labels = ctx.labels(node.inputs[0])
    ctx.uniform(labels, [int(node.attributes["axis"]) % labels.ndim])
    ctx.set_pinned(node)


RULES: Registry = Rules("scales")
RULES.add(
    Rule("eval: s, u - s, u, s, 0 -> u; training: 0, u, u, 0, 0 -> u", batch_norm, "BatchNorm"),
    "BatchNormalization",
)
RULES.add(Rule("0, u, u -> u", layer_norm, "normalised"), "LayerNormalization", "RMSNormalization")
RULES.add(Rule("0, u, u -> u", channel_norm, "normalised"), "GroupNormalization", "InstanceNormalization")
RULES.add(Rule("x (equal along the axis) -> 0", lp_norm, "normalised"), "LpNormalization")
