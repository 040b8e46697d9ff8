"""The caller's warning filters stay as they are, whatever libraries do when they are imported or run."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.Lock()


class _Calls:
    """Calls that overlap, in several threads or one in the other: the first saves, the last restores."""

    def __init__(self) -> None:
        self._running = 0
        self._saved = warnings.catch_warnings()

    def enter(self) -> None:
        with _LOCK:
            if not self._running:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
            self._running += 1

    def leave(self) -> None:
        with _LOCK:
            self._running -= 1
            if not self._running:
                self._saved.__exit__(None, None, None)


_CALLS = _Calls()


@contextmanager
def kept_filters() -> Iterator[None]:
    """Restore the warning filters afterwards; also a decorator of a function."""
    _CALLS.enter()
    try:
        yield
    finally:
        _CALLS.leave()
