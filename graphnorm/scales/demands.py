"""Demands: the scale that a consumer needs of a weight, carried back through the expression to the weight.

A weight may reach its operator through transposes, reshapes, slices of a fused projection, casts,
concatenations or sums.  The consumer demands a log-scale ``sum_t c_t * x[labels_t]`` of its operand;
each operator of the expression says what that means for its own operands.  What cannot be carried back
is pinned: the demanded scale must vanish, and every weight below keeps its value.

Two demands on the same entries of one weight must agree (`reconcile`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphnorm.ir import Array, Graph, Node
from graphnorm.scales.constraints import Constraints, Rows, Term
from graphnorm.scales.labels import FREE, PINNED, Labels, align

if TYPE_CHECKING:
    from graphnorm.scales.propagate import Propagation


@dataclass(frozen=True, slots=True)
class Step:
    """A data movement on the way from a weight to its consumer; equal keys move alike.

    `cut` are the axes of the result along which entries were picked (slices, gathers).
    """

    key: str
    apply: Callable[[Array], Array]
    cut: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """The log-scale that a consumer needs of (a region of) a weight.

    Attributes:
        weight: name of the weight.
        path: movements from the weight to the region that `terms` describe.
        terms: the demanded log-scale, label arrays broadcastable to the region's shape.
        role: ``weight`` (multiplicative, counted by the objective), ``bias`` (follows) or ``fixed``.
        node: index of the consuming node.
        reason: why the weight may not move, where it is ``fixed``.
    """

    weight: str
    path: tuple[Step, ...]
    terms: tuple[Term, ...]
    role: str
    node: int
    reason: str = ""

    def region(self, array: Array) -> Array:
        """The part of `array` (of the weight's shape) that the demand describes."""
        for step in self.path:
            array = step.apply(array)
        return array


def demand(
    ctx: Propagation, name: str, terms: Sequence[Term], role: str, path: tuple[Step, ...] = ()
) -> None:
    """Require the log-scale `terms` of the region `path` of value `name`."""
    terms = tuple((c, np.where(labels == FREE, PINNED, labels)) for c, labels in terms)
    if name in ctx.graph.weights:
        reason = ctx.reason if role == "fixed" else ""
        ctx.demands.append(Demand(name, path, terms, role, ctx.node, reason))
    elif ctx.is_constant(name):
        if not path:
            terms = (*terms, (1.0, ctx.labels(name)))  # a zero entry carries FREE and asks nothing
        ctx.equation(terms, "constant cannot be rescaled")
    else:
        producer = ctx.producers[name]
        handler = HANDLERS.get(producer.op)
        if handler is None or not handler(ctx, producer, name, terms, role, path):
            _meet(ctx, name, terms, role, path)


def _meet(ctx: Propagation, name: str, terms: Sequence[Term], role: str, path: tuple[Step, ...]) -> None:
    """No backward rule: walk the expression forwards, entry by entry, and equate the scales."""
    labels = ctx.expressions.labels(name, role)
    reason = f"weight expression through {ctx.producers[name].op}"
    if labels is None:
        ctx.equation(terms, reason)
        fix(ctx, name, reason)
        return
    if path:
        if path[0].cut and ctx.expressions.is_read_in_part(name):
            labels = ctx.uniform(labels, path[0].cut, "weight read in part")
        labels = np.broadcast_to(labels, ctx.shape(name))
        for step in path:
            labels = step.apply(labels)
    rank = max([labels.ndim, *(array.ndim for _, array in terms)])
    aligned = [(c, align(array, rank)) for c, array in (*terms, (-1.0, labels))]
    ctx.equation(aligned, reason)


def fix(ctx: Propagation, name: str, reason: str) -> None:
    """Keep every weight that `name` depends on."""
    for weight in ctx.expressions.leaves(name):
        ctx.demands.append(Demand(weight, (), (), "fixed", ctx.node, reason))


Handler = Callable[["Propagation", Node, str, tuple[Term, ...], str, tuple[Step, ...]], bool]
HANDLERS: dict[str, Handler] = {}
"""Operator -> how a demand on its result becomes demands on its operands; False if it cannot."""


def handler(*operators: str) -> Callable[[Handler], Handler]:
    """Register a backward rule for weight expressions."""

    def register(function: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(operators, function))
        return function

    return register


def fit(ctx: Propagation, terms: Sequence[Term], shape: Sequence[int]) -> tuple[Term, ...]:
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


def reconcile(graph: Graph, demands: Sequence[Demand], constraints: Constraints) -> tuple[Demand, ...]:
    """Make demands on the same entries agree; returns one demand per distinct region.

    Demands with equal paths are compared term by term; overlapping regions with different paths
    entry by entry.
    """
    kept: list[Demand] = []
    by_weight: dict[str, list[Demand]] = {}
    for item in demands:
        by_weight.setdefault(item.weight, []).append(item)
    for weight, items in by_weight.items():
        distinct: dict[tuple[str, ...], Demand] = {}
        for item in items:
            key = tuple(step.key for step in item.path)
            first = distinct.setdefault(key, item)
            if first is not item:
                _equate(first, item, constraints)
                if first.role != "weight" and item.role == "weight":
                    distinct[key] = item
        regions = list(distinct.values())
        if len(regions) > 1 or any(step.key.startswith("Gather") for step in regions[0].path):
            _reconcile_overlaps(graph.weights[weight].shape, regions, constraints)
        if _same_part(graph.weights[weight].shape, regions):
            regions = [_whole(graph.weights[weight].shape, regions[0], constraints)]
        kept += regions
    return tuple(kept)


def _same_part(shape: tuple[int, ...], regions: Sequence[Demand]) -> bool:
    """Whether all demands are on the same entries (they agree by now)."""
    if len(regions) == 1:
        return True
    index = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    first = regions[0].region(index)
    return all(np.array_equal(first, other.region(index)) for other in regions[1:])


def _whole(shape: tuple[int, ...], item: Demand, constraints: Constraints) -> Demand:
    """Extend a demand on a part of a weight to the entries that nobody reads at the example's size.

    A table of positions is read as far as the example's length; the module reads on for a longer input.
    So what was read must move alike along the axes that were cut, and the rest moves with it.
    """
    cut = tuple(sorted({axis for step in item.path for axis in step.cut}))
    same_axes = len(item.path) == 1 or all(not step.key.startswith("Gather") for step in item.path)
    if not cut or not same_axes:
        return item
    size = int(np.prod(shape, dtype=np.int64))
    region = item.region(np.arange(size).reshape(shape))
    if len(np.unique(region)) == size:
        return item
    terms = [(c, align(labels, region.ndim)) for c, labels in item.terms]
    for axis in cut:
        first = [(c, labels.take([0], axis=axis)) for c, labels in terms]
        reason = f"{item.weight} is read in part"
        constraints.equation([*terms, *((-c, labels) for c, labels in first)], item.node, reason)
        terms = first
    whole = tuple((c, _uncut(labels, cut, len(shape))) for c, labels in terms)
    return Demand(item.weight, (), whole, item.role, item.node)


def _uncut(labels: Labels, cut: tuple[int, ...], rank: int) -> Labels:
    """Labels of size 1 on the cut axes, with the weight's own rank."""
    if labels.ndim == rank:
        return labels
    return labels.reshape((*labels.shape[: cut[0]], 1, *labels.shape[cut[-1] + 1 :]))


def _equate(first: Demand, second: Demand, constraints: Constraints) -> None:
    rank = max([1, *(labels.ndim for _, labels in first.terms + second.terms)])
    terms = [(c, align(labels, rank)) for c, labels in first.terms]
    terms += [(-c, align(labels, rank)) for c, labels in second.terms]
    constraints.equation(terms, second.node, f"{first.weight} is used more than once")


def _reconcile_overlaps(shape: tuple[int, ...], regions: Sequence[Demand], constraints: Constraints) -> None:
    size = int(np.prod(shape, dtype=np.int64))
    index = np.arange(size).reshape(shape)
    owner = np.full(size, -1, dtype=np.int64)  # which demand saw an entry first, and where
    where = np.zeros(size, dtype=np.int64)
    tables: list[npt.NDArray[np.int64]] = []
    for number, item in enumerate(regions):
        region = item.region(index)
        entries = region.ravel()
        tables.append(_table(item.terms, region.shape))
        unique, first = np.unique(entries, return_index=True)
        fresh = owner[unique] < 0
        owner[unique[fresh]] = number
        where[unique[fresh]] = first[fresh]
        for other in range(number + 1):
            clash = np.flatnonzero(owner[entries] == other)
            clash = clash[(where[entries[clash]] != clash) | (other != number)]
            if len(clash):
                _equate_entries(
                    regions[other], item, tables, other, number, where[entries[clash]], clash, constraints
                )


def _table(terms: Sequence[Term], shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    columns = [np.broadcast_to(align(labels, len(shape)), shape).ravel() for _, labels in terms]
    return np.stack(columns, axis=1) if columns else np.zeros((int(np.prod(shape)), 0), dtype=np.int64)


def _equate_entries(
    first: Demand,
    second: Demand,
    tables: Sequence[npt.NDArray[np.int64]],
    one: int,
    two: int,
    at_first: npt.NDArray[np.int64],
    at_second: npt.NDArray[np.int64],
    constraints: Constraints,
) -> None:
    coefficients = tuple(c for c, _ in first.terms) + tuple(-c for c, _ in second.terms)
    if coefficients:
        rows = np.concatenate([tables[one][at_first], tables[two][at_second]], axis=1)
        reason = f"{first.weight} is used more than once"
        constraints.rows.append(Rows(coefficients, np.unique(rows, axis=0), second.node, reason))
