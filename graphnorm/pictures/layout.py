"""Coordinates: strips side by side, wires between them, and frames.

Boxes stand in ranks and lanes, wires are right-angled routes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphnorm.pictures.flow import Flow, Frame
from graphnorm.pictures.strip_layout import FRAME, FRAME_TITLE, Layout, Rect, Route, StripDraft
from graphnorm.pictures.strips import End, Strip, cut, ranks, strips

ASPECT = 1.5  # width by height that a picture should have
_MOST_STRIPS = 12  # enough for the chosen aspect ratio with the boxes of one picture
_STRIP_GAP = 26.0
_WIRE = 16.0  # between wires from one strip to the next
_MARGIN = 14.0


def arrange(flow: Flow) -> Layout:
    """Lay a picture out in as many strips as give it a suitable aspect ratio."""
    rank = ranks(flow)
    best: Layout | None = None
    for count in range(1, min(_MOST_STRIPS, max(rank) + 1) + 1):
        cuts = cut(flow, rank, count)
        if best is not None and _cuts_frame(flow, rank, cuts):
            continue
        found = _in_strips(flow, strips(flow, rank, cuts))
        if best is None or _badness(found) < _badness(best):
            best = found
        if found.aspect > ASPECT * 1.5:
            break
    assert best is not None
    return best


def _badness(layout: Layout) -> float:
    """Distance from the wanted aspect ratio, and emptiness."""
    covered = sum(rect.width * rect.height for rect in layout.boxes.values())
    return abs(math.log(layout.aspect / ASPECT)) - math.log(covered / (layout.width * layout.height))


def _cuts_frame(flow: Flow, rank: Sequence[int], cuts: Sequence[int]) -> bool:
    return any(rank[f.first] < at <= rank[f.last] for f in flow.frames for at in cuts)


def _in_strips(flow: Flow, parts: Sequence[Strip]) -> Layout:
    layout = Layout()
    x = _MARGIN
    drafts = [StripDraft(flow, strip) for strip in parts]
    crossing = [[end for end in strip.ranks if end.port == "bottom"] for strip in parts]
    top = _MARGIN + _WIRE * max((len(found) for found in crossing), default=0)
    for number, draft in enumerate(drafts):
        if number:
            x += _STRIP_GAP + _WIRE * len(crossing[number - 1])
        draft.place(layout, number, x, top)
        x += draft.width
    bottom = top + max(draft.height for draft in drafts)
    for number, ends in enumerate(crossing[:-1]):
        _connect(layout, drafts[number + 1].left, number, ends, bottom)
    layout.frames = [_frame(layout, frame) for frame in flow.frames]
    layout.width = x + _MARGIN
    layout.height = bottom + _MARGIN + _WIRE * max((len(found) for found in crossing), default=0)
    return layout


def _frame(layout: Layout, frame: Frame) -> Rect:
    """Around the boxes of a frame, and the wires into them that run beside them."""
    members = range(frame.first, frame.last + 1)
    inside = [layout.boxes[i] for i in members]
    top, bottom = min(r.y for r in inside) - FRAME, max(r.bottom for r in inside) + FRAME
    beside = [
        x
        for route in layout.routes
        if route.target.box in members and not route.target.port
        for x, y in route.points[1:-1]
        if top <= y <= bottom
    ]
    left = min(*(r.x for r in inside), *beside) - FRAME
    right = max(*(r.right for r in inside), *beside) + FRAME + FRAME_TITLE
    return Rect(left, top, right - left, bottom - top)


def _connect(layout: Layout, edge: float, number: int, ends: Sequence[End], bottom: float) -> None:
    """Wires from the bottom of strip `number` up to the top of the next, whose left edge is `edge`."""
    by_x = sorted(ends, key=lambda end: -layout.ports[end, number][0])
    for slot, end in enumerate(
        by_x
    ):  # the rightmost turns first, runs up on the left, and turns last: no crossing
        start = layout.ports[end, number]
        stop = layout.ports[End(end.box, "top"), number + 1]
        left = len(by_x) - slot
        low, high = start[1] + _WIRE * (slot + 1), stop[1] - _WIRE * left
        x = edge - _STRIP_GAP / 2 - _WIRE * (left - 1)
        points = (start, (start[0], low), (x, low), (x, high), (stop[0], high), stop)
        strands = next(r.strands for r in layout.routes if r.target == end)
        layout.routes.append(Route(end, End(end.box, "top"), strands, points))
