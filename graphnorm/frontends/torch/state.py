"""Where torch models are exported, copied and run: one thread at a time, the caller's state restored.

While ``torch.export`` runs, a module's parameters are replaced by others, and torch's and NumPy's generators,
torch's flags and ``sys.stderr`` belong to the whole process.
"""

from __future__ import annotations

import logging
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import numpy as np
import torch

LOCK = threading.RLock()


def _matmul_precision() -> str | None:
    """None where the caller set it through torch's newer interface, too: then it cannot be read."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _set_matmul_precision(precision: str | None) -> None:
    if precision is not None:
        torch.set_float32_matmul_precision(precision)


_FLAGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (_matmul_precision, _set_matmul_precision),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.get_num_threads, torch.set_num_threads),
)


@contextmanager
def alone(device: str = "cpu") -> Iterator[None]:
    """Run code of a caller's model: generators start from 0, and they and all flags are restored.

    Args:
        device: where the model is, beside the host.
    """
    with LOCK:
        flags = [read() for read, _ in _FLAGS]
        generators = _generators(torch.device(device))
        states = [generator.get_state() for generator in generators]
        numpy, python = np.random.get_state(), random.getstate()  # noqa: NPY002  models draw from it
        try:
            for generator in generators:
                generator.manual_seed(0)
            np.random.seed(0)  # noqa: NPY002
            random.seed(0)
            with torch.inference_mode(mode=False):
                yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
            np.random.set_state(numpy)  # noqa: NPY002
            random.setstate(python)
            for (read, write), flag in zip(_FLAGS, flags, strict=True):
                if read() != flag:
                    write(flag)


def _generators(device: torch.device) -> list[torch.Generator]:
    """Torch's own generators on the host and on that device.

    ``torch.manual_seed`` would seed those of all devices, even before they are in use.
    """
    found = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        found.append(torch.cuda.default_generators[index])
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what this thread writes to stderr, torch's log too; on failure the exception has it."""
    stream, held = sys.stderr, _Held(sys.stderr)
    filters = [(handler, _Kept(held.thread)) for handler in _log_handlers()]
    sys.stderr = held  # a stream in all that print and loggers use
    for handler, kept in filters:
        handler.addFilter(kept)
    failed = True
    try:
        yield
        failed = False
    finally:
        sys.stderr = stream
        for handler, kept in filters:
            handler.removeFilter(kept)
        if not failed:
            stream.writelines(held.texts)
            for handler, kept in filters:
                for record in kept.records:
                    handler.handle(record)


def _log_handlers() -> set[logging.Handler]:
    """What writes torch's log to a stream."""
    known = list(logging.root.manager.loggerDict.items())
    loggers = [item for name, item in known if name.partition(".")[0] == "torch"]
    return {
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler)
    }


class _Held:
    """Stands for stderr; what other threads write goes through."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self.thread = stream, threading.get_ident()
        self.texts: list[str] = []

    def write(self, text: str) -> int:
        if threading.get_ident() != self.thread:
            return self._stream.write(text)
        self.texts.append(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Kept(logging.Filter):
    """Keeps the records of one thread for later."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread
        self.records: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread != self._thread:
            return True
        self.records.append(record)
        return False
