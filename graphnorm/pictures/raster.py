"""Scenes as PNG, through matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from graphnorm.pictures.scene import Block, Mark, Scene, Shape, Text
from graphnorm.pictures.svg import DASH
from graphnorm.util.printable import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCALE = 2.0  # pixels per point
_MOST_PIXELS = 40_000_000  # 160 MB in memory; larger scenes are drawn at a lower resolution


def write_png(scene: Scene) -> bytes:
    """The whole picture as PNG."""
    scale = min(_SCALE, (_MOST_PIXELS / (scene.width * scene.height)) ** 0.5)
    buffer = io.BytesIO()
    _figure(scene).savefig(buffer, format="png", dpi=72 * scale, metadata={"Title": printable(scene.title)})
    return buffer.getvalue()


def _figure(scene: Scene) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(scene.width / 72, scene.height / 72), facecolor="white"
    )  # no pyplot: no global state
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(0, scene.width)
    axes.set_ylim(scene.height, 0)
    for order, mark in enumerate(mark for item in scene.items for mark in item.marks):
        _add(axes, mark, order)
    return figure


def _add(axes: Any, mark: Mark, order: int) -> None:
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path

    if isinstance(mark, Text):
        axes.text(
            mark.x, mark.y, printable(mark.text), fontsize=mark.size, color=mark.colour, zorder=order,
            fontweight="bold" if mark.bold else "normal", family="DejaVu Sans", parse_math=False,
            ha={"start": "left", "middle": "center", "end": "right"}[mark.anchor], va="baseline",
            rotation=90 if mark.upward else 0, rotation_mode="anchor",
        )  # fmt: skip
    elif isinstance(mark, Block):
        radius = min(mark.radius, mark.width / 2, mark.height / 2)
        style = f"round,pad=0,rounding_size={radius}"
        axes.add_patch(
            FancyBboxPatch(
                (mark.x, mark.y), mark.width, mark.height, boxstyle=style, facecolor=mark.fill, zorder=order,
                edgecolor=mark.stroke, linewidth=mark.line if mark.stroke != "none" else 0.0,
                linestyle=(0, (5, 4)) if mark.dashed else "solid",
            )
        )  # fmt: skip
    elif isinstance(mark, Shape):
        axes.add_patch(Polygon(mark.points, closed=True, facecolor=mark.fill, linewidth=0, zorder=order))
    else:
        codes = {"M": [Path.MOVETO], "L": [Path.LINETO], "Q": [Path.CURVE3, Path.CURVE3]}
        vertices = [values[i : i + 2] for _, values in mark.path for i in range(0, len(values), 2)]
        path = Path(vertices, [code for name, _ in mark.path for code in codes[name]])
        dash = (0, tuple(length / mark.width for length in DASH)) if mark.dashed else "solid"
        axes.add_patch(
            PathPatch(
                path, fill=False, edgecolor=mark.colour, linewidth=mark.width, capstyle="butt", zorder=order,
                linestyle=dash, joinstyle="round",
            )
        )  # fmt: skip
