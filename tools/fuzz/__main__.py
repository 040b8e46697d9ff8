"""Damage ONNX files and run graphnorm on them: `python -m tools.fuzz [FILE ...] --count 5000 --keep FOLDER`.

Without files, small models of the tool itself are damaged.  Prints a histogram of exit codes, and every
mutant that hangs, takes too much memory, or ends with another exit code than 0, 1 or 2 (exit code 1 then);
`--keep` stores these.  A number and a seed give the same mutant again: `--start NUMBER --count 1`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tools.fuzz.run import Finding, Limits, run
from tools.fuzz.seeds import seeds


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse arguments, run, report; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="models to damage")
    parser.add_argument("--count", type=int, default=1000, help="number of mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit of one command")
    parser.add_argument("--megabytes", type=float, default=1000.0, help="limit of resident memory")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="store mutants that failed")
    options = parser.parse_args(arguments)
    given = {path.name: path.read_bytes() for path in options.files}
    models = given or {name: model.SerializeToString() for name, model in seeds().items()}
    limits = Limits(options.seconds, options.megabytes)
    codes: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    longest, most = 0.0, 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for found in run(models, options.count, folder, limits, options.seed, options.start):
            codes["hang" if found.outcome.late else str(found.outcome.code)] += 1
            longest = max(longest, found.outcome.seconds)
            most = max(most, found.outcome.megabytes)
            fault = found.fault(limits)
            if fault:
                faults[fault] += 1
                print(describe(found, fault), flush=True)
                if options.keep is not None:
                    keep(found, folder, options.keep)
    print(f"{sum(codes.values())} mutants; exit codes {dict(sorted(codes.items()))}; faults {dict(faults)}")
    print(f"longest {longest:.1f} s, most memory {most:.0f} MB")
    return 1 if faults else 0


def describe(found: Finding, fault: str) -> str:
    """One line about a mutant that failed."""
    lines = [line.strip() for line in found.outcome.output.splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if not line.startswith("error: this is a defect")), "")
    place = next((line for line in reversed(lines) if line.startswith("File ")), "")
    return (
        f"{found.number} ({found.seed}, {found.command}): {fault} after {found.outcome.seconds:.1f} s, "
        f"{found.outcome.megabytes:.0f} MB: {place.rpartition('graphnorm/')[2]} {said[:200]}"
    )


def keep(found: Finding, folder: Path, store: Path) -> None:
    """Copy the mutant and what was said about it."""
    store.mkdir(parents=True, exist_ok=True)
    (store / f"{found.number}.onnx").write_bytes((folder / "m.onnx").read_bytes())
    (store / f"{found.number}.log").write_text(found.outcome.output, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
