"""Weights times factors, computed in float64 and rounded once, a chunk that fits the cache at a time."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnorm import ir
from graphnorm.util.typing import Bools, Floats

_CHUNK = 1 << 16  # entries: half a megabyte in float64
_SMALL, _LARGE = 1e-150, 1e150  # of a factor: a float32 entry times one of these is a normal float64


def multiplied(old: ir.Array, factors: Sequence[Floats], exact: bool) -> tuple[ir.Array, Bools | None]:
    """Product of a weight and broadcastable factors, rounded once; and the entries that overflowed."""
    sides = None if exact or old.dtype != np.float32 else _sides(old, factors)
    if sides is not None:
        new = _by_sides(old, *sides)
        if new is not None:
            return new, None
    new = np.empty(old.shape, dtype=old.dtype)
    bad: Bools | None = None
    rows = max(1, _CHUNK // max(old[:1].size, 1)) if old.ndim else 1
    for start in range(0, len(old) if old.ndim else 1, rows):
        at = slice(start, start + rows) if old.ndim else ()
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            value = functools.reduce(np.multiply, [_cut(factor, at) for factor in factors])
            part = old[at].astype(np.float64)
            product = np.multiply(value, part)
            new[at] = round_once(product, old.dtype)
        wrong = _wrong(part, new[at], product, exact)
        if wrong is not None:
            bad = np.zeros(old.shape, dtype=bool) if bad is None else bad
            bad[at] = wrong
    return new, bad


def _sides(old: ir.Array, factors: Sequence[Floats]) -> tuple[Floats, Floats] | None:
    """Factors of the first axis and of the others, flattened; None if one varies along both or is extreme."""
    if not old.ndim or not old.size:
        return None
    row, column = np.ones(len(old)), np.ones(old.shape[1:])
    for factor in factors:
        if factor.size == len(factor) == len(old):
            row = row * factor.ravel()
        elif len(factor) == 1:
            column = column * factor[0]
        else:
            return None
    for side in (row, column):
        if not (side.min() >= _SMALL and side.max() <= _LARGE):
            return None
    return row, column.ravel()


def _by_sides(old: ir.Array, row: Floats, column: Floats) -> ir.Array | None:
    """Float32 matrix times row and column factors; None where an entry may overflow."""
    matrix = old.reshape(len(row), len(column))
    new = np.empty(old.shape, dtype=old.dtype)
    rounded = new.reshape(matrix.shape)
    rows = max(1, 4 * _CHUNK // len(column))
    buffer = np.empty((min(rows, len(row)), len(column)))
    with np.errstate(over="ignore", under="ignore"):
        for start in range(0, len(row), rows):
            at = slice(start, start + rows)
            product = buffer[: len(row[at])]
            np.copyto(product, matrix[at])  # casts of whole chunks are vectorised, those within products not
            product *= column
            product *= row[at, None]
            np.copyto(rounded[at], product, casting="same_kind")
            flat = rounded[at].reshape(-1)
            if not np.isfinite(np.dot(flat, flat)):
                return None
    return new


def _cut(factor: Floats, at: slice | tuple[()]) -> Floats:
    return factor if factor.ndim == 0 or len(factor) == 1 else factor[at]


def _wrong(old: Floats, new: ir.Array, product: Floats, exact: bool) -> Bools | None:
    """Entries that overflow, here or in the factors (exact mode: or were rounded); None if there are none."""
    rounded = new.astype(np.float64)
    if not exact:
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(rounded.sum()):
                return None
    wrong = ~np.isfinite(rounded) & np.isfinite(old)
    if exact:
        wrong |= rounded != product
    return wrong if wrong.any() else None


def round_once(values: Floats, dtype: np.dtype[Any]) -> ir.Array:
    """Round float64 to nearest, ties to even, in one step.

    NumPy's bfloat16 goes through float32, which rounds twice; rounding to odd there avoids that.
    """
    if dtype.name != "bfloat16":
        return np.asarray(values.astype(dtype))
    near = np.asarray(values.astype(np.float32))
    inexact = (near != values) & np.isfinite(near)
    toward_zero = np.where(np.abs(near) > np.abs(values), np.nextafter(near, np.float32(0.0)), near)
    odd = (toward_zero.view(np.int32) | 1).view(np.float32)
    return np.asarray(np.where(inexact, odd, near).astype(dtype))
