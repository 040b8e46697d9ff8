"""Coordinates within one strip: columns of lanes, ports on boxes, jogs between rows, rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from graphnorm.pictures.flow import Flow, Strand
from graphnorm.pictures.lanes import Channel, Lanes, assign
from graphnorm.pictures.measure import WIDEST, band_widths, box_size
from graphnorm.pictures.strips import End, Strip, Wire

Point = tuple[float, float]

FRAME, FRAME_TITLE = 12.0, 6.0  # around the boxes of a frame; more on the right, for its title
PITCH = 4.0  # between parallel bands
_GAP = 18.0  # between rows without jogs
_LANE_GAP = 18.0


@dataclass(frozen=True, slots=True)
class Rect:
    """Left, top, width, height; y grows downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def right(self) -> float:
        return self.x + self.width


@dataclass(frozen=True, slots=True)
class Route:
    """A wire as a right-angled line; it ends at a box, or at a port of its strip."""

    source: End
    target: End
    strands: tuple[Strand, ...]
    points: tuple[Point, ...]


@dataclass(slots=True)
class Layout:
    """Where everything is."""

    width: float = 0.0
    height: float = 0.0
    boxes: dict[int, Rect] = field(default_factory=dict)
    frames: list[Rect] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    ports: dict[tuple[End, int], Point] = field(default_factory=dict)  # (port, strip) -> where

    @property
    def aspect(self) -> float:
        return self.width / self.height


