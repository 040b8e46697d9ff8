"""Scenes as SVG: plain text, no library."""

from __future__ import annotations

import html

from graphnorm.pictures.scene import Block, Command, Item, Mark, Scene, Shape, Stroke
from graphnorm.util.printable import printable

FONT = "'DejaVu Sans', Verdana, 'Helvetica Neue', Arial, sans-serif"


def write_svg(scene: Scene) -> str:
    """The whole picture as one SVG document."""
    size = f'width="{scene.width:.0f}" height="{scene.height:.0f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
        f'viewBox="0 0 {scene.width:.1f} {scene.height:.1f}" font-family="{FONT}">',
        f"<title>{escape(scene.title)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *(line for item in scene.items for line in _item(item)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _item(item: Item) -> list[str]:
    title = f"<title>{escape(item.title)}</title>" if item.title else ""
    marks = [_mark(mark) for mark in item.marks]
    return [f'<g class="{item.kind}" data-key="{escape(item.key)}">{title}', *marks, "</g>"]


def _mark(mark: Mark) -> str:
    if isinstance(mark, Block):
        dash = ' stroke-dasharray="5 4"' if mark.dashed else ""
        line = f' stroke="{mark.stroke}" stroke-width="{mark.line:g}"' if mark.stroke != "none" else ""
        return (
            f'<rect x="{mark.x:.1f}" y="{mark.y:.1f}" width="{mark.width:.1f}" height="{mark.height:.1f}" '
            f'rx="{mark.radius:g}" fill="{mark.fill}"{line}{dash}/>'
        )
    if isinstance(mark, Stroke):
        dash = f' stroke-dasharray="{DASH[0]} {DASH[1]}"' if mark.dashed else ""
        return (
            f'<path d="{_path(mark.path)}" fill="none" stroke="{mark.colour}" '
            f'stroke-width="{mark.width:.2f}"{dash}{_group(mark.group)}/>'
        )
    if isinstance(mark, Shape):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
        return f'<polygon points="{points}" fill="{mark.fill}"{_group(mark.group)}/>'
    bold = ' font-weight="bold"' if mark.bold else ""
    anchor = f' text-anchor="{mark.anchor}"' if mark.anchor != "start" else ""
    turn = f' transform="rotate(-90 {mark.x:.1f} {mark.y:.1f})"' if mark.upward else ""
    return (
        f'<text x="{mark.x:.1f}" y="{mark.y:.1f}" font-size="{mark.size:g}" fill="{mark.colour}"'
        f"{bold}{anchor}{turn}>{escape(mark.text)}</text>"
    )


def escape(text: str) -> str:
    """Text for XML, which allows no control characters, not even escaped."""
    return html.escape(printable(text))


DASH = (6, 4)  # points, of degenerate strands


def _group(group: int | None) -> str:
    return "" if group is None else f' data-group="{group}"'


def _path(commands: tuple[Command, ...]) -> str:
    return " ".join(f"{name} {' '.join(f'{value:.1f}' for value in values)}" for name, values in commands)
