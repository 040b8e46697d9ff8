"""Operators and analyses: who has a rule for what, and why where there is none.

Filled from the registries themselves; `empty` lists the cells about which nobody has said anything, and the
tests want none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphnorm.errors import InputError
from graphnorm.ops.rules import Cell, Rules, said
from graphnorm.ops.table import TABLE
from graphnorm.ops.traits import Operator

if TYPE_CHECKING:
    from rich.table import Table

NAMED, BY_TRAIT, EMPTY = "●", "○", "?"


@dataclass(frozen=True, slots=True)
class Line:
    """An operator, and its cell of each analysis; None where nothing is said."""

    about: Operator
    cells: Mapping[str, Cell[Any] | None]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        about = self.about
        return {
            "operator": about.name,
            "heading": about.heading,
            "traits": said(about.traits).split(", ") if about.traits else [],
            "operands": list(about.operands),
            "since": about.since,
            "degree": None if about.degree is None else str(about.degree),
            "analyses": {name: _plain(cell) for name, cell in self.cells.items()},
        }


def registries() -> dict[str, Rules[Any]]:
    """The registry of each analysis, by the analysis' name."""
    from graphnorm.alignment import normal  # noqa: F401  # it brings the modules that fill the registry
    from graphnorm.alignment.lowering import LOWERINGS
    from graphnorm.fingerprint.paths import RULES as PATHS
    from graphnorm.frontends.routing.rows import HANDLERS as ROWS
    from graphnorm.permutation.rules import RULES as PERMUTATIONS
    from graphnorm.scales.backward import HANDLERS as BACKWARD
    from graphnorm.scales.rules.table import default_registry
    from graphnorm.verification.inputs.entry_rules import RULES as ENTRIES
    from graphnorm.verification.inputs.ranges import LIMITS

    found = (default_registry(), BACKWARD, PERMUTATIONS, LOWERINGS, PATHS, ROWS, ENTRIES, LIMITS)
    return {rules.analysis: rules for rules in found}


def matrix(operator: str | None = None, given: Mapping[str, Rules[Any]] | None = None) -> list[Line]:
    """The lines of the matrix, or that of one operator.

    Args:
        operator: its name in the table.
        given: the registries; by default those that graphnorm ships.

    Raises:
        InputError: the operator is not in the table.
    """
    if operator is not None and operator not in TABLE:
        raise InputError(f"{operator}: the table of operators has no such row")
    given = registries() if given is None else given
    rows = TABLE.values() if operator is None else [TABLE[operator]]
    return [Line(row, {name: rules.cell(row.name) for name, rules in given.items()}) for row in rows]


def empty(lines: Sequence[Line]) -> list[str]:
    """``analysis: operator`` for each cell about which nothing is said."""
    return [
        f"{name}: {line.about.name}" for line in lines for name, cell in line.cells.items() if cell is None
    ]


def matrix_table(lines: Sequence[Line]) -> Table:
    """Rules by name, rules by trait, and numbers of the reasons below."""
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(title="operators and analyses", title_justify="left", caption_justify="left")
    drawn.add_column("operator", overflow="fold")
    for name in lines[0].cells:
        drawn.add_column(name, justify="center", overflow="fold")
    numbers: dict[str, int] = {}
    for line in lines:
        marks = []
        for cell in line.cells.values():
            if cell is not None and cell.rule is None:
                marks.append(str(numbers.setdefault(cell.reason, len(numbers) + 1)))
            else:
                marks.append(EMPTY if cell is None else NAMED if cell.by is None else BY_TRAIT)
        drawn.add_row(line.about.name, *marks)
    reasons = [f"{number} {escape(reason)}" for reason, number in numbers.items()]
    drawn.caption = "\n".join([f"{NAMED} a rule, {BY_TRAIT} a rule by trait; none because:", *reasons])
    return drawn


def cell_lines(line: Line) -> Iterator[str]:
    """What the analyses know of one operator, in rich's markup."""
    from rich.markup import escape

    about = line.about
    yield f"[bold]{escape(about.name)}[/bold]  ({about.heading}): {escape(said(about.traits))}"
    for name, cell in line.cells.items():
        if cell is None:
            text = "nothing is said"
        elif cell.rule is None:
            text = f"none: {cell.reason}"
        else:
            text = "a rule of its own" if cell.by is None else f"the rule of what is {said(cell.by)}"
        yield f"  {escape(name)}: {escape(text)}"


def _plain(cell: Cell[Any] | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    by = "name" if cell.by is None else said(cell.by)
    return {"rule": cell.rule is not None, "by": by, "reason": cell.reason}
