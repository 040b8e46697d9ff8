"""Routing: each row of the result comes from one of several experts, chosen at run time.

``Route(dense, key)[t] = dense[e(t), t]``, where the expert e(t) depends on the integers ``key`` only.  A
rescaling that keeps the dense computation keeps every selection from it.
"""

from __future__ import annotations

from graphnorm.ir import Node
from graphnorm.ops.rules import Rules
from graphnorm.scales.context import Context
from graphnorm.scales.registry import Registry, Rule


def route(ctx: Context, node: Node) -> None:
    """Any expert may have computed a row, so all share one scale: ``[e, rows.., n] -> [rows.., n]``."""
    dense, key = node.inputs
    ctx.pin_value(key, "chooses the experts")
    labels = ctx.uniform(ctx.labels(dense), [0])
    ctx.set(node.outputs[0], labels.reshape(labels.shape[1:]))


RULES: Registry = Rules("scales")
RULES.add(Rule("x (equal for all experts), 0 -> x", route, "routed"), "graphnorm::Route")
