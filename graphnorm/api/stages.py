"""The stages of a long call: progress reports, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str], None]


class Stages:
    """Clock and progress of one call.

    Attributes:
        seconds: time of each stage so far, in the order in which they were entered.
        tell: the caller's progress callback, or nothing.
    """

    def __init__(self, tell: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self.tell: Progress = tell or (lambda said: None)

    @contextmanager
    def __call__(self, stage: str, said: str) -> Iterator[None]:
        """Report a stage that runs in the ``with`` block, and add its time to those before it."""
        self.tell(said)
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
