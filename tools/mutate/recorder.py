"""A pytest plugin: which lines of the mutated modules each test runs, and how long it takes.

Loaded with ``-p tools.mutate.recorder``; MUTATE_FILES names the modules (separated by colons), MUTATE_RECORD
the file that is written.  Lines are known by function and text: moved modules keep their records.
"""

from __future__ import annotations

import json
import linecache
import os
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

_FILES = frozenset(str(Path(name).resolve()) for name in os.environ.get("MUTATE_FILES", "").split(":"))
_HIT: set[tuple[CodeType, int]] = set()
_TESTS: dict[str, dict[str, Any]] = {}


def line_key(function: str, text: str) -> str:
    """A line of a function, wherever it stands; nested functions belong to the outermost."""
    outer = function.partition(".<locals>")[0]
    return f"{'<module>' if outer.startswith('<') else outer}|{text.strip()}"


def _enter(frame: FrameType, event: str, argument: object) -> Any:
    """Modules that are imported while a test runs are none of its lines."""
    code = frame.f_code
    return _line if code.co_filename in _FILES and code.co_name != "<module>" else None


def _line(frame: FrameType, event: str, argument: object) -> Any:
    if event == "line":
        _HIT.add((frame.f_code, frame.f_lineno))
    return _line


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, None, None]:
    _HIT.clear()
    threading.settrace(_enter)
    sys.settrace(_enter)
    yield
    sys.settrace(None)
    threading.settrace(None)
    lines = {line_key(code.co_qualname, linecache.getline(code.co_filename, lineno)) for code, lineno in _HIT}
    _TESTS.setdefault(item.nodeid, {}).update(lines=sorted(lines))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    found = _TESTS.setdefault(report.nodeid, {})
    found["seconds"] = round(found.get("seconds", 0.0) + report.duration, 3)
    found["passed"] = found.get("passed", True) and report.outcome == "passed"


def pytest_sessionfinish() -> None:
    target = os.environ.get("MUTATE_RECORD")
    if target:
        Path(target).write_text(json.dumps(_TESTS), encoding="utf-8")
