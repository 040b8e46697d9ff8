"""The rescaling graph as a networkx multigraph.

Node 0 is the pinned node.  An entry of a weight scales by exp(sum of coefficient * x): in a plain layer
by exp(x_to - x_from), an edge from the input's node to the output's.  Attribute ``coefficients`` holds
all pairs (node, coefficient), which is more than that where scales multiply (attention, gates).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import networkx as nx
import numpy as np
import scipy.sparse as sp

from graphnorm.errors import InputError
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.scales.constraints import Term
from graphnorm.scales.demands import Demand
from graphnorm.scales.labels import align
from graphnorm.util.typing import Integers

LEVELS = ("group", "neuron")
EDGE_LIMIT = 5_000_000  # networkx needs about a kilobyte per edge
Profile = tuple[tuple[int, float], ...]


def build_networkx(graph: RescalingGraph, level: str = "group") -> nx.MultiDiGraph:
    """Build the multigraph.

    Args:
        graph: the rescaling graph.
        level: ``group``: node i + 1 is ``graph.groups[i]`` (attributes ``name``, ``size``), one edge per
            weight region and pair of profiles (``weight``, ``role``, ``layer``, ``entries``,
            ``coefficients``); ``neuron``: node v + 1 is variable v (``group``), one edge per weight entry
            (``index``, flat in the demanded region, in place of ``entries``).

    Raises:
        InputError: another level, or more than `EDGE_LIMIT` edges.
    """
    if level not in LEVELS:
        raise InputError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
    movable = list(graph.movable())
    if level == "neuron":
        total = sum(demand.region(graph.network.weights[demand.weight]).size for demand in movable)
        if total > EDGE_LIMIT:
            raise InputError(
                f"{graph.network.name}: {total:,} weight entries are too many edges (at most "
                f"{EDGE_LIMIT:,}); use to_networkx(level='group')"
            )
    drawn = nx.MultiDiGraph(name=graph.network.name, level=level)
    drawn.add_node(0, name="pinned", size=1)
    for group in graph.groups:
        if level == "group":
            drawn.add_node(group.index + 1, name=group.name, size=len(group.variables))
        else:
            drawn.add_nodes_from((int(v) + 1 for v in group.variables), group=group.name)
    nodes = _node_forms(graph, level)
    for demand in movable:
        _add_edges(drawn, graph, demand, nodes, level)
    return drawn


def _node_forms(graph: RescalingGraph, level: str) -> sp.csr_array:
    """Labels as combinations of drawn nodes (without node 0)."""
    if level == "neuron" or not graph.groups:
        return graph.solution.basis
    variables = np.concatenate([group.variables for group in graph.groups])
    owner = np.repeat([group.index for group in graph.groups], [len(g.variables) for g in graph.groups])
    ones = np.ones(len(variables))
    gather = sp.csr_array((ones, (variables, owner)), shape=(graph.solution.count, len(graph.groups)))
    return sp.csr_array(graph.solution.basis @ gather)


def _add_edges(
    drawn: nx.MultiDiGraph, graph: RescalingGraph, demand: Demand, nodes: sp.csr_array, level: str
) -> None:
    shape = demand.region(graph.network.weights[demand.weight]).shape
    rank = len(shape)
    terms = [(c, align(labels, rank)) for c, labels in demand.terms]
    rows, row_profiles = _side([term for term in terms if term[0] > 0], nodes, rank)
    columns, column_profiles = _side([term for term in terms if term[0] < 0], nodes, rank)
    common = {"weight": demand.weight, "role": demand.role, "layer": graph.node_label(demand.node)}
    if level == "neuron":
        pairs = zip(
            np.broadcast_to(rows, shape).ravel().tolist(),
            np.broadcast_to(columns, shape).ravel().tolist(),
            strict=True,
        )
        edges = (
            _edge(row_profiles[i], column_profiles[j], {**common, "index": index})
            for index, (i, j) in enumerate(pairs)
        )
    else:
        edges = (
            _edge(row_profiles[i], column_profiles[j], {**common, "entries": n})
            for (i, j), n in _count(rows, columns, shape).items()
        )
    drawn.add_edges_from(edges)


def _side(terms: Sequence[Term], nodes: sp.csr_array, rank: int) -> tuple[Integers, list[Profile]]:
    """Per entry (of broadcastable shape) the number of its profile, and the profiles."""
    shape = np.broadcast_shapes((1,) * rank, *(labels.shape for _, labels in terms))
    total = sp.csr_array((int(np.prod(shape)), nodes.shape[1]))
    for c, labels in terms:
        total = sp.csr_array(total + c * nodes[np.broadcast_to(labels, shape).ravel()])
    total.eliminate_zeros()
    total.sort_indices()
    numbers: dict[Profile, int] = {}
    ids = np.empty(total.shape[0], dtype=np.int64)
    indices, data = (total.indices + 1).tolist(), total.data.tolist()
    bounds = total.indptr.tolist()
    for entry, (start, stop) in enumerate(pairwise(bounds)):
        profile = tuple(zip(indices[start:stop], data[start:stop], strict=True))
        ids[entry] = numbers.setdefault(profile, len(numbers))
    return ids.reshape(shape), list(numbers)


def _count(rows: Integers, columns: Integers, shape: Sequence[int]) -> dict[tuple[int, int], int]:
    """How many entries of a region of `shape` have each pair of profiles."""
    size = int(np.prod(shape, dtype=np.int64))
    if any(a > 1 and b > 1 for a, b in zip(rows.shape, columns.shape, strict=True)):
        width = int(columns.max(initial=0)) + 1
        codes, counts = np.unique(rows * width + columns, return_counts=True)
        repeats = size // max(1, int(counts.sum()))
        return {
            divmod(code, width): n * repeats for code, n in zip(codes.tolist(), counts.tolist(), strict=True)
        }
    first, second = np.bincount(rows.ravel()), np.bincount(columns.ravel())  # independent: counts multiply
    repeats = size // (rows.size * columns.size)
    return {
        (i, j): int(n * m) * repeats
        for i, n in enumerate(first.tolist())
        for j, m in enumerate(second.tolist())
    }


def _edge(row: Profile, column: Profile, attributes: dict[str, object]) -> tuple[int, int, dict[str, object]]:
    coefficients = row + column
    to = next((node for node, c in coefficients if c > 0), 0)
    start = next((node for node, c in coefficients if c < 0), 0)
    return start, to, {**attributes, "coefficients": coefficients}
