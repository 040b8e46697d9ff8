"""Demands on one weight made to agree, and extended to entries that are not read at the example's size.

A table of positions is read as far as the example's length; the module reads on for a longer input.  So the
entries that were read must share a scale along the cut axes, and the other entries get the same scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from graphnorm.ir import Graph
from graphnorm.scales.constraints import Constraints, Rows, Term
from graphnorm.scales.demands import Demand, Role
from graphnorm.scales.labels import align
from graphnorm.scales.roles import COUNTED, strongest
from graphnorm.util.defects import DEFECTS, defect


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
        try:
            kept += _agreed(graph.weights[weight].shape, items, constraints)
        except DEFECTS as error:
            node = next(iter(graph.nodes[items[0].node :]), None)  # None: the network's output
            op, where = (node.op, node.label) if node else ("output", graph.name)
            constraints.defects[defect("rule", op, f"of {weight!r} in {where}", error)] = None
            kept.append(_held(items, constraints))
    return tuple(kept)


def _agreed(shape: tuple[int, ...], items: Sequence[Demand], constraints: Constraints) -> list[Demand]:
    """One demand per distinct region of one weight."""
    distinct: dict[tuple[str, ...], Demand] = {}
    for item in items:
        key = tuple(step.key for step in item.path)
        first = distinct.setdefault(key, item)
        if first is not item:
            _equate(first, item, constraints)
            if item.role in COUNTED and strongest([first.role, item.role]) != first.role:
                distinct[key] = item
    regions = list(distinct.values())
    if len(regions) > 1 or any(step.key.startswith("Gather") for step in regions[0].path):
        _reconcile_overlaps(shape, regions, constraints)
    if any(step.cut for item in regions for step in item.path):
        regions = extended(shape, regions, constraints)
    return regions


def _held(items: Sequence[Demand], constraints: Constraints) -> Demand:
    """A weight with demands that cannot be compared is pinned, with every label that they mention."""
    for item in items:
        for _, labels in item.terms:
            constraints.pin(labels, item.node, "demands that cannot be compared")
    first = items[0]
    return Demand(first.weight, (), (), Role.FIXED, first.node, "demands that cannot be compared")


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
        tables.append(label_table(item.terms, region.shape))
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


def label_table(terms: Sequence[Term], shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
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


def extended(shape: tuple[int, ...], regions: Sequence[Demand], constraints: Constraints) -> list[Demand]:
    """The same demands, or one on the whole weight where some entries are not read.

    The axes that were cut are those along which the set of read entries varies.
    """
    size = int(np.prod(shape, dtype=np.int64))
    index = np.arange(size).reshape(shape)
    entries = [item.region(index) for item in regions]
    read = np.zeros(size, dtype=bool)
    for part in entries:
        read[part.ravel()] = True
    if read.all() or not read.any():
        return list(regions)
    mask = read.reshape(shape)
    cut = [axis for axis in range(len(shape)) if (mask != mask.take([0], axis=axis)).any()]
    kept = tuple(1 if axis in cut else n for axis, n in enumerate(shape))
    groups = int(np.prod(kept, dtype=np.int64))
    group = np.broadcast_to(np.arange(groups).reshape(kept), shape).ravel()
    found = [np.unique(group[part.ravel()], return_index=True) for part in entries]
    lead = next((i for i, (seen, _) in enumerate(found) if len(seen) == groups), None)
    weight = regions[0].weight
    reason = f"{weight} is read in part"
    tables = [label_table(item.terms, part.shape) for item, part in zip(regions, entries, strict=True)]
    anchor = np.zeros((groups, 0), dtype=np.int64) if lead is None else tables[lead][found[lead][1]]
    terms = () if lead is None else regions[lead].terms
    for item, part, table in zip(regions, entries, tables, strict=True):
        coefficients = tuple(c for c, _ in item.terms) + tuple(-c for c, _ in terms)
        if coefficients:
            rows = np.concatenate([table, anchor[group[part.ravel()]]], axis=1)
            constraints.rows.append(Rows(coefficients, np.unique(rows, axis=0), item.node, reason))
    if lead is None:
        return [Demand(weight, (), (), Role.FIXED, regions[0].node, reason)]
    whole = tuple((c, anchor[:, i].reshape(kept)) for i, (c, _) in enumerate(terms))
    counted = [item.role for item in regions if item.role in COUNTED]
    role = strongest(counted) if counted else regions[lead].role
    return [Demand(weight, (), whole, role, regions[lead].node, regions[lead].reason)]
