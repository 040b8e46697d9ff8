"""Recurrent layers: the input matrix compensates the input's scale; a state that saturates is pinned.

An RNN with a homogeneous activation lets every hidden unit scale: h = relu(W x + R h + b).
"""

from __future__ import annotations

import numpy as np

from graphnorm.ir import Node
from graphnorm.ops.rules import Rules
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Role
from graphnorm.scales.labels import FREE, PINNED, Labels
from graphnorm.scales.registry import Registry, Rule

_HOMOGENEOUS = ("relu", "leakyrelu")


def rnn(ctx: Context, node: Node) -> None:
    """W: (directions, H, I), R: (directions, H, H), B: (directions, 2 H)."""
    _recurrent(ctx, node, _units(ctx, node))


def gated(ctx: Context, node: Node) -> None:
    """W: (directions, gates * H, I); recurrent matrix, biases, peepholes and states are pinned."""
    _recurrent(ctx, node, None)


def lstm_projected(ctx: Context, node: Node) -> None:
    """LSTM with projections, h = P (o * tanh c): the projected units scale.

    P: (directions, projected, H) and R follow.
    """
    x, weight, recurrent, bias, _, initial_h, initial_c, projection = node.inputs
    if not ctx.is_data(x) or any(ctx.is_data(name) for name in (weight, recurrent, bias, projection)):
        ctx.pin_node(node, "recurrent layer with computed weights")
        return
    labels = ctx.uniform(ctx.labels(x), [0, 1], "steps and samples share one scale")
    directions, projected, _ = ctx.shape(projection)
    units = ctx.fresh((directions, projected), "projected units")
    ctx.demand(weight, [(-1.0, np.where(labels == FREE, PINNED, labels))], Role.WEIGHT)
    ctx.demand(recurrent, [(-1.0, units[:, None, :])], Role.WEIGHT)
    ctx.demand(projection, [(1.0, units[:, :, None])], Role.WEIGHT)
    for name in (bias, initial_c):
        if name:
            ctx.pin_value(name, "recurrent state")
    state = units[:, None, :]
    _start(ctx, initial_h, state)
    ctx.set_pinned(node)
    for name, result in zip(node.outputs, (state[None], state), strict=False):
        ctx.set(name, result)


def _units(ctx: Context, node: Node) -> Labels | None:
    """A label per hidden unit of each direction, (directions, H), if one of them has freedom."""
    directions, hidden, _ = ctx.shape(node.inputs[1])
    given = node.attributes["activations"]
    names = [(name.decode() if isinstance(name, bytes) else name).lower() for name in given]
    free = [name in _HOMOGENEOUS for name in names]
    if len(names) != directions or not any(free) or "clip" in node.attributes:
        return None
    units = ctx.fresh((directions, hidden), "hidden units")
    return np.where(np.array(free)[:, None], units, PINNED)


def _recurrent(ctx: Context, node: Node, units: Labels | None) -> None:
    x, weight, recurrent, bias, lengths, initial = (*node.inputs, *("",) * 6)[:6]
    if not ctx.is_data(x) or any(ctx.is_data(name) for name in (weight, recurrent, bias)):
        ctx.pin_node(node, "recurrent layer with computed weights")
        return
    labels = ctx.uniform(ctx.labels(x), [0, 1], "steps and samples share one scale")
    labels = np.where(labels == FREE, PINNED, labels)
    ctx.set_pinned(node)
    if units is None:
        ctx.demand(weight, [(-1.0, labels)], Role.WEIGHT)
        for name in node.inputs[2:]:
            if name and name != lengths:
                ctx.pin_value(name, "recurrent state")
        return
    out = units[:, :, None]
    ctx.demand(weight, [(1.0, out), (-1.0, labels)], Role.WEIGHT)
    ctx.demand(recurrent, [(1.0, out), (-1.0, units[:, None, :])], Role.WEIGHT)
    if bias:
        ctx.demand(bias, [(1.0, np.concatenate([units, units], axis=1))], Role.BIAS)
    batch_first = bool(node.attributes["layout"])
    state = units[None] if batch_first else units[:, None, :]
    _start(ctx, initial, state)
    every_step = units[None, None] if batch_first else state[None]
    for name, result in zip(node.outputs, (every_step, state), strict=False):
        ctx.set(name, result)


def _start(ctx: Context, initial: str, state: Labels) -> None:
    if initial and ctx.is_weight(initial):
        ctx.demand(initial, [(1.0, state)], Role.BIAS)
    elif initial:
        ctx.tie(state, ctx.labels(initial))


RULES: Registry = Rules("scales")
RULES.add(Rule("n i, h i, h h, h -> n h (0 if it saturates)", rnn, "recurrent state"), "RNN")
RULES.add(Rule("n i, 0 -i, 0 0, 0 -> 0", gated, "recurrent state"), "LSTM", "GRU")
RULES.add(Rule("n i, 0 -i, 0 -u, 0, u 0 -> u", lstm_projected, "recurrent state"), "aten::lstm_projected")