class StripDraft:
    """One strip: x of lanes and tracks first, then ports and jogs, then y."""

    def __init__(self, flow: Flow, strip: Strip) -> None:
        self.flow, self.strip = flow, strip
        self.lanes: Lanes = assign(strip)
        self.thick = {wire: sum(band_widths(wire.strands)) for wire in strip.wires}
        self.sizes = {end: self._size(end) for end in strip.ranks}
        self._columns()
        self.out = self._ports({w: w.source for w in strip.wires}, self._toward_target)
        self.into = self._ports({w: w.target for w in strip.wires}, self._toward_source)
        self.slots, self.gaps = self._jogs()
        self.height = self._rows()
        self.left = 0.0

    def _size(self, end: End) -> tuple[float, float]:
        if end.port:
            return 0.0, 0.0
        width, height = box_size(self.flow.boxes[end.box], self._chips(end.box))
        leaving = sum(thick + PITCH for wire, thick in self.thick.items() if wire.source == end)
        arriving = sum(thick + PITCH for wire, thick in self.thick.items() if wire.target == end)
        return max(width, min(2 * max(leaving, arriving), WIDEST)), height  # all may come from one side

    def _chips(self, index: int) -> int:
        return sum(strand.group is not None for strand in self.flow.boxes[index].inner)

    def _columns(self) -> None:
        """X of lane centres and gutter tracks."""
        count = len(self.lanes.tracks)
        widths = [
            max(self.sizes[e][0] for e, lane in self.lanes.lane.items() if lane == n) for n in range(count)
        ]
        pitch = max(self.thick.values(), default=0.0) * 0.6 + PITCH
        self.centre: list[float] = []
        self.track: dict[Channel, float] = {}
        x = FRAME if self._framed() else 0.0
        for lane, tracks in enumerate(self.lanes.tracks):
            x += _LANE_GAP if lane else 0.0
            for number in range(tracks):
                self.track[Channel(lane, number)] = x + pitch * (tracks - number - 0.5)
            x += pitch * tracks + (PITCH if tracks else 0.0)
            x += max(widths[lane], 12.0) / 2
            self.centre.append(x)
            x += max(widths[lane], 12.0) / 2
        self.width = x + (FRAME + FRAME_TITLE if self._framed() else 0.0)

    def _framed(self) -> bool:
        return any(End(frame.first) in self.strip.ranks for frame in self.flow.frames)

    def _x(self, wire: Wire, end: End) -> float:
        """X at which a wire runs on its way to or from `end`."""
        channel = self.lanes.channel.get(wire)
        if channel is None:
            other = wire.target if end == wire.source else wire.source
            return self.centre[self.lanes.lane[other]]
        return self.track[channel] if channel.track >= 0 else self.centre[channel.lane]

    def _toward_target(self, wire: Wire) -> float:
        return self._x(wire, wire.source)

    def _toward_source(self, wire: Wire) -> float:
        return self._x(wire, wire.target)

    def _ports(self, at: Mapping[Wire, End], toward: Callable[[Wire], float]) -> dict[Wire, float]:
        """X at which wires leave or enter their boxes: in the order of where they go, none across another."""
        found: dict[Wire, float] = {}
        by_end: dict[End, list[Wire]] = {}
        for wire, end in at.items():
            by_end.setdefault(end, []).append(wire)
        for end, wires in by_end.items():
            centre = self.centre[self.lanes.lane[end]]
            goal = {wire: toward(wire) for wire in wires}
            if end.port:
                found.update(dict.fromkeys(wires, centre))
                continue
            straight = [wire for wire in wires if goal[wire] == centre][:1]
            left = sorted((w for w in wires if w not in straight and goal[w] <= centre), key=goal.__getitem__)
            right = sorted((w for w in wires if w not in straight and goal[w] > centre), key=goal.__getitem__)
            if not straight and len(left) + len(right) == 1:
                straight, left, right = left + right, [], []
            half = self.thick[straight[0]] / 2 if straight else 0.0
            placed = dict.fromkeys(straight, centre)
            placed.update(self._stack(reversed(left), centre, half, -1.0))
            placed.update(self._stack(right, centre, half, 1.0))
            reach = max(abs(x - centre) + self.thick[wire] / 2 for wire, x in placed.items())
            squeeze = min(1.0, (self.sizes[end][0] / 2 - PITCH) / reach)  # many wires share a small box
            found.update({wire: centre + (x - centre) * squeeze for wire, x in placed.items()})
        return found

    def _stack(self, wires: Iterable[Wire], centre: float, taken: float, sign: float) -> dict[Wire, float]:
        found = {}
        for wire in wires:
            found[wire] = centre + sign * (taken + PITCH + self.thick[wire] / 2)
            taken += PITCH + self.thick[wire]
        return found

    def _jogs(self) -> tuple[dict[tuple[Wire, int], float], dict[int, float]]:
        """Horizontal runs in the gap below each rank (-1: above the first): their y in it, and its height.

        Wires that leave go above wires that arrive; among those that turn the same way they nest.
        """
        in_gap: dict[int, list[tuple[int, float, float, float, Wire]]] = {}
        rank = self.strip.ranks
        for wire in self.strip.wires:
            start, stop = self.out[wire], self.into[wire]
            first, last = rank[wire.source], rank[wire.target] - 1
            if wire in self.lanes.channel:
                x = self._x(wire, wire.source)
                in_gap.setdefault(first, []).append((0, _turn(start, x), start, x, wire))
                in_gap.setdefault(last, []).append((2, _turn(x, stop), x, stop, wire))
            else:
                in_gap.setdefault(first, []).append((1, _turn(start, stop), start, stop, wire))
        slots: dict[tuple[Wire, int], float] = {}
        heights: dict[int, float] = {}
        for gap, runs in in_gap.items():
            heights[gap] = self._stack_jogs(gap, sorted(runs, key=lambda run: run[:2]), slots)
        return slots, heights

    def _stack_jogs(
        self,
        gap: int,
        runs: Sequence[tuple[int, float, float, float, Wire]],
        slots: dict[tuple[Wire, int], float],
    ) -> float:
        placed: list[tuple[float, float, float]] = []  # left, right, lower edge
        depth = 0.0
        for _, _, a, b, wire in runs:
            if abs(a - b) < 0.5:
                slots[wire, gap] = 0.0
                continue
            half = self.thick[wire] / 2
            low, high = min(a, b) - half - PITCH, max(a, b) + half + PITCH
            y = max((edge for left, right, edge in placed if left < high and low < right), default=0.0)
            slots[wire, gap] = y + half
            placed.append((low, high, y + 2 * half + PITCH))
            depth = max(depth, y + 2 * half + PITCH)
        return _GAP + depth

    def _rows(self) -> float:
        """Y of each rank's row; returns the height."""
        rank = self.strip.ranks
        last = max(rank.values())
        self.row: dict[int, float] = {}
        self.tall: dict[int, float] = {}
        y = 0.0
        for number in range(min(rank.values()), last + 1):
            self.row[number] = y
            self.tall[number] = max((self.sizes[e][1] for e, r in rank.items() if r == number), default=0.0)
            y += self.tall[number]
            if number < last:
                y += self.gaps.get(number, _GAP) + FRAME * self._borders(number)
        return y

    def _borders(self, gap: int) -> int:
        """Frames that begin or end in the gap below a rank."""
        rank = self.strip.ranks
        begins = sum(rank.get(End(frame.first)) == gap + 1 for frame in self.flow.frames)
        return begins + sum(rank.get(End(frame.last)) == gap for frame in self.flow.frames)

    def place(self, layout: Layout, number: int, left: float, top: float) -> None:
        """Write coordinates into the layout."""
        self.left = left
        for end, rank in self.strip.ranks.items():
            width, height = self.sizes[end]
            x, y = left + self.centre[self.lanes.lane[end]], top + self.row[rank]
            if end.port:
                layout.ports[end, number] = (x, y)
            else:
                y += (self.tall[rank] - height) / 2
                layout.boxes[end.box] = Rect(x - width / 2, y, width, height)
        for wire in self.strip.wires:
            layout.routes.append(Route(wire.source, wire.target, wire.strands, self._route(wire, left, top)))

    def _route(self, wire: Wire, left: float, top: float) -> tuple[Point, ...]:
        rank = self.strip.ranks
        first, last = rank[wire.source], rank[wire.target] - 1
        begin = top + self.row[first] + (self.tall[first] + self.sizes[wire.source][1]) / 2
        finish = top + self.row[last + 1] + (self.tall[last + 1] - self.sizes[wire.target][1]) / 2
        start, stop = self.out[wire] + left, self.into[wire] + left
        leave = self._level(first, top) + self.slots[wire, first]
        points = [(start, begin), (start, leave)]
        if wire in self.lanes.channel:
            x = self._x(wire, wire.source) + left
            arrive = self._level(last, top) + self.slots[wire, last]
            points += [(x, leave), (x, arrive), (stop, arrive)]
        else:
            points.append((stop, leave))
        return straightened((*points, (stop, finish)))

    def _level(self, gap: int, top: float) -> float:
        """Y of the first jog in the gap below a rank; below the frames that end there."""
        ends = sum(self.strip.ranks.get(End(frame.last)) == gap for frame in self.flow.frames)
        return top + self.row[gap] + self.tall[gap] + _GAP / 2 + FRAME * ends


def _turn(start: float, stop: float) -> float:
    """Order from the top in which wires turn: to the right the rightmost first, to the left the leftmost."""
    return -start if stop > start else start


def straightened(points: Sequence[Point]) -> tuple[Point, ...]:
    """Without points that lie between their neighbours."""
    kept: list[Point] = []
    for point in points:
        if kept and abs(point[0] - kept[-1][0]) < 0.5 and abs(point[1] - kept[-1][1]) < 0.5:
            continue
        while len(kept) > 1 and _in_line(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    return tuple(kept)


def _in_line(a: Point, b: Point, c: Point) -> bool:
    return (abs(a[0] - b[0]) < 0.5 and abs(b[0] - c[0]) < 0.5) or (
        abs(a[1] - b[1]) < 0.5 and abs(b[1] - c[1]) < 0.5
    )
