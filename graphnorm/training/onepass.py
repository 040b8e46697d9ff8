"""The step in one pass over memory, on the CPU: a cycle and all its multiplications as one Numba function.

A matrix is read for its stage's sums and multiplied, with its momentum, as soon as both its sides are known:
it comes from memory once.  It takes sums of squares (p = 2) of float32 or float64 tensors that lie in memory
as matrices; everything else uses the general implementation (`cycle`, `scaling`).
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from graphnorm.training.cycle import EXPONENT_LIMIT, Cycle
from graphnorm.training.scaling import Job
from graphnorm.training.tables import Scratch, packed, tables_of

_THREADS = 64  # more only add up the same sums
_home: list[int] = []  # the process of Numba's threads: GNU OpenMP ends one that forks from it and uses them


def covers(cycle: Cycle, sources: Sequence[Tensor], jobs: Sequence[Job]) -> bool:
    """Whether Numba is installed, and all tensors are of a supported kind."""
    tensors = [*sources, *(job.layout.view(job.tensor) for job in jobs)]
    return (
        (cycle.p, cycle.exact, cycle.total) == (2.0, False, None)
        and {tensor.dtype for tensor in tensors} in ({torch.float32}, {torch.float64})
        and all(t.device.type == "cpu" and t.dim() == 2 and t.numel() and t.is_contiguous() for t in tensors)
        and bool(sources)
        and bool(cycle.stages)
        and _found()
    )


def _found() -> bool:
    """Whether Numba is installed, and supports the installed NumPy."""
    if importlib.util.find_spec("numba") is None:
        return False
    try:
        import numba  # noqa: F401
    except ImportError as error:
        warnings.warn(f"Numba cannot be used, so torch.compile fuses the step: {error}", stacklevel=2)
        return False
    return True


class OnePass:
    """The compiled step; the tensors' memory must stay where it is.

    Args:
        cycle: the descent; its matrices are given as weights.
        sources: those matrices.
        jobs: all multiplications, those of the matrices included.
        cycles: sweeps.
    """

    def __init__(self, cycle: Cycle, sources: Sequence[Tensor], jobs: Sequence[Job], cycles: int) -> None:
        import numba

        from graphnorm.training.numba_kernels import run

        self._numba, self._run, self._cycles = numba, run, cycles
        self._threads = min(torch.get_num_threads(), _THREADS, int(numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        _home.extend([] if _home else [os.getpid()])
        self._changed = list({id(job.tensor): job.tensor for job in jobs}.values())
        tables = tables_of(cycle, sources, jobs)
        self._packed = packed(tables)
        dtype, sums = tables.matrices[0].dtype, int(np.diff(tables.own_at).max())
        self._scratch = Scratch(
            z=np.zeros(cycle.count + 1),
            exponentials=np.ones(len(tables.terms)),
            weights=np.empty(len(tables.other), dtype),
            factors=np.empty(len(tables.ids), dtype),
            masses=np.empty(sums),
            partial=np.empty((self._threads, sums)),
            flows=np.empty(2 * int(np.diff(tables.variable_at).max())),
        )

    def run(self, limit: float | None = None) -> None:
        """One step; `limit` bounds the log-scale of a variable."""
        bound = min(EXPONENT_LIMIT / 2.0, limit if limit is not None else float("inf"))
        threaded = self._threads > 1 and _home == [os.getpid()]
        before = self._numba.get_num_threads() if threaded else self._threads
        if before != self._threads:
            self._numba.set_num_threads(self._threads)
        self._run(self._packed, self._scratch, self._cycles, bound, threaded)
        if before != self._threads:
            self._numba.set_num_threads(before)
        increment_version(self._changed)  # so that autograd refuses a graph of the old values
