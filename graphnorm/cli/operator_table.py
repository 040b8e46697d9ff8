"""The operator table: what every rule of the registry says, for people.

One row per family and signature; operators that keep everything that they touch have one row per reason.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from graphnorm.errors import InputError
from graphnorm.frontends.torch.overloads import lowered_from
from graphnorm.ops.table import TABLE
from graphnorm.scales.registry import Registry, Rule
from graphnorm.scales.rules.table import default_registry

FIXED = "fixed"
BEGIN, END = "<!-- operator-table -->", "<!-- end of operator-table -->"
_HEADINGS = ("family", "operators", "operands -> result")


@dataclass(frozen=True, slots=True)
class Row:
    """Operators that the same is said about; `reason` says why they are fixed, and is empty for others."""

    family: str
    operators: tuple[str, ...]
    signature: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything known about one operator.

    Attributes:
        operator: its name in the registry.
        family: heading in the table of operators.
        signature: the relation of operands, parameters and results.
        reason: why it is fixed, or how chains of causes name what it states.
        fixed: whether nothing that it touches may move.
        documentation: what the rule's function and its module say.
        like: other operators of the same rule.
        overloads: ATen overloads that PyTorch models bring it in by.
    """

    operator: str
    family: str
    signature: str
    reason: str
    fixed: bool
    documentation: str
    like: tuple[str, ...]
    overloads: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return asdict(self)


def rows(registry: Registry | None = None) -> list[Row]:
    """The table, in the order of the table of operators, fixed operators last."""
    registry = registry or default_registry()
    found: dict[tuple[str, str, str], list[str]] = {}
    for operator, about in TABLE.items():
        rule = registry.get(operator)
        if rule is not None:
            heading, reason = (FIXED, rule.reason) if rule.fixes else (about.heading, "")
            found.setdefault((heading, rule.signature, reason), []).append(operator)
    table = [Row(family, tuple(names), text, reason) for (family, text, reason), names in found.items()]
    return sorted(table, key=lambda row: row.family == FIXED)


def markdown(registry: Registry | None = None) -> str:
    """The README's table: of operators outside ONNX only the number, where they aren't the only ones."""
    table = rows(registry)
    outside = [row for row in table if row.reason and all("::" in name for name in row.operators)]
    lines = [
        [f"{row.family}: {row.reason}" if row.reason else row.family, _short(row.operators), row.signature]
        for row in table
        if row not in outside
    ]
    if outside:
        count = sum(len(row.operators) for row in outside)
        reasons = ", ".join(row.reason for row in outside)
        lines.append([f"{FIXED}: {reasons}", f"{count} outside ONNX", outside[0].signature])
    return "\n".join(map(_line, [_HEADINGS, ["---"] * len(_HEADINGS), *lines]))


def entries(name: str, registry: Registry | None = None) -> list[Entry]:
    """What is known about an operator, or about those that an ATen overload is made of.

    Args:
        name: ``Conv``, ``conv``, ``aten::conv2d``, ``conv2d.padding``...
        registry: the rules; by default those that graphnorm ships.

    Raises:
        InputError: no rule is for it.
    """
    registry = registry or default_registry()
    known = list(registry)
    found = [op for op in known if op == name] or [op for op in known if op.lower() == name.lower()]
    wanted = name.removeprefix("aten::")
    found = found or [
        operator
        for operator, overloads in lowered_from().items()
        if operator in known and any(wanted in (o, o.partition(".")[0]) for o in overloads)
    ]
    if not found:
        by_case = {operator.lower(): operator for operator in known}
        close = difflib.get_close_matches(name.lower(), by_case, n=4, cutoff=0.5)
        hint = f"; close names: {', '.join(by_case[text] for text in close)}" if close else ""
        raise InputError(
            f"{name}: there is no rule for this operator, so it pins everything that it touches{hint}"
        )
    return [_entry(operator, registry) for operator in found]


def replace_table(text: str, table: str) -> str:
    """A document with the part between the two markers replaced.

    Raises:
        InputError: the markers are missing.
    """
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise InputError(f"the document has nothing between {BEGIN} and {END}")
    return pattern.sub(lambda _: f"{BEGIN}\n{table}\n{END}", text, count=1)


def _entry(operator: str, registry: Registry) -> Entry:
    rule = registry[operator]
    like = tuple(other for other in TABLE if other != operator and registry.get(other) is rule)
    return Entry(
        operator,
        TABLE[operator].heading,
        rule.signature,
        rule.reason,
        rule.fixes,
        _documentation(rule),
        like,
        lowered_from().get(operator, ()),
    )


def _documentation(rule: Rule) -> str:
    """The docstring of the rule's function (or of the function that made it), then of its module."""
    function = rule.apply
    module = sys.modules[function.__module__]
    maker = getattr(module, function.__qualname__.partition(".")[0], None)
    own = inspect.getdoc(function) or (inspect.getdoc(maker) if inspect.isfunction(maker) else None)
    parts = [own, inspect.getdoc(module)]
    return "\n\n".join(part for part in parts if part)


def _short(operators: Iterable[str]) -> str:
    names = list(operators)
    standard = [name for name in names if "::" not in name]
    more = len(names) - len(standard)
    if not standard or not more:
        return ", ".join(f"`{name}`" if "::" in name else name for name in names)
    return f"{', '.join(standard)} and {more} outside ONNX"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
