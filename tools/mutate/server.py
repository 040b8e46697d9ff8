"""Run as a file: imports what tests import of others once, then forks a pytest for each request.

A request is a line of JSON on the standard input: folder (a copy of the tree), arguments of pytest, env,
seconds (limit), log (a file).  The answer is a line: code (exit code; negative: the signal) and late.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
from typing import Any

PLAIN = ("pytest", "_pytest.assertion.rewrite", "hypothesis", "hypothesis.extra.pytestplugin", "json", "pdb")
PRELOADED = (
    "numpy", "scipy.optimize", "scipy.sparse.linalg", "networkx", "ml_dtypes", "rich.progress", "typer",
    "torch", "torch.export", "torch._dynamo", "onnx.reference", "onnx_ir.passes",
    "onnxruntime",
)  # fmt: skip
_SLEEP = 0.02  # seconds between two looks at a child


def main() -> None:
    sys.path.pop(0)  # this folder
    for name in PLAIN if "--bare" in sys.argv else (*PLAIN, *PRELOADED):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_serve(json.loads(line))), flush=True)


def _serve(request: dict[str, Any]) -> dict[str, object]:
    child = os.fork()
    if child == 0:
        _be_the_child(request)
    end, late, parent = time.monotonic() + request["seconds"], False, os.getppid()
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() > end and not late:
            late = True
        if late or os.getppid() != parent:  # the parent no longer waits for the answer
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(_SLEEP)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # processes that the tests left
    return {"code": os.waitstatus_to_exitcode(status), "late": late}


def _be_the_child(request: dict[str, Any]) -> None:
    """Never returns."""
    code = 70
    try:
        os.setpgid(0, 0)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(request["folder"])
        os.environ.update({"PYTHONPATH": request["folder"]} | request["env"])
        sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
        sys.path.insert(0, request["folder"])
        import pytest

        code = int(pytest.main(request["arguments"]))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
