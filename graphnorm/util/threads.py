"""Weights processed in parallel: NumPy releases the interpreter's lock while it computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def threads() -> int:
    """How many: ``OMP_NUM_THREADS`` if it is set, else the processors."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(wanted) if wanted.isdigit() and int(wanted) else os.cpu_count() or 1


def side_by_side(function: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """`function` of each item, in order."""
    work = list(items)
    count = min(threads(), len(work))
    if count <= 1:
        return [function(item) for item in work]
    left = deque(range(len(work)))
    made: dict[int, Made] = {}

    def worker() -> None:  # a task for each thread, not for each item: those may be small
        while True:
            try:
                at = left.popleft()
            except IndexError:
                return
            made[at] = function(work[at])

    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(worker) for _ in range(count)]:
            done.result()
    return [made[at] for at in range(len(work))]
