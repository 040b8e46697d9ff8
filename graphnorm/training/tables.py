"""What the step in one pass does, as arrays: the descent's stages and all multiplications."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from graphnorm.training.cycle import Cycle
from graphnorm.training.scaling import Job
from graphnorm.util.typing import Floats, Integers

Reals = npt.NDArray[Any]
"""Float32 or float64."""


class Tables(NamedTuple):
    """What a step does, as arrays; `x_at` are the first entries of each stage in `x`, and its length.

    Attributes:
        matrices: weights as matrices.
        reads: (matrix, axis, start, stop, place of its sums, first entry in `other`).
        own: forms of the entries that are summed.
        other: forms of the entries over which a sum runs.
        source: place of the sum of each contribution.
        target: its place among (rising of each variable, falling of each variable).
        share: its factor.
        variables: of each stage.
        rate: step per logarithm, of each variable.
        forms: forms that each stage changes.
        terms: variables of each form.
        coefficient: and their coefficients.
        tensors: all that is multiplied, as matrices.
        jobs: (tensor, first entry of its rows in `ids`, of its columns), due after the last stage that
            changes its forms.
        ids: forms of rows and columns, job after job.
        exponents: of the coefficient, for each job.
    """

    matrices: Sequence[Reals]
    tensors: Sequence[Reals]
    reads: Integers
    read_at: Integers
    own: Integers
    own_at: Integers
    other: Integers
    other_at: Integers
    source: Integers
    target: Integers
    flow_at: Integers
    variables: Integers
    variable_at: Integers
    forms: Integers
    form_at: Integers
    terms: Integers
    jobs: Integers
    job_at: Integers
    ids: Integers
    id_at: Integers
    share: Floats
    rate: Floats
    coefficient: Floats
    exponents: Floats


class Packed(NamedTuple):
    """`Tables` in four pieces: passing two dozen arrays to Numba takes as long as reading a layer."""

    matrices: Sequence[Reals]
    tensors: Sequence[Reals]
    integers: Integers
    integer_at: Integers
    floats: Floats
    float_at: Integers
    width: int  # terms of a form


class Scratch(NamedTuple):
    """Buffers that are reused.

    Attributes:
        z: log-scales of the variables.
        exponentials: exp() of the forms.
        weights: their squares, as in `Tables.other`.
        factors: powers of them, as in `Tables.ids`.
        masses: sums of a stage.
        partial: (threads, sums of a stage).
        flows: masses that rise and fall with a stage's variables.
    """

    z: Floats
    exponentials: Floats
    weights: Reals
    factors: Reals
    masses: Floats
    partial: Floats
    flows: Floats


def tables_of(cycle: Cycle, sources: Sequence[Tensor], jobs: Sequence[Job]) -> Tables:
    """The tables of a descent whose matrices are `sources`, and of all multiplications."""
    from numba.typed import List

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


def packed(tables: Tables) -> Packed:
    """The same in few arrays."""
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
    """Concatenated arrays, and the offsets at which they begin and end."""
    held = list(arrays)
    return np.concatenate([np.empty(0, dtype=np.int64), *held]), np.cumsum([0, *map(len, held)])
