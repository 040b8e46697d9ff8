"""All mutants of a sample against their nearest tests: workers, state on disk, progress."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Lock
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tools.mutate.copies import Answer, Copy
from tools.mutate.near import Records, passed_ids
from tools.mutate.report import KILLED, LATE, SURVIVED, UNTESTED, Verdict
from tools.mutate.sampling import Placed

_RECORDING = 900.0  # seconds for one test file under the recorder; what has run by then counts
_COLLECTING = 600.0
_GRACE, _TIMES = 60.0, 5.0  # a mutant's limit: imports, and its tests several times as slow


@dataclass(frozen=True)
class Plan:
    """Where and how to run.

    Attributes:
        root: the tree.
        work: folder for copies, records and verdicts.
        tests: test files that may kill, paths from the root.
        budget: seconds of tests for one mutant.
        workers: copies that work side by side.
        again: whether survivors of earlier runs are tried once more.
        bare: whether servers import nothing before they fork.
    """

    root: Path
    work: Path
    tests: Sequence[str]
    budget: float
    workers: int
    again: bool = False
    bare: bool = False


def run(plan: Plan, chosen: Sequence[Placed], recorded: Sequence[str], console: Console) -> list[Verdict]:
    """The verdict of each mutant; what is known from earlier runs is not run again."""
    plan.work.mkdir(parents=True, exist_ok=True)
    state = _State(plan.work / "verdicts.jsonl")
    with ExitStack() as stack:
        copies = [
            stack.enter_context(Copy(plan.root, plan.work / f"copy{number}", plan.bare))
            for number in range(plan.workers)
        ]
        records = Records(plan.work / "records.json")
        idle: Queue[Copy] = Queue()
        for copy in copies:
            idle.put(copy)
        _record(plan, idle, records, recorded, console)
        open_ones = [one for one in chosen if state.is_open(one, plan.again)]
        if open_ones:
            _warm(plan, copies, records)

        def one(placed: Placed) -> None:
            copy = idle.get()
            try:
                state.put(_try(plan, copy, records, placed))
            finally:
                idle.put(copy)

        _all(one, open_ones, plan.workers, "mutants", console)
    return [state.verdict(placed) for placed in chosen]


def _all(
    task: Callable[[Any], None], items: Iterable[Any], workers: int, title: str, console: Console
) -> None:
    """Run a task on all items, side by side, with a bar."""
    waiting = list(items)
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar, ThreadPoolExecutor(workers) as pool:
        shown = bar.add_task(title, total=len(waiting))
        for _ in pool.map(task, waiting):
            bar.advance(shown)


def _record(
    plan: Plan, copies: Queue[Copy], records: Records, modules: Sequence[str], console: Console
) -> None:
    """Run test files under the recorder whose text is new."""
    stale = [name for name in plan.tests if not records.is_fresh(plan.root, name)]
    lock = Lock()

    def one(name: str) -> None:
        copy = copies.get()
        try:
            records.record(copy, name, modules, _RECORDING)
            with lock:
                records.save()
        finally:
            copies.put(copy)

    if stale:
        _all(one, stale, plan.workers, "recording tests", console)


def _warm(plan: Plan, copies: Sequence[Copy], records: Records) -> None:
    """Compile the tests of each copy, and forget those that are not there any more."""
    files = [name for name in plan.tests if name in records.files]
    with ThreadPoolExecutor(plan.workers) as pool:
        answers = list(
            pool.map(lambda copy: copy.pytest(["--collect-only", *files], _COLLECTING, {}), copies)
        )
    for answer in answers:
        if answer.code != 0:
            raise RuntimeError(f"the tests can't be collected: {answer.output[-2000:]}")
    records.keep(passed_ids(answers[0].output))


def _try(plan: Plan, copy: Copy, records: Records, placed: Placed) -> Verdict:
    source = (plan.root / placed.module).read_text("utf-8")
    tests = records.near(placed.mutant, source, plan.budget)
    if not tests:
        return Verdict(placed, UNTESTED, 0)
    limit = _GRACE + _TIMES * sum(records.seconds[test] for test in tests)
    answer = copy.try_out(placed.module, placed.mutant.apply(source), tests, limit)
    if answer.late:
        return Verdict(placed, LATE, len(tests))
    if answer.code == 0:
        return Verdict(placed, SURVIVED, len(tests))
    by = _killer(answer)
    if by:
        records.killers[placed.mutant.function][by] += 1
    return Verdict(placed, KILLED, len(tests), by)


def _killer(answer: Answer) -> str:
    """The test that failed; empty where nothing could be imported."""
    found = re.search(r"^FAILED (\S+?::.*?)(?: - .*)?$", answer.output, re.MULTILINE)
    return found[1] if found else ""


class _State:
    """Verdicts on disk, a line each; the last about a mutant counts."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        self._held: dict[str, dict[str, Any]] = {}
        for line in lines:
            facts = json.loads(line)
            self._held[facts["key"]] = facts

    def is_open(self, placed: Placed, again: bool) -> bool:
        held = self._held.get(placed.key)
        return held is None or (again and held["outcome"] not in {KILLED, LATE})

    def put(self, verdict: Verdict) -> None:
        facts: dict[str, Any] = {
            "key": verdict.placed.key, "outcome": verdict.outcome, "tests": verdict.tests,
            "by": verdict.by,
        }  # fmt: skip
        with self._lock:
            self._held[facts["key"]] = facts
            with self._path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(facts) + "\n")

    def verdict(self, placed: Placed) -> Verdict:
        facts = self._held[placed.key]
        return Verdict(placed, facts["outcome"], facts["tests"], facts["by"])
