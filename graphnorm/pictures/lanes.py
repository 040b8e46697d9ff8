"""Lanes and channels of a strip: which column each box stands in, and where long wires run.

The longest path is lane 0, a straight spine.  Every other path gets the leftmost lane to its right that is
free over its ranks.  A wire that passes ranks runs in the lane of one of its ends if that is free, else in
a track of the gutter beside it: skip branches become brackets at the side.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphnorm.pictures.strips import End, Strip, Wire


@dataclass(frozen=True, slots=True)
class Channel:
    """Where a wire runs down: the centre of a lane, or a track (0 is innermost) of the gutter left of it."""

    lane: int
    track: int = -1


@dataclass(frozen=True, slots=True)
class Lanes:
    """Lane of each end, channel of each wire that passes ranks, and tracks used per gutter."""

    lane: dict[End, int]
    channel: dict[Wire, Channel]
    tracks: list[int]


def assign(strip: Strip) -> Lanes:
    """Lanes and channels of one strip."""
    busy: list[set[int]] = []
    lane: dict[End, int] = {}
    for path in _paths(strip):
        held = _held(strip, path)
        number = next((n for n, taken in enumerate(busy) if not taken & held), len(busy))
        if number == len(busy):
            busy.append(set())
        busy[number] |= held
        lane.update(dict.fromkeys(path, number))
    boxes = [{strip.ranks[end] for end, at in lane.items() if at == n} for n in range(len(busy))]
    channel: dict[Wire, Channel] = {}
    gutters: list[list[set[int]]] = [[] for _ in busy]
    for wire in sorted(strip.wires, key=lambda w: strip.ranks[w.target] - strip.ranks[w.source]):
        inner = set(range(strip.ranks[wire.source] + 1, strip.ranks[wire.target]))
        if inner:
            channel[wire] = _channel(lane[wire.source], lane[wire.target], inner, boxes, gutters)
    return Lanes(lane, channel, [len(gutter) for gutter in gutters])


def _channel(
    source: int, target: int, inner: set[int], boxes: list[set[int]], gutters: list[list[set[int]]]
) -> Channel:
    for number in dict.fromkeys((target, source)):
        if not boxes[number] & inner:
            boxes[number] |= inner
            return Channel(number)
    tracks = gutters[max(source, target)]
    number = next((n for n, taken in enumerate(tracks) if not taken & inner), len(tracks))
    if number == len(tracks):
        tracks.append(set())
    tracks[number] |= inner
    return Channel(max(source, target), number)


def _held(strip: Strip, path: list[End]) -> set[int]:
    """Ranks that a path needs in its lane: from below what it reads to above what reads it."""
    first, last = path[0], path[-1]
    above = [strip.ranks[w.source] for w in strip.wires if w.target == first]
    below = [strip.ranks[w.target] for w in strip.wires if w.source == last]
    start = max(above) + 1 if above else strip.ranks[first]
    stop = min(below) if below else strip.ranks[last] + 1
    return set(range(min(start, strip.ranks[first]), max(stop, strip.ranks[last] + 1)))


def _paths(strip: Strip) -> list[list[End]]:
    """The ends as disjoint paths, the longest first."""
    left = set(strip.ranks)
    found: list[list[End]] = []
    while left:
        path = _longest(strip, left)
        left -= set(path)
        found.append(path)
    return found


def _longest(strip: Strip, left: set[End]) -> list[End]:
    order = sorted(left, key=lambda end: (strip.ranks[end], end))
    length = dict.fromkeys(order, 1)
    before: dict[End, End] = {}
    into: dict[End, list[End]] = {}
    for wire in strip.wires:
        if wire.source in left and wire.target in left:
            into.setdefault(wire.target, []).append(wire.source)
    for end in order:
        for source in into.get(end, []):
            if length[source] + 1 > length[end]:
                length[end], before[end] = length[source] + 1, source
    path = [max(order, key=lambda end: length[end])]
    while path[-1] in before:
        path.append(before[path[-1]])
    return path[::-1]
