"""The whole step as one function that Numba compiles for the processor: see `onepass`.

Threads share the rows of each matrix.  Sums are of the matrix's own type over short runs, and float64 over
these.  Loops over a line start at 0: no index may be negative then, and they are vectorised.  Nothing is kept
on disk: processes that fill Numba's cache at once, as the ranks of a training do, may read each other's
incomplete files.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from graphnorm.training.tables import Packed, Reals, Scratch, Tables
from graphnorm.util.typing import Floats, Integers

_LOOSE = {"reassoc", "contract", "nsz", "arcp"}  # to vectorise sums; NaN and infinity stay what they are
_RUN = 512  # entries
_BLOCK = 64  # rows


@njit(fastmath=_LOOSE)
def _row_sums(w: Reals, weight: Reals, out: Floats) -> None:
    for i in range(w.shape[0]):
        total = 0.0
        for first in range(0, w.shape[1], _RUN):
            line, scale = w[i, first : first + _RUN], weight[first : first + _RUN]
            run = w.dtype.type(0)
            for j in range(len(line)):
                run += line[j] * line[j] * scale[j]
            total += run
        out[i] = total


@njit(fastmath=_LOOSE)
def _column_sums(w: Reals, start: int, weight: Reals, out: Floats) -> None:
    run = np.empty(len(out), w.dtype)
    out[:] = 0.0
    for first in range(0, w.shape[0], _BLOCK):
        run[:] = 0
        for i in range(first, min(first + _BLOCK, w.shape[0])):
            line, scale = w[i, start : start + len(out)], weight[i]  # a slice of columns is no plain matrix
            for j in range(len(line)):
                run[j] += line[j] * line[j] * scale
        for j in range(len(run)):
            out[j] += run[j]


@njit(fastmath=_LOOSE)
def _multiply(w: Reals, row: Reals, column: Reals) -> None:
    for i in range(w.shape[0]):
        line, scale = w[i], row[i]
        for j in range(len(line)):
            line[j] *= scale * column[j]


@njit()
def _share(t: int, jobs: Integers, reads: Integers, tables: Tables, scratch: Scratch) -> None:
    """Thread t's share of a pass."""
    factors, weights, masses, partial = scratch.factors, scratch.weights, scratch.masses, scratch.partial
    parts = partial.shape[0]
    for number, rows, columns in jobs:
        w = tables.tensors[number]
        low, high = w.shape[0] * t // parts, w.shape[0] * (t + 1) // parts
        _multiply(w[low:high], factors[rows + low : rows + high], factors[columns : columns + w.shape[1]])
    for matrix, axis, start, stop, place, far in reads:
        w = tables.matrices[matrix]
        if axis == 0:
            low, high = start + (stop - start) * t // parts, start + (stop - start) * (t + 1) // parts
            into = masses[place + low - start : place + high - start]
            _row_sums(w[low:high], weights[far : far + w.shape[1]], into)
        else:
            low, high = w.shape[0] * t // parts, w.shape[0] * (t + 1) // parts
            into = partial[t, place : place + stop - start]
            _column_sums(w[low:high], start, weights[far + low : far + high], into)


@njit(parallel=True)
def _side_by_side(jobs: Integers, reads: Integers, tables: Tables, scratch: Scratch) -> None:
    for t in prange(scratch.partial.shape[0]):
        _share(t, jobs, reads, tables, scratch)


@njit()
def _pass(jobs: Integers, reads: Integers, tables: Tables, scratch: Scratch, threaded: bool) -> None:
    """Multiply the tensors of `jobs`, then form the sums of `reads`."""
    masses, partial = scratch.masses, scratch.partial
    if threaded:
        _side_by_side(jobs, reads, tables, scratch)
    else:
        for t in range(partial.shape[0]):
            _share(t, jobs, reads, tables, scratch)
    for at in range(len(reads)):
        if reads[at, 1] == 1:
            place, size = reads[at, 4], reads[at, 3] - reads[at, 2]
            masses[place : place + size] = 0.0
            for t in range(partial.shape[0]):
                for j in range(size):
                    masses[place + j] += partial[t, place + j]


