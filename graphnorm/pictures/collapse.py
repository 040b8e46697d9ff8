"""Boxes put together by module, so that a deep network still fits a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from graphnorm.pictures.flow import MODULE, Box, Flow, Link, merge
from graphnorm.pictures.repeats import fold_repeats
from graphnorm.pictures.wording import counted

MOST_BOXES = 60  # about what a screen shows legibly
_MOST_LINKS = 150  # beyond, links cover each other


def overview(flow: Flow, most: int = MOST_BOXES) -> Flow:
    """The most detailed view with at most `most` boxes.

    In this order: everything; equal consecutive blocks drawn once; modules at decreasing depth.
    """
    smallest = flow
    for found in _views(flow):
        if len(found.boxes) <= most and len(found.links) <= _MOST_LINKS:
            return found
        smallest = min(smallest, found, key=lambda view: len(view.boxes) + len(view.links))
    return smallest


def _views(flow: Flow) -> Iterator[Flow]:
    yield flow
    yield fold_repeats(flow)
    for depth in range(deepest(flow) - 1, 0, -1):
        collapsed = collapse(flow, depth)
        yield collapsed
        yield fold_repeats(collapsed)


def deepest(flow: Flow) -> int:
    """Components of the longest module path."""
    return max(len(box.path) for box in flow.boxes)


def collapse(flow: Flow, depth: int) -> Flow:
    """One box for each run of boxes whose module paths share their first `depth` components.

    Boxes are in topological order, so runs of them have no cycle between them.
    """

    def key(index: int) -> object:
        return flow.boxes[index].path[:depth] or index

    runs = [tuple(run) for _, run in groupby(range(len(flow.boxes)), key)]
    home = {index: number for number, run in enumerate(runs) for index in run}
    bundles: dict[tuple[int, int], list[Link]] = {}
    for link in flow.links:
        bundles.setdefault((home[link.source], home[link.target]), []).append(link)
    boxes = [
        _module([flow.boxes[i] for i in run], bundles.get((number, number), []), depth)
        for number, run in enumerate(runs)
    ]
    links = [
        Link(a, b, merge(link.strands for link in found), tuple(v for link in found for v in link.values))
        for (a, b), found in sorted(bundles.items())
        if a != b
    ]
    return Flow(tuple(boxes), tuple(links), view=f"modules to depth {depth}")


def _module(members: Sequence[Box], inside: Sequence[Link], depth: int) -> Box:
    if len(members) == 1:
        return members[0]
    parts = [part for box in members for part in box.parts]
    return replace(
        members[0],
        title=".".join(members[0].path[:depth]),
        kind=MODULE,
        path=members[0].path[:depth],
        parts=counted(parts),
        nodes=tuple(sorted(i for box in members for i in box.nodes)),
        weights=tuple(dict.fromkeys(name for box in members for name in box.weights)),
        inner=merge([*(link.strands for link in inside), *(box.seams() for box in members)]),
    )
