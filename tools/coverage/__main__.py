"""Which architectures graphnorm takes: ``python -m tools.coverage``.

Builds, exports and traces each model, applies a random rescaling and compares the outputs.  Every model has
a process of its own; results are appended to a JSON-lines file as they come.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.coverage.document import REFUSED, markdown
from tools.coverage.records import FAMILIES, Record, append, read, to_dict, write
from tools.coverage.workers import Limits, Task, run_all

DEFAULT = Limits()
ROOT = Path(__file__).resolve().parents[2]


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(prog="python -m tools.coverage", description=__doc__)
    found.add_argument("--family", action="append", choices=FAMILIES, help="only this family (repeatable)")
    found.add_argument("--only", default="", metavar="PATTERN", help="regular expression in family:name")
    found.add_argument("--onnx", nargs="+", type=Path, default=[], metavar="FILE", help="ONNX files")
    found.add_argument("--onnx-folder", type=Path, metavar="FOLDER", help="every .onnx file below it")
    found.add_argument("--lines", type=Path, default=ROOT / "build" / "coverage.jsonl", metavar="PATH")
    found.add_argument("--resume", action="store_true", help="run only what has no result in --lines")
    found.add_argument("--retry", action="store_true", help="with --resume: run failed models again")
    found.add_argument("--json", type=Path, metavar="PATH", help="also write all results as one document")
    found.add_argument(
        "--write-docs", action="store_true", help="write docs/coverage.* from --lines; run nothing"
    )
    found.add_argument("--docs", type=Path, default=ROOT / "docs", metavar="FOLDER")
    found.add_argument("--workers", type=int, default=DEFAULT.workers)
    found.add_argument("--seconds", type=float, default=DEFAULT.seconds, help="time limit of a model")
    found.add_argument("--gigabytes", type=float, default=DEFAULT.gigabytes, help="memory limit of a model")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every model is preserved, or refused by torch.export; 1: some are not."""
    options = parser().parse_args(arguments)
    if not options.write_docs:
        run(options)
    records = read(options.lines)
    document = json.dumps(to_dict(records), indent=1) + "\n"
    if options.json:
        options.json.write_text(document, encoding="utf-8")
    if options.write_docs:
        (options.docs / "coverage.json").write_text(document, encoding="utf-8")
        (options.docs / "coverage.md").write_text(markdown(records), encoding="utf-8")
    return int(any(record.outcome not in ("preserved", REFUSED) for record in records))


def run(options: argparse.Namespace) -> None:
    """Run what the options ask for, and print what is not preserved."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch and NumPy load, which they do below
    from tools.coverage.catalogue import LIBRARIES, tasks

    families = options.family or ([] if options.onnx else FAMILIES)
    folder = options.onnx_folder if "onnx" in families else None
    chosen = tasks([f for f in LIBRARIES if f in families], options.onnx, folder, options.only)
    options.lines.parent.mkdir(parents=True, exist_ok=True)
    known = {(record.family, record.name): record for record in read(options.lines)}
    if options.resume:
        done = {key for key, record in known.items() if record.outcome == "preserved" or not options.retry}
        chosen = [task for task in chosen if (task[0].family, task[0].name) not in done]
    for record, _ in chosen:
        known.pop((record.family, record.name), None)
    write(options.lines, known.values())
    show(chosen, options)


def show(chosen: Sequence[Task], options: argparse.Namespace) -> None:
    """Run tasks under a progress bar, which no thread refreshes: forked processes would inherit it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    log = options.lines.with_suffix(".log")
    limits = Limits(options.workers, options.seconds, options.gigabytes, log)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, auto_refresh=False) as progress:
        bar = progress.add_task("", total=len(chosen))
        for record in run_all(chosen, limits, progress.refresh):
            append(options.lines, record)
            progress.update(bar, advance=1, description=f"{record.family}:{record.name}")
            if record.outcome != "preserved":
                progress.console.print(line(record), markup=False, highlight=False, soft_wrap=True)


def line(record: Record) -> str:
    """What a person wants to know while it runs."""
    why = record.error or (record.unknown if record.preserved else f"difference {record.difference:.1e}")
    return f"{record.family}:{record.name}: {record.outcome}: {why}"


if __name__ == "__main__":
    sys.exit(main())
