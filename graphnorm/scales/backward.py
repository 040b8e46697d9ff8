"""A demand carried back from the consumer of a weight expression to the weights that it is made of.

A weight may reach its operator through transposes, reshapes, slices of a fused projection, casts,
concatenations or sums.  Each operator of the expression translates the demanded scale of its result into
demands on its operands.  Where one cannot, the expression is walked forwards (`forward`); where that fails
too, the demanded scale must vanish, and every weight below keeps its value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphnorm.ir import Array, Node
from graphnorm.ops.rules import Rules
from graphnorm.ops.traits import NONE
from graphnorm.scales.constraints import Term
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Demand, Role, Step
from graphnorm.scales.labels import FREE, PINNED, Labels, align
from graphnorm.util.defects import DEFECTS


def demand(ctx: Context, name: str, terms: Sequence[Term], role: Role, path: tuple[Step, ...] = ()) -> None:
    """Require the log-scale `terms` of the region `path` of value `name`."""
    terms = tuple((c, np.where(labels == FREE, PINNED, labels)) for c, labels in terms)
    if name in ctx.graph.weights:
        if not ctx.graph.weights[name].size:
            return  # a layer of width 0: there is nothing to scale
        _check_fits(ctx, name, terms, path)
        reason = ctx.reason if role == Role.FIXED else ""
        ctx.demands.append(Demand(name, path, terms, role, ctx.node, reason))
    elif ctx.is_constant(name):
        if not path:
            terms = (*terms, (1.0, ctx.labels(name)))  # a zero entry is FREE and demands nothing
        ctx.equation(terms, "constant cannot be rescaled")
    else:
        producer = ctx.producers[name]
        handler, carried = HANDLERS.get(producer.op), False
        sizes = [ctx.value(x).shape for x in (name, *producer.inputs) if x]
        if handler is not None and None not in sizes:
            try:
                carried = handler(ctx, producer, name, terms, role, path)
            except DEFECTS as error:
                ctx.defect(producer, "backward rule", error)
        if not carried:
            _meet(ctx, name, terms, role, path)


def _check_fits(ctx: Context, name: str, terms: Sequence[Term], path: tuple[Step, ...]) -> None:
    """Demanding a scale with more entries than the weight is a defect of the rule."""
    region: Array = np.broadcast_to(np.zeros((), np.int8), ctx.shape(name))
    for step in path:
        region = step.apply(region)
    for _, labels in terms:
        sizes = align(labels, region.ndim).shape if labels.ndim <= region.ndim else ()
        if len(sizes) != region.ndim or any(
            n not in (1, m) for n, m in zip(sizes, region.shape, strict=True)
        ):
            raise ValueError(f"scales of shape {labels.shape} for {name!r} of shape {region.shape}")


def _meet(ctx: Context, name: str, terms: Sequence[Term], role: Role, path: tuple[Step, ...]) -> None:
    """No backward rule: walk the expression forwards, entry by entry, and equate the scales."""
    producer = ctx.producers[name]
    reason = f"weight expression through {producer.op}"
    try:
        labels = _walked(ctx, name, role, path)
    except DEFECTS as error:
        ctx.defect(producer, "rule", error)
        labels = None
    if labels is None:
        ctx.equation(terms, reason)
        fix(ctx, name, reason)
        return
    rank = max([labels.ndim, *(array.ndim for _, array in terms)])
    aligned = [(c, align(array, rank)) for c, array in (*terms, (-1.0, labels))]
    ctx.equation(aligned, reason)


def _walked(ctx: Context, name: str, role: Role, path: tuple[Step, ...]) -> Labels | None:
    """Labels of the region `path` of a weight expression; None if there would be too many."""
    labels = ctx.opened(name, role)
    if labels is None or not path:
        return labels
    labels = np.broadcast_to(labels, ctx.shape(name))
    for step in path:
        labels = step.apply(labels)
    return labels


def fix(ctx: Context, name: str, reason: str) -> None:
    """Keep every weight that `name` depends on."""
    for weight in ctx.leaves(name):
        ctx.demands.append(Demand(weight, (), (), Role.FIXED, ctx.node, reason))


Handler = Callable[[Context, Node, str, tuple[Term, ...], Role, tuple[Step, ...]], bool]
HANDLERS: Rules[Handler] = Rules("weight expressions")
"""Operator -> how a demand on its result becomes demands on its operands; False if it cannot."""
handler = HANDLERS.rule
HANDLERS.explain({NONE: "walked forwards, entry by entry, by the rule for scales"})


def fit(ctx: Context, terms: Sequence[Term], shape: Sequence[int]) -> tuple[Term, ...]:
    """Terms of a broadcast result as terms of an operand of `shape`: constant along broadcast axes."""
    rank = max([len(shape), *(labels.ndim for _, labels in terms)])
    padded = (1,) * (rank - len(shape)) + tuple(shape)
    aligned = [(c, align(labels, rank)) for c, labels in terms]
    for axis in range(rank):
        if padded[axis] != 1 or all(labels.shape[axis] == 1 for _, labels in aligned):
            continue
        first = [(c, labels.take([0], axis=axis)) for c, labels in aligned]
        ctx.equation([*aligned, *((-c, labels) for c, labels in first)], "broadcast weight")
        aligned = first
    lead = rank - len(shape)
    return tuple((c, labels.reshape(labels.shape[lead:])) for c, labels in aligned)
