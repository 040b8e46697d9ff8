"""Validate every rule, operator by operator, against what the operator does to numbers.

`python tools/validate_rules.py --all`, or `--op NAME ...`; `--judge` asks another judge of the same cases.

For random shapes, attributes and signed operands, every entry of each operand and of each result gets a
scale of its own, or one scale along an axis.  The rescalings that the rules allow must keep the results
(else: claimed but false), and all that keep them must be allowed (else: true but missing), up to the
documented exceptions in `tools/validation/exceptions.py`.  Exit code 1 if there are findings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from graphnorm.scales.registry import Registry
from graphnorm.scales.rules.table import default_registry
from tools.validation import execution, normal_form, permutations
from tools.validation.judge import Verdict, operators, validate
from tools.validation.report import as_dict, reasons, table, write_reproducer

JUDGES: dict[str, Callable[[Sequence[str]], int]] = {
    "permutations": permutations.main,
    "normal_form": normal_form.main,
    "execution": execution.main,
}
"""Other judges of the same cases, each with its own report."""


def main(arguments: Sequence[str] | None = None, registry: Registry | None = None) -> int:
    """Run the command line; returns the exit code."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--judge", choices=["scales", *JUDGES], default="scales", help="(default scales)")
    judge, arguments = first.parse_known_args(arguments)
    if judge.judge != "scales":
        return JUDGES[judge.judge](arguments)
    parser = argparse.ArgumentParser(
        parents=[first], description=__doc__.partition("\n\n")[0] if __doc__ else ""
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--op", nargs="+", metavar="NAME", help="operators by name, such as Conv or aten::atan2"
    )
    what.add_argument("--all", action="store_true", help="every operator with a rule or with cases")
    parser.add_argument("--seed", type=int, default=0, help="of the random cases (default 0)")
    parser.add_argument("--cases", type=int, default=8, help="cases an operator (default 8)")
    parser.add_argument("--case", type=int, help="only the case of this number")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write findings and counts there")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write a reproducer of each finding there")
    options = parser.parse_args(arguments)
    registry = registry or default_registry()
    known = operators(registry)
    chosen = known if options.all else options.op
    if strange := [op for op in chosen if op not in known]:
        parser.error(f"no rule and no cases for {', '.join(strange)}")
    numbers = range(options.cases) if options.case is None else [options.case]
    verdicts = run(chosen, options.seed, numbers, registry)
    print_verdicts(verdicts, registry, options.out)
    if options.json:
        options.json.write_text(json.dumps(as_dict(verdicts), indent=1) + "\n", encoding="utf-8")
    return int(any(verdict.is_finding for verdict in verdicts))


def run(chosen: Sequence[str], seed: int, numbers: Sequence[int], registry: Registry) -> list[Verdict]:
    """The verdict of each case; an operator without cases has one."""
    torch.set_num_threads(1)
    verdicts: list[Verdict] = []
    with np.errstate(all="ignore"):
        for op in track(chosen, "validating", console=Console(stderr=True), transient=True):
            for index in numbers:
                verdicts.append(validate(op, seed, index, registry))
                if verdicts[-1].kind in {"exempt", "not validated"}:
                    break
    return verdicts


def print_verdicts(verdicts: Sequence[Verdict], registry: Registry, folder: Path | None) -> None:
    """The table, then each finding with the command that shows it again."""
    console = Console()
    console.print(table(verdicts, registry))
    for number, reason in enumerate(reasons(verdicts), 1):
        console.print(f"note {number}, missing on purpose or not validated: {reason}", highlight=False)
    findings = [verdict for verdict in verdicts if verdict.is_finding]
    for finding in findings:
        console.print(f"{finding.kind}: {finding.op}: {finding.text}", markup=False, highlight=False)
        console.print(f"    {finding.command}", markup=False, highlight=False)
        if folder:
            console.print(f"    {write_reproducer(finding, folder)}", markup=False, highlight=False)
    count = len({verdict.op for verdict in verdicts})
    console.print(f"{len(findings)} findings in {len(verdicts)} cases of {count} operators")


if __name__ == "__main__":
    sys.exit(main())
