"""The step in one pass over memory, on the CPU: a cycle and all its multiplications as one Numba function.

A matrix is read for its stage's sums and multiplied, with its momentum, as soon as both its sides are known:
it comes from memory once.  It takes sums of squares (p = 2) of float32 or float64 tensors that lie in memory
as matrices; everything else goes the general way (`cycle`, `scaling`).
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from graphnorm.training.cycle import EXPONENT_LIMIT, Cycle
from graphnorm.training.forms import Integers
from graphnorm.training.scaling import Job

if TYPE_CHECKING:  # Numba is optional
    from graphnorm.training.numba_kernels import Packed, Tables

_THREADS = 64  # more only add up the same sums
_home: list[int] = []  # the process of Numba's threads: GNU OpenMP ends one that forks from it and uses them


def covers(cycle: Cycle, sources: Sequence[Tensor], jobs: Sequence[Job]) -> bool:
    """Whether Numba is there, and all tensors are of the kind that it is given here."""
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
    """Whether Numba is there, and takes the NumPy that is there."""
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

        from graphnorm.training.numba_kernels import Scratch, run

        self._numba, self._run, self._cycles = numba, run, cycles
        self._threads = min(torch.get_num_threads(), _THREADS, int(numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        _home.extend([] if _home else [os.getpid()])
        self._changed = list({id(job.tensor): job.tensor for job in jobs}.values())
        tables = _tables(cycle, sources, jobs)
        self._packed = _packed(tables)
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


def _tables(cycle: Cycle, sources: Sequence[Tensor], jobs: Sequence[Job]) -> Tables:
    from numba.typed import List

    from graphnorm.training.numba_kernels import Tables

    stages = cycle.stages
    index, coefficient = cycle.index.view_as(cycle.coefficient).numpy(), cycle.coefficient.numpy()
    variables, variable_at = _joined(stage.variables.numpy() for stage in stages)
    touched = [
        np.flatnonzero((np.isin(index, stage.variables.numpy()) & (coefficient != 0)).any(axis=1))
        for stage in stages
    ]
    last = np.full(len(index), -1)  # stage after which a form keeps its value
    for number, forms in enumerate(touched):
        last[forms] = number
    due = np.array([max(last[job.layout.rows].max(), last[job.layout.columns].max()) for job in jobs])
    order = [k for k in np.argsort(due, kind="stable") if due[k] >= 0]
    sides = [side for k in order for side in (jobs[k].layout.rows, jobs[k].layout.columns)]
    ids, side_at = _joined(sides)
    reads = [read for stage in stages for read in stage.reads]
    other, far = _joined(read.other.numpy() for read in reads)
    read_at = np.cumsum([0, *(len(stage.reads) for stage in stages)])
    lengths = [[read.part.stop - read.part.start for read in stage.reads] for stage in stages]
    places = [place for length in lengths for place in np.cumsum([0, *length])[:-1]]
    own, own_at = _joined(stage.own.numpy() for stage in stages)
    source, flow_at = _joined(stage.source.numpy() for stage in stages)
    rows = [
        (read.matrix, read.axis, read.part.start, read.part.stop, place, start)
        for read, place, start in zip(reads, places, far[:-1], strict=True)
    ]
    scaled = [(i, side_at[2 * i], side_at[2 * i + 1]) for i in range(len(order))]
    return Tables(
        matrices=List([tensor.numpy() for tensor in sources]),
        reads=np.array(rows, dtype=np.int64).reshape(-1, 6),
        read_at=read_at,
        own=own,
        own_at=own_at,
        other=other,
        other_at=far[read_at],
        source=source,
        target=_joined(stage.target.numpy() for stage in stages)[0],
        share=np.concatenate([stage.share.numpy() for stage in stages]),
        flow_at=flow_at,
        variables=variables,
        rate=np.concatenate([stage.rate.numpy() for stage in stages]),
        variable_at=variable_at,
        forms=_joined(touched)[0],
        form_at=_joined(touched)[1],
        terms=index,
        coefficient=coefficient,
        tensors=List([jobs[k].layout.view(jobs[k].tensor).numpy() for k in order]),
        jobs=np.array(scaled, dtype=np.int64).reshape(-1, 3),
        job_at=np.searchsorted(due[order], np.arange(len(stages) + 1)),
        ids=ids,
        id_at=side_at[::2],
        exponents=np.array([jobs[k].exponent for k in order], dtype=np.float64),
    )


def _packed(tables: Tables) -> Packed:
    from graphnorm.training.numba_kernels import Packed

    integers, integer_at = _joined(table.ravel() for table in tables[2:20])
    floats = [table.ravel() for table in tables[20:]]
    return Packed(
        tables.matrices,
        tables.tensors,
        integers,
        integer_at,
        np.concatenate(floats),
        np.cumsum([0, *map(len, floats)]),
        tables.terms.shape[1],
    )


def _joined(arrays: Iterable[Integers]) -> tuple[Integers, Integers]:
    """Arrays one after the other, and where each begins and the last ends."""
    held = list(arrays)
    return np.concatenate([np.empty(0, dtype=np.int64), *held]), np.cumsum([0, *map(len, held)])
