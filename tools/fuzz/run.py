"""Mutants one after the other: each is a file, a command line, and an outcome that is judged."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from random import Random

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

from tools.fuzz import bytes as raw
from tools.fuzz import structure
from tools.fuzz.forked import Outcome, call

GOOD_CODES = (0, 1, 2)
ADDRESS_SPACE = 8.0  # GB that a process may map; resident memory is judged by `Limits.megabytes`
_COMMANDS = ("canonicalize", "canonicalize", "inspect", "check")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a command may take: seconds, and megabytes of resident memory."""

    seconds: float = 60.0
    megabytes: float = 1000.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One mutant and how its command ended."""

    number: int
    seed: str
    command: str
    outcome: Outcome

    def fault(self, limits: Limits) -> str:
        """What must not happen, in a word; empty if all is well."""
        outcome = self.outcome
        if outcome.late:
            return "hang"
        if outcome.code not in GOOD_CODES:
            return f"signal {-outcome.code}" if outcome.code < 0 else f"exit {outcome.code}"
        if outcome.megabytes > limits.megabytes:
            return "memory"
        if outcome.code and "error:" not in outcome.output and "Usage:" not in outcome.output:
            return "" if self.command == "check" else "no sentence"
        return "traceback" if "Traceback" in outcome.output else ""


def mutants(
    seeds: Mapping[str, bytes], count: int, seed: int, start: int = 0
) -> Iterator[tuple[int, str, bytes]]:
    """(number, seed's name, bytes); a number always gives the same mutant."""
    names = sorted(seeds)
    for number in range(start, start + count):
        random = Random(f"{seed} {number}")
        name = random.choice(names)
        yield number, name, mutant(seeds[name], random)


def mutant(data: bytes, random: Random) -> bytes:
    """Damaged structure, damaged bytes, or both."""
    kind = random.random()
    if kind < 0.75:
        try:
            data = structure.damage(onnx.ModelProto.FromString(data), random).SerializeToString()
        except (DecodeError, EncodeError, ValueError):  # a number or name that no message can hold
            return raw.damage(data, random)
    return raw.damage(data, random) if kind > 0.65 else data


def run(
    seeds: Mapping[str, bytes], count: int, folder: Path, limits: Limits, seed: int = 0, start: int = 0
) -> Iterator[Finding]:
    """Run one command on each mutant; the file and its log stay in `folder` until the next one."""
    _warm_up(next(iter(seeds.values())), folder)
    for number, name, data in mutants(seeds, count, seed, start):
        command = Random(f"command {seed} {number}").choice(_COMMANDS)
        (folder / "m.onnx").write_bytes(data)
        (folder / "seed.onnx").write_bytes(seeds[name])
        (folder / "o.onnx").unlink(missing_ok=True)
        arguments = {
            "canonicalize": [
                "canonicalize",
                str(folder / "m.onnx"),
                "-o",
                str(folder / "o.onnx"),
                "--device",
                "cpu",
            ],
            "inspect": ["inspect", str(folder / "m.onnx")],
            "check": [
                "check",
                str(folder / "seed.onnx"),
                str(folder / "m.onnx"),
                "--device",
                "cpu",
                "--seconds",
                "2",
            ],
        }[command]
        outcome = call(lambda line=arguments: _graphnorm(line), folder / "log", limits.seconds, ADDRESS_SPACE)  # type: ignore[misc]
        yield Finding(number, name, command, outcome)


def _warm_up(seed: bytes, folder: Path) -> None:
    """Import what every child needs, by commands on a whole model."""
    from graphnorm.cli.commands import app

    path, result = folder / "seed.onnx", folder / "o.onnx"
    path.write_bytes(seed)
    for arguments in (
        ["canonicalize", str(path), "-o", str(result), "--device", "cpu"],
        ["inspect", str(path)],
        ["check", str(path), str(result), "--device", "cpu"],
    ):
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            app(arguments, standalone_mode=False)
    gc.collect()  # sessions end here: in a fork they would wait for threads that it does not have


def _graphnorm(arguments: list[str]) -> None:
    from graphnorm.cli import main

    sys.argv = ["graphnorm", *arguments]
    main()
