"""What the command lines of the judges share."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from tools.validation.judge import Verdict


def command_line(
    about: str, validate: Callable[[str, int, int], Verdict], known: Sequence[str],
    arguments: Sequence[str] | None,
) -> int:  # fmt: skip
    """Judge cases of operators and print what was found; returns the exit code, 1 if there are findings."""
    parser = argparse.ArgumentParser(description=about.partition("\n\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--op", nargs="+", metavar="NAME", choices=known, help="operators by name")
    what.add_argument("--all", action="store_true", help="every operator with cases")
    parser.add_argument("--seed", type=int, default=0, help="of the random cases (default 0)")
    parser.add_argument("--cases", type=int, default=8, help="cases an operator (default 8)")
    parser.add_argument("--case", type=int, help="only the case of this number")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all verdicts there")
    options = parser.parse_args(arguments)
    numbers = range(options.cases) if options.case is None else [options.case]
    chosen = known if options.all else options.op
    verdicts = judged(chosen, options.seed, numbers, validate)
    found = [verdict for verdict in verdicts if verdict.is_finding]
    console = Console(soft_wrap=True)
    for verdict in found:
        where = f"--op {verdict.op} --seed {verdict.seed} --case {verdict.index}"
        console.print(f"{verdict.kind}: {verdict.text}\n    {where}", markup=False, highlight=False)
    counts = ", ".join(f"{count} {kind}" for kind, count in Counter(v.kind for v in verdicts).items())
    console.print(f"{len(found)} findings in {len(verdicts)} cases of {len(chosen)} operators: {counts}")
    if options.json:
        options.json.write_text(json.dumps([asdict(v) for v in verdicts], indent=1) + "\n", encoding="utf-8")
    return int(bool(found))


def judged(
    chosen: Sequence[str], seed: int, numbers: Sequence[int], validate: Callable[[str, int, int], Verdict]
) -> list[Verdict]:
    """The verdict of each case."""
    torch.set_num_threads(1)
    with np.errstate(all="ignore"):
        return [
            validate(op, seed, index)
            for op in track(chosen, "validating", console=Console(stderr=True), transient=True)
            for index in numbers
        ]
