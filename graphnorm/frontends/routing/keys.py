"""Which integers choose a row's expert, where two encodings of the choice agree.

Rows sorted by their expert are grouped by offsets, ``offsets[e]`` = how many rows go to experts 0..e.
Where these were counted from the sorted experts themselves, row t goes to expert ``experts[t]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from graphnorm.ir import Graph, Node
from graphnorm.ops.table import having
from graphnorm.ops.traits import Trait

BY_OFFSETS, BY_INDEX = "offsets", "index"
_MOVES = having(Trait.MOVES | Trait.WITHIN, without=Trait.ALONG_AXIS) | {"Identity"}
_MOST_BINS = 1024  # so that rounding cannot move a count to the next bin


class Key(NamedTuple):
    """The value that chooses, and how: by each row's index, or by offsets of groups of rows."""

    name: str
    kind: str


def route_key(graph: Graph, producers: Mapping[str, Node], node: Node) -> Key:
    """The key of a ``Route``; offsets become the experts that they were counted from, if provably so."""
    name, kind = node.inputs[1], node.text("key")
    shape = graph.values[node.inputs[0]].shape
    if kind == BY_OFFSETS and shape is not None:
        experts = _counted(graph, producers, name, shape[0])
        fits = experts is not None and graph.values[experts].shape == (shape[1],)
        if experts is not None and fits and _sorted_places(graph, producers, experts, shape[0]):
            return Key(experts, BY_INDEX)
    return Key(name, kind)


def _counted(graph: Graph, producers: Mapping[str, Node], offsets: str, count: int) -> str | None:
    """The integers from 0 to ``count - 1`` whose running histogram these offsets are."""
    total = producers.get(offsets)
    if total is None or total.op != "CumSum":
        return None
    if total.attributes["exclusive"] or total.attributes["reverse"]:
        return None
    histogram = _source(graph, producers, total.inputs[0], {"Cast", "Identity"})
    bins = {"bins": count, "min": 0, "max": count - 1}
    if histogram is None or histogram.op != "aten::histc" or not 1 < count <= _MOST_BINS:
        return None
    if any(histogram.attributes.get(name) != number for name, number in bins.items()):
        return None
    number = producers.get(histogram.inputs[0])
    if number is None or number.op != "Cast" or graph.values[number.outputs[0]].dtype != "float32":
        return None
    return number.inputs[0]


def _sorted_places(graph: Graph, producers: Mapping[str, Node], name: str, count: int) -> bool:
    """Whether a vector holds places on an axis of at most ``count`` entries, in ascending order."""
    order = producers.get(name)
    if order is None or order.op != "TopK" or order.outputs[0] != name:
        return False
    if order.attributes["largest"] or not order.attributes["sorted"]:
        return False
    chosen, places = order.inputs[0], producers.get(order.inputs[0])
    while places is not None and places.op in _MOVES:
        chosen, places = places.inputs[0], producers.get(places.inputs[0])
    if places is None or places.op != "TopK" or places.outputs[1] != chosen:
        return False
    scores, axis = graph.values[places.inputs[0]], int(places.attributes["axis"])
    if scores.shape is None or axis % len(scores.shape) in scores.dynamic:
        return False
    return scores.shape[axis] <= count


def _source(graph: Graph, producers: Mapping[str, Node], name: str, passed: set[str]) -> Node | None:
    """The node that made an exact integer count, behind casts that keep it."""
    node = producers.get(name)
    while node is not None and node.op in passed:
        if graph.values[node.outputs[0]].dtype not in {"int32", "int64"}:
            return None
        node = producers.get(node.inputs[0])
    return node
