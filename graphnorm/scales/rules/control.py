"""Control flow, whose bodies are part of the graph: what connects them to it, and what pins its operands.

A loop's state has one scale in all iterations: the initial value has it, and so does the value that an
iteration passes to the next (state_0 = initial, state_(t+1) = body(state_t)).
"""

from __future__ import annotations

import numpy as np

from graphnorm.ir import Node
from graphnorm.ops.rules import Rules
from graphnorm.scales.context import Context
from graphnorm.scales.labels import ENTRY_LIMIT, FREE, PINNED, size
from graphnorm.scales.registry import Registry, Rule
from graphnorm.scales.rules.elementwise import fixed, tied, where


def choice(ctx: Context, node: Node) -> None:
    """condition, then, else -> result, of the size of the branch that is executed."""
    _, first, second = node.inputs
    if ctx.shape(first) != ctx.shape(second):
        ctx.pin_node(node, "branches of unlike shapes")
    else:
        where(ctx, node)


def state(ctx: Context, node: Node) -> None:
    """Initial value -> value at the start of any iteration; a zero is zero in the first one only."""
    initial, shape = node.inputs[0], ctx.shape(node.outputs[0])
    if not ctx.value(initial).is_float:
        ctx.pin_node(node)
        return
    labels = ctx.labels(initial)
    zero = labels == FREE
    if zero.any():
        own = ctx.fresh(shape, "state") if size(shape) <= ENTRY_LIMIT else PINNED
        labels = np.where(zero, own, labels)
    ctx.set(node.outputs[0], labels)


def carried(ctx: Context, node: Node) -> None:
    """Value at the start of an iteration, value at its end -> value after the last one."""
    start, end = node.inputs
    if ctx.shape(start) != ctx.shape(end) or not ctx.value(start).is_float:
        ctx.pin_node(node, "state of variable size" if ctx.value(start).is_float else "")
    else:
        ctx.set(node.outputs[0], tied(ctx, node.inputs))


def iterate(ctx: Context, node: Node) -> None:
    """Sequence -> its element in any iteration."""
    labels = ctx.labels(node.inputs[0])
    axis = int(node.attributes["axis"]) % labels.ndim
    labels = ctx.uniform(labels, [axis], "read along this axis by a loop")
    ctx.set(node.outputs[0], np.squeeze(labels, axis))


def stack(ctx: Context, node: Node) -> None:
    """Element in any iteration -> all of them along a new axis."""
    axis = int(node.attributes["axis"]) % ctx.rank(node.outputs[0])
    ctx.set(node.outputs[0], np.expand_dims(ctx.labels(node.inputs[0]), axis))


RULES: Registry = Rules("scales")
RULES.add(Rule("0, x, x -> x", choice, "result of a branch"), "graphnorm::Choice")
RULES.add(Rule("x -> x", state, "state of a loop"), "graphnorm::State")
RULES.add(Rule("x, x -> x", carried, "carried from one iteration to the next"), "graphnorm::Carried")
RULES.add(Rule("x (equal along the axis) -> x", iterate, "sequence of a loop"), "graphnorm::Iterate")
RULES.add(Rule("x -> x", stack, "stacked by a loop"), "graphnorm::Stack")
RULES.add(Rule("0 -> 0", fixed, "decides how often a loop runs"), "graphnorm::Control")
