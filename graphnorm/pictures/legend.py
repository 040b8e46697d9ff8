"""Heading and legend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from graphnorm.pictures.colours import PINNED, group_layers
from graphnorm.pictures.flow import Flow
from graphnorm.pictures.measure import fitted, text_width
from graphnorm.pictures.paint import INK, QUIET, pin
from graphnorm.pictures.scene import Item, Mark, Stroke, Text
from graphnorm.pictures.wording import plain_name
from graphnorm.rescaling.graph import RescalingGraph

HEADING = 46.0  # points
_ROW, _SIZE = 17.0, 8.5
_MOST_GROUPS = 12  # more colours cannot be told apart
_COLUMN = 360.0


def heading(title: str, facts: str, width: float) -> Item:
    """The model, and how much of it can be rescaled."""
    name = fitted(title, 15, width - 28, bold=True)
    lines = (Text(14, 22, name, 15, INK, bold=True), Text(14, 38, fitted(facts, 9, width - 28), 9, QUIET))
    return Item("legend", "heading", lines)


def facts(graph: RescalingGraph, flow: Flow) -> str:
    """The rescaling graph in one line."""
    moved = len({demand.weight for demand in graph.movable()})
    return (
        f"{graph.dimension:,} independent rescalings in {len(graph.groups):,} channel groups; "
        f"{moved:,} of {len(graph.network.weights):,} weight tensors move; {flow.view}"
    )


def least_width(facts: str) -> float:
    """The width in which the heading is legible."""
    return text_width(facts, 9) + 28


class Legend:
    """What colours and marks mean, and the groups that several layers share."""

    def __init__(self, graph: RescalingGraph, flow: Flow, colours: Mapping[int, str], width: float) -> None:
        self.graph, self.colours, self.width = graph, colours, width
        self._rows = self._signs(flow) + self._groups(flow)
        longest = max(text_width(text, _SIZE) for _, text in self._rows) + 42
        self.columns = max(1, int((width - 28) // min(longest, _COLUMN)))

    @property
    def height(self) -> float:
        return _ROW * (-(-len(self._rows) // self.columns)) + 20.0

    def item(self, top: float) -> Item:
        marks: list[Mark] = [Stroke((("M", (14.0, top)), ("L", (self.width - 14.0, top))), "#d5dae0", 1.0)]
        lines = -(-len(self._rows) // self.columns)
        each = (self.width - 28) / self.columns
        for number, (sign, text) in enumerate(self._rows):
            x, y = 14 + each * (number // lines), top + 18 + _ROW * (number % lines)
            marks += self._sign(sign, x, y)
            marks.append(Text(x + 34, y, fitted(text, _SIZE, each - 42), _SIZE, INK))
        return Item("legend", "key", tuple(marks))

    def _sign(self, sign: str | int, x: float, y: float) -> list[Mark]:
        path = (("M", (x, y - 3)), ("L", (x + 26, y - 3)))
        if isinstance(sign, int):
            return [Stroke(path, self.colours[sign], 7.0, group=sign)]
        if sign == "pin":
            return pin(x + 13, y, INK)
        if sign == "seam":
            bar = (("M", (x + 13, y - 8.5)), ("L", (x + 13, y + 1.5)))
            return [Stroke(bar, next(iter(self.colours.values()), PINNED), 4.0)]
        if sign == "dashed":
            return [Stroke(path, next(iter(self.colours.values()), PINNED), 5.0, dashed=True)]
        if sign == "widths":
            return [
                Stroke((("M", (x + 9 * i, y - 3)), ("L", (x + 9 * i + 8, y - 3))), QUIET, w)
                for i, w in enumerate((2.0, 5.0, 9.0))
            ]
        return [] if sign == "more" else [Stroke(path, PINNED, 5.0)]

    def _signs(self, flow: Flow) -> list[tuple[str | int, str]]:
        strands = [s for link in flow.links for s in link.strands]
        rows: list[tuple[str | int, str]] = [("grey", "pinned: these channels cannot be rescaled")]
        rows.append(("pin", f"fixes scales{self._causes()}"))
        rows.append(("widths", "thickness: logarithm of the number of scales"))
        if any(part.seam for box in flow.boxes for part in box.parts):
            rows.append(("seam", "group between two layers of one box"))
        if any(s.degenerate and s.degenerate == s.scales for s in strands):
            rows.append(("dashed", "degenerate: no minimum, left as it is"))
        return rows

    def _causes(self) -> str:
        nodes: dict[str, set[str]] = {}
        for cause in self.graph.pins:
            nodes.setdefault(plain_name(cause.op), set()).add(cause.node)
        found = Counter({op: len(where) for op, where in nodes.items()}).most_common(3)
        return ": " + ", ".join(f"{op} ×{n}" for op, n in found) if found else ""

    def _groups(self, flow: Flow) -> list[tuple[str | int, str]]:
        """Groups that several layers write, the most tied first."""
        writers, _ = group_layers(self.graph)
        shown = set(flow.groups())
        shared = [g for g in self.graph.groups if g.index in shown and len(writers[g.index]) > 1]
        shared.sort(key=lambda g: (-len(writers[g.index]), g.index))
        rows: list[tuple[str | int, str]] = []
        for group in shared[:_MOST_GROUPS]:
            names = [name.removesuffix(".weight") for name in writers[group.index]]
            rows.append((group.index, f"{len(group.variables):,} scales tied: {_listed(names)}"))
        if len(shared) > _MOST_GROUPS:
            rows.append(("more", f"and {len(shared) - _MOST_GROUPS} more groups that several layers share"))
        return rows


def _listed(names: Sequence[str]) -> str:
    """As many names as a line holds."""
    shown = len(names)
    while shown > 1 and text_width(", ".join(names[:shown]), _SIZE) > _COLUMN - 160:
        shown -= 1
    rest = f" and {len(names) - shown} more" if shown < len(names) else ""
    return ", ".join(names[:shown]) + rest
