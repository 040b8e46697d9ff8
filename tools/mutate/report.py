"""Verdicts, as a table, as diffs and as plain values."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tools.mutate.sampling import Placed

KILLED, LATE, SURVIVED, UNTESTED = "killed", "killed by timeout", "survived", "no test"


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        placed: the mutant.
        outcome: ``killed``, ``killed by timeout``, ``survived``, or ``no test`` (none reaches it).
        tests: how many tests were chosen.
        by: the test that failed first; empty if none did, or on import.
    """

    placed: Placed
    outcome: str
    tests: int
    by: str = ""

    @property
    def is_killed(self) -> bool:
        return self.outcome in {KILLED, LATE}


def diff(placed: Placed, root: Path) -> str:
    """The change, as a unified diff."""
    before = (root / placed.module).read_text("utf-8")
    after = placed.mutant.apply(before)
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), placed.module, placed.module, n=2, lineterm=""
    )
    return "\n".join(lines)


def print_report(verdicts: Sequence[Verdict], root: Path) -> float:
    """Survivors, then counts by module; returns the percentage of killed ones."""
    console = Console(soft_wrap=True)
    for verdict in verdicts:
        if not verdict.is_killed:
            one = verdict.placed.mutant
            console.print(
                f"\n{verdict.outcome}, {verdict.tests} tests, {one.kind} in {one.function}", markup=False
            )
            console.print(diff(verdict.placed, root), markup=False, highlight=False)
    counts = Counter((v.placed.module, v.is_killed) for v in verdicts)
    table = Table("module", "killed", "of")
    for module in sorted({v.placed.module for v in verdicts}):
        killed = counts[module, True]
        table.add_row(module, str(killed), str(killed + counts[module, False]))
    console.print(table)
    killed = sum(v.is_killed for v in verdicts)
    score = 100.0 * killed / max(len(verdicts), 1)
    outcomes = ", ".join(f"{n} {name}" for name, n in sorted(Counter(v.outcome for v in verdicts).items()))
    console.print(f"{killed} of {len(verdicts)} killed ({score:.1f} %): {outcomes}", highlight=False)
    return score


def as_dict(verdicts: Sequence[Verdict], seed: int) -> dict[str, object]:
    killed = sum(v.is_killed for v in verdicts)
    return {
        "seed": seed,
        "count": len(verdicts),
        "killed": killed,
        "mutants": [
            {
                "module": v.placed.module, "line": v.placed.mutant.lineno,
                "function": v.placed.mutant.function,
                "kind": v.placed.mutant.kind, "was": v.placed.mutant.line, "becomes": v.placed.mutant.becomes,
                "outcome": v.outcome, "tests": v.tests, "by": v.by,
            }
            for v in verdicts
        ],
    }  # fmt: skip