@njit()
def _weigh(k: int, tables: Tables, scratch: Scratch) -> None:
    """Squares of the scales of the entries over which stage k sums."""
    for at in range(tables.other_at[k], tables.other_at[k + 1]):
        scratch.weights[at] = scratch.exponentials[tables.other[at]] ** 2


@njit()
def _coefficients(k: int, tables: Tables, scratch: Scratch) -> None:
    """Factors of rows and columns of the tensors that are due after stage k."""
    for job in range(tables.job_at[k], tables.job_at[k + 1]):
        exponent, end = tables.exponents[job], tables.id_at[job + 1]
        for at in range(tables.id_at[job], end):
            value = scratch.exponentials[tables.ids[at]]
            if exponent == 1.0:
                scratch.factors[at] = value
            elif exponent == -1.0:
                scratch.factors[at] = 1.0 / value
            else:
                scratch.factors[at] = value**exponent


@njit()
def _move(k: int, tables: Tables, scratch: Scratch, bound: float) -> None:
    """Move the variables of stage k to their minimiser, and the forms that they are in."""
    z, exponentials, flows = scratch.z, scratch.exponentials, scratch.flows
    first, count = tables.variable_at[k], tables.variable_at[k + 1] - tables.variable_at[k]
    flows[: 2 * count] = 0.0
    for at in range(tables.flow_at[k], tables.flow_at[k + 1]):
        source = tables.source[at]
        scale = exponentials[tables.own[tables.own_at[k] + source]] ** 2
        flows[tables.target[at]] += tables.share[at] * scratch.masses[source] * scale
    for i in range(count):
        if flows[i] > 0.0 and flows[count + i] > 0.0:  # dead on one side: not updated
            step = math.log(flows[count + i] / flows[i]) * tables.rate[first + i]
            if abs(step) < np.inf:
                variable = tables.variables[first + i]
                z[variable] = min(max(z[variable] + step, -bound), bound)
    for at in range(tables.form_at[k], tables.form_at[k + 1]):
        form, total = tables.forms[at], 0.0
        for term in range(tables.terms.shape[1]):
            total += tables.coefficient[form, term] * z[tables.terms[form, term]]
        exponentials[form] = math.exp(total)


@njit()
def _unpacked(packed: Packed) -> Tables:
    x, at, y, to = packed.integers, packed.integer_at, packed.floats, packed.float_at
    width = packed.width
    return Tables(
        packed.matrices,
        packed.tensors,
        x[at[0] : at[1]].reshape(-1, 6),
        x[at[1] : at[2]],
        x[at[2] : at[3]],
        x[at[3] : at[4]],
        x[at[4] : at[5]],
        x[at[5] : at[6]],
        x[at[6] : at[7]],
        x[at[7] : at[8]],
        x[at[8] : at[9]],
        x[at[9] : at[10]],
        x[at[10] : at[11]],
        x[at[11] : at[12]],
        x[at[12] : at[13]],
        x[at[13] : at[14]].reshape(-1, width),
        x[at[14] : at[15]].reshape(-1, 3),
        x[at[15] : at[16]],
        x[at[16] : at[17]],
        x[at[17] : at[18]],
        y[to[0] : to[1]],
        y[to[1] : to[2]],
        y[to[2] : to[3]].reshape(-1, width),
        y[to[3] : to[4]],
    )


@njit()
def run(packed: Packed, scratch: Scratch, cycles: int, bound: float, threaded: bool) -> None:
    """Cycles over all stages, from log-scales 0; tensors are multiplied during the last one.

    If not `threaded`, one thread does all shares.
    """
    tables = _unpacked(packed)
    scratch.z[:] = 0.0
    scratch.exponentials[:] = 1.0
    stages = len(tables.variable_at) - 1
    due = tables.jobs[:0]
    for cycle in range(cycles):
        for k in range(stages):
            _weigh(k, tables, scratch)
            reads = tables.reads[tables.read_at[k] : tables.read_at[k + 1]]
            _pass(due, reads, tables, scratch, threaded)
            _move(k, tables, scratch, bound)
            if cycle == cycles - 1:
                _coefficients(k, tables, scratch)
                due = tables.jobs[tables.job_at[k] : tables.job_at[k + 1]]
    _pass(due, tables.reads[:0], tables, scratch, threaded)
