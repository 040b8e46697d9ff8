"""A worker: a copy of the tree in which files are mutated, and a server that runs its tests."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_SERVER = Path(__file__).with_name("server.py")
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "shared")
_PYTEST = (
    "-q", "-x", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist",
    "--hypothesis-seed=0",
)  # fmt: skip
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Answer:
    """How a run of tests ended: exit code (negative: a signal), whether it was too slow, its output."""

    code: int
    late: bool
    output: str


class Copy:
    """A copy of a tree under `folder`, and a process that runs tests in it."""

    def __init__(self, root: Path, folder: Path, bare: bool = False) -> None:
        self.folder = folder.resolve()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(root, self.folder, symlinks=True, ignore=_LEFT_OUT)
        for name in ("graphnorm", "passes", "tools"):
            if not (self.folder / name).is_symlink():
                compileall.compile_dir(self.folder / name, quiet=2)
        self._log = self.folder.with_name(f"{self.folder.name}.log")
        self._server = subprocess.Popen(
            [sys.executable, str(_SERVER), *(["--bare"] if bare else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **_ONE_THREAD},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server.stdin is not None:
            self._server.stdin.close()  # it ends when there is nothing more to read
        if self._server.stdout is not None:
            self._server.stdout.close()
        self._server.wait()

    def pytest(
        self, arguments: Sequence[str], seconds: float, env: Mapping[str, str] | None = None
    ) -> Answer:
        """Run pytest in the copy."""
        request = {
            "folder": str(self.folder),
            "arguments": [*_PYTEST, f"--basetemp={self.folder}.tmp", *arguments],
            "env": {"PYTHONDONTWRITEBYTECODE": "1"} if env is None else dict(env),
            "seconds": seconds,
            "log": str(self._log),
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError(f"the server of {self.folder} has ended")
        answer: dict[str, Any] = json.loads(line)
        output = self._log.read_text(encoding="utf-8", errors="replace")
        return Answer(answer["code"], answer["late"], output)

    def try_out(self, module: str, text: str, tests: Sequence[str], seconds: float) -> Answer:
        """Run tests with another text of one module."""
        path = self.folder / module
        before = path.read_text(encoding="utf-8")
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()  # it may be as old and as long as the mutant
        path.write_text(text, encoding="utf-8")
        try:
            return self.pytest(tests, seconds)
        finally:
            path.write_text(before, encoding="utf-8")
