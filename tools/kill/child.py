"""One run of the command line in a process of its own that dies at a given moment."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# What a run imports is here before the forks, which then take a fraction of a second.
import graphnorm.cli.models.spec  # noqa: F401
from graphnorm.cli import main

_EVENTS = ("open", "os.rename", "os.remove", "os.chmod")


def run(
    folder: Path, arguments: Sequence[str], moment: int = 0, number: int = 0, after: float | None = None
) -> tuple[int, int]:
    """Run in a fork of this process; its exit status, and how often it touched files of the folder.

    Args:
        folder: where it runs.
        arguments: of the command line.
        moment: before which of these touches it is to get the signal; 0: never.
        number: the signal.
        after: seconds after which it is to get the signal instead.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run(folder, arguments, lambda count: _die(writing, count, moment, number))
    os.close(writing)
    if after is not None:
        time.sleep(after)
        os.kill(child, number)
    touched = b""
    while data := os.read(reading, 4096):
        touched += data
    os.close(reading)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(touched)


def _die(pipe: int, count: int, moment: int, number: int) -> None:
    os.write(pipe, b".")
    if count == moment:
        os.kill(os.getpid(), number)


def _run(folder: Path, arguments: Sequence[str], touched: Callable[[int], None]) -> None:
    """The child's whole life."""
    code = 70
    try:
        os.chdir(folder)
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(silence, stream)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["graphnorm", *arguments]
        seen = 0

        def watch(event: str, details: tuple[Any, ...]) -> None:
            nonlocal seen
            if event in _EVENTS and _inside(folder, details[0]) and not (event == "open" and _reads(details)):
                seen += 1
                touched(seen)

        sys.addaudithook(watch)
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    finally:
        os._exit(code)


def _inside(folder: Path, path: Any) -> bool:
    return isinstance(path, str | os.PathLike) and Path(path).absolute().parent == folder


def _reads(details: tuple[Any, ...]) -> bool:
    return details[1] in {"r", "rb", None}
