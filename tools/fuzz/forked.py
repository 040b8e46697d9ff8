"""Calls in forked processes with limits on time and memory; the imports of the parent are shared.

The parent must have one thread: locks that another holds at the fork are never released in the child.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_SLEEP = 0.01  # seconds between two looks at a child


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        code: exit code; negative: the signal that ended it.
        seconds: wall clock.
        megabytes: peak of resident memory, imports included.
        output: what it wrote to its standard output and error.
        late: whether it was ended for taking too long.
    """

    code: int
    seconds: float
    megabytes: float
    output: str
    late: bool = False


def call(function: Callable[[], int | None], log: Path, seconds: float, gigabytes: float) -> Outcome:
    """Run `function` in a fork; its result (or that of the `SystemExit` that it raises) is the exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        _be_the_child(function, log, gigabytes)
    late = False
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            break
        if time.perf_counter() - start > seconds and not late:
            late = True
            os.kill(child, signal.SIGKILL)
        time.sleep(_SLEEP)
    return Outcome(
        code=os.waitstatus_to_exitcode(status),
        seconds=time.perf_counter() - start,
        megabytes=usage.ru_maxrss / 1000,
        output=log.read_text(encoding="utf-8", errors="replace"),
        late=late,
    )


def _be_the_child(function: Callable[[], int | None], log: Path, gigabytes: float) -> None:
    """Never returns: a child that fell through would go on as a second parent."""
    code = 70
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
        limit = int(gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            code = function() or 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
