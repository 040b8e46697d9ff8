"""The table of layers: what each may do, and what ties or pins it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from graphnorm.cli.folding import patterns, shape
from graphnorm.util.printable import printable, shortened

if TYPE_CHECKING:
    from graphnorm.explain import Layer, Side

COLOURS = {"free": "green", "tied": "green", "partly": "yellow", "degenerate": "magenta", "pinned": "red"}
_MOST = 2  # names that a cell lists
_WIDE = 110  # width of a screen with room for the operators
_FOLD_ABOVE = 12  # layers up to which each has its own line


def layer_table(layers: Sequence[Layer], full: bool, width: int) -> Table:
    """One line per layer, or per range of layers that are alike; `width` is that of the screen."""
    fold = not full and len(layers) > _FOLD_ABOVE
    rows = folded(layers) if fold else [[layer] for layer in layers]
    table = Table(title="layers with weights", title_justify="left")
    table.add_column("layer", no_wrap=True)
    headings = ("operator", "output channels", "input channels")[width < _WIDE :]
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for members in rows:
        name = "\n".join(
            _broken(shortened(printable(pattern)), width // 3)
            for pattern in patterns(x.name for x in members)
        )
        count = f"  ×{len(members)}" if len(members) > 1 else ""
        outputs = [layer.output for layer in members]
        inputs = [layer.input for layer in members]
        cells = (members[0].op, side_text(outputs), side_text(inputs))
        table.add_row(escape(name) + count, *cells[-len(headings) :])
    if len(rows) < len(layers):
        table.caption = "Layers that are alike share a line; --all gives each its own."
    return table


def folded(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Layers whose names differ in numbers, of one operator, status and kind of cause."""
    alike: dict[tuple[str, ...], list[Layer]] = {}
    for layer in layers:
        key = (shape(layer.name), layer.op, *_kind(layer.output), *_kind(layer.input))
        alike.setdefault(key, []).append(layer)
    return list(alike.values())


def _kind(side: Side) -> tuple[str, ...]:
    pin = side.pinned_by
    cause = (pin.op, shape(pin.node), pin.reason) if pin else ("", "", "")
    return (side.status, *cause, "; ".join(side.degenerate))


def side_text(sides: Sequence[Side]) -> str:
    """What the output or input channels of one layer, or of layers that are alike, may do."""
    side = sides[0]
    if side.status == "none":
        return "–"
    channels, free = _range([x.channels for x in sides]), _range([x.free for x in sides])
    tied = f" with {_names([name for x in sides for name in x.tied])}" if side.tied else ""
    text = {
        "pinned": "pinned",
        "partly": f"{free} of {channels} free{', tied' + tied if tied else ''}; the rest pinned",
        "tied": f"{free} tied{tied}",
    }.get(side.status, f"{free} {side.status}")
    said = f"[{COLOURS[side.status]}]{escape(text)}[/]"
    if side.pinned_by:
        nodes = _names([x.pinned_by.node for x in sides if x.pinned_by])
        said += escape(f" by {replace(side.pinned_by, node=nodes)}")
    if side.degenerate:
        known = Counter({reason: 0 for x in sides for reason in x.degenerate})
        for x in sides:
            known.update(x.degenerate)
        lines = [
            reason if n == sum(x.free for x in sides) else f"{reason} ({n})" for reason, n in known.items()
        ]
        said += escape(f"; no minimum: {', '.join(lines)}")
    return said


def status_counts(layers: Sequence[Layer]) -> str:
    """How many layers have which status."""
    counts = Counter(str(layer.status) for layer in layers)
    said = {"partly": "pinned in part"}
    return ", ".join(f"{counts[status]} {said.get(status, status)}" for status in COLOURS if counts[status])


def _broken(name: str, width: int) -> str:
    """A long name on several lines, broken after dots and slashes where there are some."""
    lines = []
    while len(name) > width:
        cut = max(name.rfind(mark, 1, width) for mark in "./")
        cut = width if cut < 0 else cut + 1
        lines.append(name[:cut])
        name = "  " + name[cut:]
    return "\n".join([*lines, name])


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}–{high}"


def _names(names: Sequence[str]) -> str:
    found = patterns(names)
    more = f" + {len(found) - _MOST} more" if len(found) > _MOST else ""
    return ", ".join(found[:_MOST]) + more
