"""Shapes of a picture, independent of what draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from graphnorm.pictures.strip_layout import Point

Command = tuple[str, tuple[float, ...]]
"""``M x y``, ``L x y`` or ``Q cx cy x y``."""


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle with round corners."""

    x: float
    y: float
    width: float
    height: float
    radius: float
    fill: str
    stroke: str = "none"
    line: float = 1.0
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line."""

    path: tuple[Command, ...]
    colour: str
    width: float
    dashed: bool = False
    group: int | None = None  # channel group, for the page


@dataclass(frozen=True, slots=True)
class Shape:
    """A filled polygon."""

    points: tuple[Point, ...]
    fill: str
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text; `x` is its start, middle or end, `y` its base line."""

    x: float
    y: float
    text: str
    size: float
    colour: str = "#1f2933"
    bold: bool = False
    anchor: str = "start"
    upward: bool = False  # turned to the left


Mark = Block | Stroke | Shape | Text


@dataclass(frozen=True, slots=True)
class Item:
    """Marks that belong together: a box, a link, the legend.

    Attributes:
        kind: class of the item, ``box``, ``link``, ``frame``, ``legend``.
        key: which one.
        title: tooltip.
    """

    kind: str
    key: str
    marks: tuple[Mark, ...]
    title: str = ""


@dataclass(slots=True)
class Scene:
    """A picture."""

    width: float
    height: float
    items: list[Item] = field(default_factory=list)
    title: str = ""


def rounded(points: Sequence[Point], radius: float) -> tuple[Command, ...]:
    """A line through `points` with round corners."""
    commands: list[Command] = [("M", points[0])]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        r = min(radius, math.dist(before, corner) / 2, math.dist(corner, after) / 2)
        commands.append(("L", _toward(corner, before, r)))
        commands.append(("Q", (*corner, *_toward(corner, after, r))))
    commands.append(("L", points[-1]))
    return tuple(commands)


def parallel(points: Sequence[Point], offset: float) -> tuple[Point, ...]:
    """A right-angled line moved sideways by `offset` (to the left of its direction)."""
    normals = [_normal(a, b) for a, b in pairwise(points)]
    moved = []
    for i, (x, y) in enumerate(points):
        before, after = normals[max(0, i - 1)], normals[min(i, len(normals) - 1)]
        if before == after:
            moved.append((x + offset * before[0], y + offset * before[1]))
        else:
            moved.append((x + offset * (before[0] + after[0]), y + offset * (before[1] + after[1])))
    return tuple(moved)


def _normal(a: Point, b: Point) -> Point:
    length = math.dist(a, b) or 1.0
    return ((b[1] - a[1]) / length, -(b[0] - a[0]) / length)


def _toward(start: Point, end: Point, distance: float) -> Point:
    length = math.dist(start, end) or 1.0
    t = distance / length
    return (start[0] + (end[0] - start[0]) * t, start[1] + (end[1] - start[1]) * t)
