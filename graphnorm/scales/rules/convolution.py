"""Convolutions: plain, grouped, transposed, deformable, causal with a state.

W[o, c] scales by u[o] - s[c]; a kernel that may not change or that is computed must have that scale.
An input that is a weight itself scales by s.
"""

from __future__ import annotations

import numpy as np

from graphnorm.ir import Node
from graphnorm.ops.rules import Rules
from graphnorm.scales.constraints import Term
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Role
from graphnorm.scales.labels import FREE, PINNED, Labels
from graphnorm.scales.registry import Registry, Rule


def conv(ctx: Context, node: Node) -> None:
    """W: (out_channels, in_channels / groups, *kernel)."""
    groups = int(node.attributes["group"])
    _convolve(ctx, node, ctx.shape(node.inputs[1])[0], groups, transposed=False)


def conv_transpose(ctx: Context, node: Node) -> None:
    """W: (in_channels, out_channels / groups, *kernel)."""
    groups = int(node.attributes["group"])
    _convolve(ctx, node, ctx.shape(node.inputs[1])[1] * groups, groups, transposed=True)


def deform_conv(ctx: Context, node: Node) -> None:
    """Operands X, W, offset, bias, mask: offsets and mask are pinned."""
    for index in (2, 4):
        if name := ctx.operand(node, index):
            ctx.pin_value(name, "offsets and mask of a deformable convolution")
    groups = int(node.attributes["group"])
    _convolve(ctx, node, ctx.shape(node.inputs[1])[0], groups, transposed=False, bias_at=3)


def causal_conv(ctx: Context, node: Node) -> None:
    """Depthwise, W: (channels, 1, kernel); the state holds earlier inputs."""
    data, past = node.inputs[0], ctx.operand(node, 3)
    channels = ctx.shape(data)[1]
    incoming = _convolve(ctx, node, channels, channels, transposed=False)
    if past:
        ctx.tie(incoming, ctx.uniform(ctx.labels(past), [0, 2], "earlier inputs"), "earlier inputs")
    out = node.outputs[0]
    if node.text("activation") != "none":
        ctx.pin_value(out, "activation of the convolution")
    if len(node.outputs) > 1:
        ctx.set(node.outputs[1], incoming)


def _convolve(
    ctx: Context, node: Node, channels: int, groups: int, transposed: bool, bias_at: int = 2
) -> Labels:
    """Label the result's channels; returns the labels of the input's, (1, channels, 1, ..)."""
    data, weight = node.inputs[:2]
    rank = ctx.rank(data)
    if rank != ctx.rank(weight):
        ctx.pin_node(node, "kernel of another rank")
        return np.zeros((1,) * rank, dtype=np.int64)
    labels = _convolved(ctx, data)
    incoming = np.broadcast_to(labels.reshape(-1), (ctx.shape(data)[1],))
    outgoing = ctx.fresh((channels,), "output channels")
    kernel = (1,) * (rank - 2)
    near, far = (incoming, outgoing) if transposed else (outgoing, incoming)
    first, second = near.reshape(-1, 1, *kernel), far.reshape(1, -1, *kernel)
    if groups > 1:  # axis 0 runs over all groups, axis 1 within one
        within = len(far) // groups
        by_group = np.repeat(far.reshape(groups, within), len(near) // groups, axis=0)
        second = by_group.reshape(len(near), within, *kernel)
    signs = (-1.0, 1.0) if transposed else (1.0, -1.0)
    _kernel(ctx, weight, [(signs[0], first), (signs[1], second)])
    bias = ctx.operand(node, bias_at)
    if ctx.is_weight(bias) and ctx.shape(bias)[-1:] != outgoing.shape:
        ctx.pin_node(node, "bias of another form")
        return labels
    if ctx.is_weight(bias):
        ctx.demand(bias, [(1.0, outgoing)], Role.BIAS)
    elif bias:
        ctx.tie(outgoing, ctx.labels(bias).reshape(-1))
    ctx.set(node.outputs[0], outgoing.reshape(1, -1, *kernel))
    return labels


def _convolved(ctx: Context, data: str) -> Labels:
    """One scale per channel, (1, channels, 1, ..); a weight may have any (its kernel is computed)."""
    rank = ctx.rank(data)
    if ctx.is_weight(data):
        labels = ctx.fresh((1, ctx.shape(data)[1], *(1,) * (rank - 2)), f"channels of {data}")
        ctx.demand(data, [(1.0, labels)], Role.WEIGHT)
        return labels
    labels = ctx.uniform(ctx.labels(data), [axis for axis in range(rank) if axis != 1], "convolved")
    return np.where(labels == FREE, PINNED, labels)


def _kernel(ctx: Context, weight: str, terms: list[Term]) -> None:
    if ctx.is_data(weight):  # computed from the input
        labels = ctx.uniform(ctx.labels(weight), range(2, ctx.rank(weight)), "kernel computed from the input")
        ctx.equation([*terms, (-1.0, np.where(labels == FREE, PINNED, labels))])
    else:
        ctx.demand(weight, terms, Role.WEIGHT)


_FAMILY, _REASON = "contractions", "summed over"

RULES: Registry = Rules("scales")
RULES.add(Rule("n c .., o c .., o -> n o ..", conv, _REASON), "Conv")
RULES.add(Rule("n c .., c o .., o -> n o ..", conv_transpose, _REASON), "ConvTranspose")
RULES.add(Rule("n c .., o c .., 0, o -> n o ..", deform_conv, _REASON), "DeformConv")
RULES.add(Rule("n c t, c 1 k, c -> n c t", causal_conv, _REASON), "CausalConvWithState")
