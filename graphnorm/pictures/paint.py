"""From layout to shapes: boxes, bands, frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphnorm.pictures.colours import PINNED
from graphnorm.pictures.flow import INPUT, JOIN, MODULE, OUTPUT, Box, Frame, Strand
from graphnorm.pictures.measure import (
    PAD,
    PIN,
    SEPARATOR,
    SMALL,
    TITLE,
    band_widths,
    fitted,
    parts_width,
    text_width,
)
from graphnorm.pictures.scene import Block, Item, Mark, Shape, Stroke, Text, parallel, rounded
from graphnorm.pictures.strip_layout import Rect, Route

INK, QUIET, EDGE, FRAME = "#1f2933", "#5b6770", "#8a949e", "#f4f6f8"
DARK = "#37474f"
_CORNER = 9.0
_CHIPS = 14  # group chips that a module shows


def draw_frame(frame: Frame, rect: Rect) -> Item:
    """A panel behind the boxes that stand for equal blocks."""
    badge = f"×{frame.count}"
    width = text_width(badge, 11, bold=True) + 10
    name = fitted(frame.title, 7.5, rect.height - 30)
    marks: list[Mark] = [
        Block(rect.x, rect.y, rect.width, rect.height, 10, FRAME, "#c3cad1", 1.0, dashed=True),
        Block(rect.right - width, rect.y - 8, width, 17, 8, INK),
        Text(rect.right - width / 2, rect.y + 4.5, badge, 11, "#ffffff", bold=True, anchor="middle"),
        Text(rect.right - 5, rect.bottom - 10, name, 7.5, QUIET, upward=True),
    ]
    return Item("frame", f"{frame.first}", tuple(marks), f"{frame.title} ×{frame.count}")


def draw_route(number: int, route: Route, colours: Mapping[int, str], title: str) -> Item:
    """A band: its strands side by side, with an arrow head where it enters a box."""
    widths = band_widths(route.strands)
    total = sum(widths)
    points = list(route.points)
    arrow = not route.target.port
    if arrow:
        x, y = points[-1]
        points[-1] = (x, y - 4.0)
    marks: list[Mark] = []
    edge = total / 2
    for strand, width in zip(route.strands, widths, strict=True):
        path = rounded(parallel(points, edge - width / 2), _CORNER)
        edge -= width
        dashed = strand.degenerate > 0 and strand.degenerate == strand.scales
        marks.append(Stroke(path, colour(strand, colours), width, dashed, strand.group))
    if arrow and route.strands:
        x, y = route.points[-1]
        half = max(3.4, total / 2 + 1.2)
        main = max(route.strands, key=lambda strand: strand.scales)
        head = ((x - half, y - 5.5), (x + half, y - 5.5), (x, y - 0.2))
        marks.append(Shape(head, colour(main, colours), main.group))
    key = f"{number}"
    return Item("link", key, tuple(marks), title)


def colour(strand: Strand, colours: Mapping[int, str]) -> str:
    """The colour of a strand's group; grey where it is pinned."""
    return PINNED if strand.group is None else colours[strand.group]


def draw_box(index: int, box: Box, rect: Rect, colours: Mapping[int, str], title: str) -> Item:
    """A box with its name and operators."""
    ends = box.kind in {INPUT, OUTPUT}
    ink, quiet = ("#ffffff", "#cfd8dc") if ends else (INK, QUIET)
    marks: list[Mark] = list(_body(box, rect))
    if box.kind == JOIN:
        marks += _parts(box, rect.centre, rect.y + 13.2, colours, ink)
        return Item("box", f"{index}", tuple(marks), title)
    name = fitted(box.short or box.title, TITLE, rect.width - PAD, bold=True)
    marks.append(Text(rect.centre, rect.y + 14.5, name, TITLE, ink, bold=True, anchor="middle"))
    marks += _parts(box, rect.centre, rect.y + 28.0, colours, quiet)
    marks += _chips(box, rect, colours)
    return Item("box", f"{index}", tuple(marks), title)


def _body(box: Box, rect: Rect) -> Sequence[Block]:
    if box.kind in {INPUT, OUTPUT}:
        return [Block(rect.x, rect.y, rect.width, rect.height, rect.height / 2, DARK)]
    if box.kind == JOIN:
        return [Block(rect.x, rect.y, rect.width, rect.height, rect.height / 2, "#e9edf1", EDGE)]
    body = Block(rect.x, rect.y, rect.width, rect.height, 5, "#ffffff", EDGE, 1.0)
    if box.kind == MODULE:
        return [Block(rect.x + 3, rect.y + 3, rect.width, rect.height, 5, "#ffffff", EDGE, 1.0), body]
    return [body]


def _parts(box: Box, centre: float, base: float, colours: Mapping[int, str], ink: str) -> list[Mark]:
    """Operators in a line: a dot between them, or a bar in the colour of the group between two layers."""
    marks: list[Mark] = []
    x = centre - parts_width(box) / 2
    for number, part in enumerate(box.parts):
        if number:
            marks += _seam(part.seam, x + SEPARATOR / 2, base, colours)
            x += SEPARATOR
        if part.pins:
            marks += pin(x + PIN / 2 - 1, base, ink)
            x += PIN
        marks.append(Text(x, base, part.text, SMALL, ink))
        x += text_width(part.text, SMALL)
    return marks


def _seam(strands: Sequence[Strand], x: float, base: float, colours: Mapping[int, str]) -> list[Mark]:
    if not strands:
        return [Text(x, base, "·", SMALL, EDGE, bold=True, anchor="middle")]
    each = 10.0 / len(strands)
    return [
        Stroke(
            (("M", (x, base - 8.5 + i * each)), ("L", (x, base - 8.5 + (i + 1) * each))),
            colour(strand, colours),
            4.0,
            group=strand.group,
        )
        for i, strand in enumerate(strands)
    ]


def pin(x: float, base: float, ink: str) -> list[Mark]:
    """A small pin: an operator that pins the scales of its operands."""
    head = Block(x - 2.1, base - 7.4, 4.2, 4.2, 2.1, ink)
    return [Stroke((("M", (x, base - 4.0)), ("L", (x, base + 0.6))), ink, 1.0), head]


def _chips(box: Box, rect: Rect, colours: Mapping[int, str]) -> list[Mark]:
    """The groups inside a module as small squares."""
    groups = [strand for strand in box.inner if strand.group is not None]
    shown = groups[:_CHIPS]
    if not shown:
        return []
    rest = len(groups) - len(shown)
    more = f"+{rest}" if rest else ""
    width = 9.0 * len(shown) - 2 + (text_width(more, 7) + 3 if more else 0.0)
    x, y = rect.centre - width / 2, rect.y + 34.5
    marks: list[Mark] = []
    for number, strand in enumerate(shown):
        left = x + 9.0 * number
        path = (("M", (left, y + 3.5)), ("L", (left + 7, y + 3.5)))
        marks.append(Stroke(path, colour(strand, colours), 7.0, group=strand.group))
    if more:
        marks.append(Text(x + 9.0 * len(shown) + 1, y + 6.2, more, 7, QUIET))
    return marks
