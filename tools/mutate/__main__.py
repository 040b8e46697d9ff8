"""Plant small errors, run the nearest tests: `python -m tools.mutate --count 200 --seed 0 [--room scales]`.

Mutants are made in copies of the tree.  Each runs the tests that reach its line, quickest first, until one
fails (killed) or `--budget` seconds of tests have passed (survived); one that hangs is killed by its limit.
Prints the score, and each survivor as a diff; exit code 1 if fewer than `--goal` percent are killed.

State is kept under `--work` (default .mutate): a run that is stopped goes on where it was.  `--again` tries
survivors once more, after tests were added.  Mutants that compute the same are listed, with the reason, in
tools/mutate/equivalent.toml and left out of the sample.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tools.mutate.report import as_dict, print_report
from tools.mutate.run import Plan, run
from tools.mutate.sampling import ROOMS, all_mutants, equivalents, modules, reason, sample

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    root: Path = options.root.resolve()
    work = options.work or root / ".mutate"
    console = Console(stderr=True)
    try:
        names = modules(root, options.room)
    except FileNotFoundError as error:
        console.print(f"error: {error}", markup=False)
        return 2
    known = equivalents(options.equivalent) if options.equivalent else equivalents()
    every = all_mutants(root, names)
    chosen = sample((one for one in every if not reason(one, known)), options.count, options.seed)
    if options.function:
        chosen = [one for one in chosen if one.mutant.function in options.function]
    console.print(f"{len(chosen)} of {len(every)} mutants in {len(names)} modules", highlight=False)
    if options.list:
        for one in chosen:
            print(f"{one.module}:{one.mutant.lineno} {one.mutant.kind}: {one.mutant.becomes}")
        return 0
    plan = Plan(
        root, work, options.test or _default_tests(root), options.budget, options.workers, options.again,
        options.bare,
    )  # fmt: skip
    verdicts = run(plan, chosen, modules(root, ROOMS) if root == ROOT else names, console)
    if options.json:
        options.json.write_text(
            json.dumps(as_dict(verdicts, options.seed), indent=1) + "\n", encoding="utf-8"
        )
    score = print_report(verdicts, root)
    return int(score < options.goal)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.mutate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=200, help="mutants in the sample (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default 0)")
    parser.add_argument("--room", nargs="+", default=ROOMS, metavar="ROOM", help="folders or modules")
    parser.add_argument("--function", nargs="+", metavar="NAME", help="only the sample's mutants in these")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of tests for one mutant")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="try survivors of earlier runs once more")
    parser.add_argument("--goal", type=float, default=95.0, help="percent that must be killed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts there")
    parser.add_argument("--list", action="store_true", help="print the sample and end")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="copies, records of tests, verdicts")
    parser.add_argument("--test", nargs="+", metavar="FILE", help="test files (default: all)")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree (default: this one)")
    parser.add_argument("--equivalent", type=Path, metavar="FILE", help="instead of the tool's list")
    parser.add_argument("--bare", action="store_true", help="import no library before the forks")
    return parser


def _default_tests(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in (root / "tests").rglob("test_*.py"))


if __name__ == "__main__":
    sys.exit(main())
