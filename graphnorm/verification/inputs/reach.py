"""Rows of tables that differ between two models, and whether any input picks them.

A table of A and one of B belong together if the same inputs pick from both in the same way.  A rescaling
multiplies the columns; a row differs if it deviates from the factors of most rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphnorm import ir
from graphnorm.verification.inputs.ranges import Ranges, Table

_SAMPLE = 512  # rows that the factors of the columns are taken from
_CHUNK = 1024  # rows that are compared at once
_SHIFTS = 64  # distinct offsets added to an index
_ROUNDING = 16.0  # half ulps by which a row may deviate


@dataclass(frozen=True)
class Suspect:
    """Rows of a table of A that differ from B's."""

    table: Table
    rows: ir.Array


def differing_rows(a: ir.Graph, b: ir.Graph, one: Ranges, other: Ranges) -> list[Suspect]:
    """Tables of A, and the rows in which they differ from their counterparts in B."""
    found: list[Suspect] = []
    waiting = list(other.tables)
    for table in one.tables:
        twin = next((t for t in waiting if _picked_alike(table, t)), None)
        if twin is None:
            continue
        waiting.remove(twin)
        first, second = (np.moveaxis(g.weights[t.name], t.axis, 0) for g, t in ((a, table), (b, twin)))
        if first.shape == second.shape and first.size:
            rows = _departing(first.reshape(len(first), -1), second.reshape(len(second), -1))
            if rows.size:
                found.append(Suspect(table, rows))
    return found


def unpicked(
    suspects: Sequence[Suspect], ranges: Ranges, inputs: Sequence[Sequence[ir.Array]]
) -> list[Suspect]:
    """The suspects that none of these inputs picks."""
    found: list[Suspect] = []
    for suspect in suspects:
        picked = [row for arrays in inputs for row in _picks(suspect.table, ranges, arrays)]
        rows = np.setdiff1d(suspect.rows, np.concatenate([np.empty(0), *picked]))
        if rows.size:
            found.append(Suspect(suspect.table, rows.astype(np.int64)))
    return found


def filled(table: Table, row: int, ranges: Ranges, arrays: Sequence[ir.Array]) -> list[ir.Array]:
    """The same inputs, but wherever `table` is picked from, `row` is."""
    filled = [np.array(array) for array in arrays]
    for index, offsets, chosen in _parts(table, ranges):
        if ranges.low[index].shape != filled[index].shape:
            continue
        scale, shift = (
            np.broadcast_to(part, chosen.shape)[chosen] for part in (table.rows.scale, table.rows.shift)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            numbers = (row - shift) / scale
        low, high = (part[index].reshape(-1)[offsets] for part in (ranges.low, ranges.high))
        fits = np.isfinite(numbers) & (numbers == np.rint(numbers)) & (low <= numbers) & (numbers <= high)
        filled[index].reshape(-1)[offsets[fits]] = numbers[fits].astype(filled[index].dtype)
    return filled


def of_unpicked(suspects: Sequence[Suspect]) -> str:
    """A sentence about rows that no input picked."""
    told = [
        f"{len(suspect.rows)} of {suspect.table.name!r} (such as row {suspect.rows[0]})"
        for suspect in suspects
    ]
    return f"rows differ that no input reached: {', '.join(told)}"


def numbers(suspect: Suspect, ranges: Ranges) -> Iterator[tuple[int, ir.Array]]:
    """For each input that picks: its index, and its numbers that pick the suspects."""
    entries = suspect.table.rows
    scale, shift = np.unique(entries.scale), np.unique(entries.shift)
    if scale.size == 1 and scale.all() and shift.size <= _SHIFTS:
        found = np.unique((suspect.rows[:, None] - shift) / scale)
        for index, _, _ in _parts(suspect.table, ranges):
            yield index, found[found == np.rint(found)].astype(np.int64)


def _parts(table: Table, ranges: Ranges) -> Iterator[tuple[int, ir.Array, ir.Array]]:
    """For each input that picks: its index, which of its entries do, and where the picks stand."""
    places = table.rows.places
    for index, (start, end) in enumerate(zip(ranges.starts, ranges.starts[1:], strict=False)):
        chosen = (places >= start) & (places < end)
        if chosen.any():
            yield index, places[chosen] - start, chosen


def _picks(table: Table, ranges: Ranges, arrays: Sequence[ir.Array]) -> Iterator[ir.Array]:
    for index, offsets, chosen in _parts(table, ranges):
        if ranges.low[index].shape != arrays[index].shape:
            continue
        scale, shift = (
            np.broadcast_to(part, chosen.shape)[chosen] for part in (table.rows.scale, table.rows.shift)
        )
        rows = np.trunc(arrays[index].reshape(-1)[offsets].astype(np.float64) * scale + shift)
        yield np.unique(rows)


def _picked_alike(one: Table, other: Table) -> bool:
    return all(
        a.shape == b.shape and np.array_equal(a, b)
        for a, b in zip(
            (one.rows.places, one.rows.scale, one.rows.shift),
            (other.rows.places, other.rows.scale, other.rows.shift),
            strict=True,
        )
    )


def _departing(first: ir.Array, second: ir.Array) -> ir.Array:
    """Rows of `second` that are not those of `first` times one positive factor per column."""
    step = max(1, len(first) // _SAMPLE)
    some, same = first[::step].astype(np.float64), second[::step].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where((some == 0) | ~np.isfinite(same / some), np.nan, same / some)
    known = ~np.isnan(ratios).all(axis=0)
    factors = np.ones(first.shape[1])
    factors[known] = np.nanmedian(ratios[:, known], axis=0)
    factors[factors <= 0] = 1
    formats = [ir.float_format(array.dtype) for array in (first, second)]
    eps = max(format_.eps for format_ in formats)
    floor = max(format_.smallest_normal * format_.eps for format_ in formats)
    found: list[ir.Array] = []
    for start in range(0, len(first), _CHUNK):
        want = first[start : start + _CHUNK].astype(np.float64) * factors
        have = second[start : start + _CHUNK].astype(np.float64)
        off = np.abs(have - want) > _ROUNDING / 2 * (eps * np.maximum(np.abs(want), np.abs(have)) + floor)
        found.append(start + np.flatnonzero(off.any(axis=1)))
    return np.concatenate(found)
