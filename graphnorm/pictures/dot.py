"""Flows as Graphviz text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphnorm.pictures.details import BoxNote, View
from graphnorm.pictures.flow import INPUT, JOIN, MODULE, OUTPUT, Box, Link
from graphnorm.pictures.measure import strand_width
from graphnorm.pictures.paint import DARK, colour
from graphnorm.util.printable import printable

_SHAPES = {INPUT: "oval", OUTPUT: "oval", JOIN: "ellipse", MODULE: "box3d"}


def write_dot(view: View, colours: Mapping[int, str], title: str) -> str:
    """The picture for Graphviz: ``dot -Tsvg graph.dot``; colours and widths as in the other formats."""
    flow = view.flow
    lines = [
        f"digraph {quoted(title)} {{",
        f'  graph [label={quoted(title)}, labelloc=t, fontname="Helvetica", rankdir=TB];',
        '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="Helvetica", fontsize=10];',
        '  edge [fontname="Helvetica", fontsize=8, arrowsize=0.6];',
        *(
            f"  {_node(i, box, note)}"
            for i, (box, note) in enumerate(zip(flow.boxes, view.boxes, strict=True))
        ),
    ]
    for number, frame in enumerate(flow.frames):
        members = " ".join(f"b{i};" for i in range(frame.first, frame.last + 1))
        label = quoted(f"{frame.title} ×{frame.count}".strip())
        lines.append(f"  subgraph cluster_{number} {{ label={label}; style=dashed; {members} }}")
    lines += [f"  {_edge(k, note, colours)}" for k, note in zip(flow.links, view.links, strict=True)]
    return "\n".join([*lines, "}"]) + "\n"


def _node(index: int, box: Box, note: BoxNote) -> str:
    parts = " · ".join(f"{'⚲ ' if part.pins else ''}{part.text}" for part in box.parts)
    label = parts if box.kind == JOIN else f"{box.title}\n{parts}"
    extra = f", shape={_SHAPES[box.kind]}" if box.kind in _SHAPES else ""
    if box.kind in {INPUT, OUTPUT}:
        extra += f', fillcolor="{DARK}", fontcolor=white'
    return f"b{index} [label={quoted(label)}, tooltip={quoted(note.text())}{extra}];"


def _edge(link: Link, note: Sequence[str], colours: Mapping[int, str]) -> str:
    colour_list = ":".join(colour(strand, colours) for strand in link.strands)
    width = max((strand_width(strand) for strand in link.strands), default=1.0)
    dashed = link.strands and all(s.degenerate and s.degenerate == s.scales for s in link.strands)
    style = ", style=dashed" if dashed else ""
    text = quoted("\n".join(note))
    return (
        f'b{link.source} -> b{link.target} [color="{colour_list}", penwidth={width:.1f}, '
        f"edgetooltip={text}{style}];"
    )


def quoted(text: str) -> str:
    r"""A Graphviz string: backslashes and quotes escaped, lines as ``\n``."""
    escaped = printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
