"""Precision that rescaled weights lose below the normal range of their float format.

A product there is rounded to a multiple of the smallest subnormal number, and few bits of it may be left, or
none.  Carried back to the original by its coefficient, what is lost of an entry is a change of the original's
entry.  It may be as large as rounding makes it elsewhere: each row, column and other slice of a weight may
change by half a unit in the last place of its sum of absolute values, so a small entry beside large ones may
go.  An entry of a vector, a bias or a gain, stands for itself.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from graphnorm import ir
from graphnorm.util.typing import Bools, Floats

_CHUNK = 1 << 18  # entries
_COUNTING = 1e-6  # of what is admitted: sums over a slice are computed in float64


def underflowed(old: ir.Array, new: ir.Array, factors: Sequence[Floats], units: float = 1.0) -> Bools | None:
    """Entries that lost more than rounding; None if there are none.

    Args:
        old: the original weight.
        new: rescaled and rounded.
        factors: broadcastable; their product is the coefficient.
        units: how many half units a slice may change by.
    """
    if not any(_below(new[at]).any() for at in _chunks(new)):
        return None
    axes = [axis for axis, size in enumerate(old.shape) if size > 1]
    lost = [np.zeros(old.shape[axis]) for axis in axes]
    size = [np.zeros(old.shape[axis]) for axis in axes]
    for at in _chunks(old):
        change, part = _change(old[at], new[at], [_cut(factor, at) for factor in factors])
        for k, axis in enumerate(axes):
            others = tuple(i for i in range(old.ndim) if i != axis)
            here = at if axis == 0 else slice(None)
            lost[k][here] += change.sum(axis=others)
            size[k][here] += part.sum(axis=others)
    if not axes:
        lost, size = [change.reshape(1)], [part.reshape(1)]
    half = units * (1 + _COUNTING) * ir.float_format(old.dtype).eps / 2
    bad = [~(one <= half * whole) for one, whole in zip(lost, size, strict=True)]
    if not any(slices.any() for slices in bad):
        return None
    marked = np.zeros(old.shape, dtype=bool)
    for axis, slices in zip(axes or [0], bad, strict=True):
        shape = [1] * old.ndim
        if axes:
            shape[axis] = len(slices)
        marked |= slices.reshape(shape)
    return np.asarray(marked & _below(new) & (old != 0))


def _below(new: ir.Array) -> Bools:
    """Whether each entry is 0 or below the normal range."""
    return np.asarray(np.abs(new) < ir.float_format(new.dtype).smallest_normal)


def _change(old: ir.Array, new: ir.Array, factors: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Sizes of what rounding below the normal range changes in the original, and of the original."""
    wide = old.astype(np.float64)
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        factor = functools.reduce(np.multiply, factors)
        change = np.where(_below(new) & (old != 0), np.abs(new.astype(np.float64) / factor - wide), 0.0)
    return np.nan_to_num(change, nan=np.inf), np.abs(wide)


def _chunks(array: ir.Array) -> Iterator[slice | tuple[()]]:
    if not array.ndim:
        yield ()
        return
    rows = max(1, _CHUNK // max(array[:1].size, 1))
    for start in range(0, len(array), rows):
        yield slice(start, start + rows)


def _cut(factor: Floats, at: slice | tuple[()]) -> Floats:
    return factor if factor.ndim == 0 or len(factor) == 1 else factor[at]
