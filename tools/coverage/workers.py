"""Each model in a process of its own, with limits on time and memory: whatever it does, the rest goes on."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path

from tools.coverage.records import Record

Fill = Callable[[Record], Iterator[Record]]
Task = tuple[Record, Fill]  # a generator that fills in the record step by step

TRACEBACK_LINES = 12
PATIENCE = 0.5  # seconds between two looks at the clock


@dataclass(frozen=True, slots=True)
class Limits:
    """Processes at a time; wall-clock seconds and GiB of memory of each; where their output goes."""

    workers: int = 2
    seconds: float = 300.0
    gigabytes: float = 8.0
    log: Path = Path(os.devnull)


@dataclass
class _Job:
    process: ForkProcess
    reports: Connection
    record: Record
    deadline: float


def run_all(
    tasks: Iterable[Task], limits: Limits, idle: Callable[[], object] = lambda: None
) -> Iterator[Record]:
    """Run tasks in forked processes, which inherit this one's imports; yields records as they are done.

    `idle` is called at least every `PATIENCE` seconds.
    """
    waiting = list(reversed(list(tasks)))
    running: list[_Job] = []
    try:
        while waiting or running:
            while waiting and len(running) < limits.workers:
                running.append(_start(*waiting.pop(), limits))
            wait([job.reports for job in running], timeout=PATIENCE)
            idle()
            for job in [job for job in running if _is_done(job)]:
                running.remove(job)
                yield job.record
    finally:
        for job in running:
            job.process.kill()


def _start(record: Record, fill: Fill, limits: Limits) -> _Job:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(record, fill, theirs, limits), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    return _Job(process, ours, record, time.monotonic() + limits.seconds)


def _work(record: Record, fill: Fill, reports: Connection, limits: Limits) -> None:
    with limits.log.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    size = int(limits.gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    try:
        for state in fill(record):
            reports.send(state)
    except Exception as error:  # noqa: BLE001  # whatever a model raises is a finding
        record.error = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
        record.traceback = "".join(traceback.format_exception(error)).splitlines()[-TRACEBACK_LINES:]
        reports.send(record)


def _is_done(job: _Job) -> bool:
    """Take in what a process reported; ends it when its time is over."""
    try:
        while job.reports.poll():
            job.record = job.reports.recv()
    except EOFError:
        job.process.join()
        if job.record.stage != "done" and not job.record.error:
            job.record.error = f"the process ended with exit code {job.process.exitcode}"
        return True
    if time.monotonic() < job.deadline:
        return False
    job.process.kill()
    job.process.join()
    job.record.error = f"timed out during {job.record.stage}"
    return True
