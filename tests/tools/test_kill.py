"""The kill tool: it finds nothing in the tool as it is, and finds what is planted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

# Planted before the tool runs: temporary files stay.
LEFT_BEHIND = """
from contextlib import contextmanager
from graphnorm.util import atomic
from graphnorm.emission import onnx_save
@contextmanager
def unfinished(path):
    yield path.with_name(f"{atomic.PREFIX}{path.name}")
onnx_save.unfinished = unfinished
"""
RUN = "import sys; from tools.kill.__main__ import main; sys.exit(main(sys.argv[1:]))"


def kills(runs: int, planted: str = "", prelude: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"{planted}\n{prelude}\n{RUN}", "--runs", str(runs)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_nothing_is_lost_or_mixed() -> None:
    done = kills(7)
    assert done.returncode == 0, done.stderr
    assert "SIGKILL: old" in done.stdout
    assert "SIGKILL: new" in done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_planted_error_is_found() -> None:
    only = "import signal; import tools.kill.__main__ as tool; tool.SIGNALS = (signal.SIGTERM,)"
    done = kills(4, LEFT_BEHIND, only)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "temporary files are left" in done.stderr
