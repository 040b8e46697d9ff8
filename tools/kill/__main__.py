"""Kill ``canonicalize`` while it replaces a result: ``python -m tools.kill --runs 100``.

A run is killed before each of its touches of the file system in turn, and at random times.  Afterwards the
result must be the old one or the new one, whole; inputs must be as they were; after SIGTERM and SIGINT no
temporary file may be left; and the next run must work with whatever is left.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.kill.child import run
from tools.kill.scene import KINDS, NEW, OLD, Kind, build, command, hashes, temporaries, weights

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: nothing was lost or mixed; 1: something was, and is printed."""
    found = argparse.ArgumentParser(prog="python -m tools.kill", description=__doc__)
    found.add_argument("--runs", type=int, default=100)
    found.add_argument("--seed", type=int, default=0, help="of the random times")
    options = found.parse_args(arguments)
    counts: Counter[str] = Counter()
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as base:
        stages = [_Stage(Path(base).resolve() / str(i), kind) for i, kind in enumerate(KINDS)]
        planned = _plan(stages, random.Random(options.seed))
        for _ in range(options.runs):
            stage, moment, number, after = next(planned)
            result, wrong = stage.killed(moment, number, after)
            counts[f"{number.name}: {result}"] += 1
            when = f"after {after:.3f} s" if after is not None else f"before touch {moment}"
            problems += [f"{stage.kind}, {number.name} {when}: {problem}" for problem in wrong]
    for name, count in sorted(counts.items()):
        print(f"{count:5d} {name}")
    for problem in problems:
        print(f"PROBLEM {problem}", file=sys.stderr)
    return int(bool(problems))


class _Stage:
    """One kind of folder, with its two results."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.kind, self._folder, self._fresh = kind, folder / "run", folder / "fresh"
        self._fresh.mkdir(parents=True)
        build(self._fresh, kind.external_result)
        self._must_end(self._fresh, 2)
        (self._fresh / "in.onnx").unlink()
        (self._fresh / "in.bin").unlink(missing_ok=True)
        build(self._fresh, kind.external_input)
        self._inputs = [path.name for path in self._fresh.iterdir() if path.name.startswith("in.")]
        self._before = hashes(self._fresh, self._inputs)
        self._results = {weights(self._fresh / "out.onnx"): OLD}
        self._reset()
        start = time.perf_counter()
        self.moments = self._must_end(self._folder, 1)
        self.seconds = time.perf_counter() - start
        self._results[weights(self._folder / "out.onnx")] = NEW
        if len(self._results) != 2:
            raise RuntimeError("old and new result are the same: nothing could be told apart")

    def killed(self, moment: int, number: signal.Signals, after: float | None) -> tuple[str, list[str]]:
        """Which result is there after a kill, and what is wrong."""
        self._reset()
        code, _ = run(self._folder, command(1), moment, number, after)
        held = weights(self._folder / "out.onnx")
        result = self._results.get(held, "mixed")
        problems = [] if result != "mixed" else [f"neither the old nor the new result ({held})"]
        if hashes(self._folder, self._inputs) != self._before:
            problems.append("an input file has changed")
        left = temporaries(self._folder)
        if number != signal.SIGKILL and left:
            problems.append(f"temporary files are left ({', '.join(left)})")
        if code == 0 and result != NEW:
            problems.append("exit code 0 without the new result")
        again, _ = run(self._folder, command(1))
        if again != 0 or self._results.get(weights(self._folder / "out.onnx")) != NEW:
            problems.append(f"the next run ends with {again}")
        return result, problems

    def _reset(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(self._fresh, self._folder)

    def _must_end(self, folder: Path, p: float) -> int:
        code, touched = run(folder, command(p))
        if code != 0:
            raise RuntimeError(f"a run without a kill ends with {code}")
        return touched


def _plan(
    stages: Sequence[_Stage], chance: random.Random
) -> Iterator[tuple[_Stage, int, signal.Signals, float | None]]:
    """Every touch of every kind with every signal, then random times."""
    for number in SIGNALS:
        for stage in stages:
            for moment in range(1, stage.moments + 1):
                yield stage, moment, number, None
    while True:
        stage = chance.choice(stages)
        yield stage, 0, chance.choice(SIGNALS), chance.uniform(0, 1.1 * stage.seconds)


if __name__ == "__main__":
    sys.exit(main())
