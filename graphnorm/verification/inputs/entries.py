"""Tensors known by the input entries that they are made of.

Moving data keeps track of entries, arithmetic with known numbers is affine, and clipping bounds a tensor
whatever its entries are: value = scale * entry + shift, within [low, high].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphnorm import ir

_BRANCHES = 4  # alternatives that are kept track of


@dataclass(frozen=True, slots=True)
class Entries:
    """Where the entries of a tensor come from.

    Attributes:
        places: number of the input entry behind each entry, counted through all inputs; -1 for none.
        scale: factor of the input entry; broadcast to the tensor's shape.
        shift: what is added, likewise.
    """

    places: ir.Array
    scale: ir.Array
    shift: ir.Array

    def mapped(self, move: Callable[[ir.Array], ir.Array]) -> Entries:
        """The same movement of all three."""
        shape = self.places.shape
        return Entries(
            move(self.places),
            move(np.broadcast_to(self.scale, shape)),
            move(np.broadcast_to(self.shift, shape)),
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of a tensor.

    Attributes:
        branches: where its entries come from, by alternative; empty if that is not known.
        sources: inputs that decide its entries.
        low: no entry is below, whatever the inputs are.
        high: no entry is above.
    """

    branches: tuple[Entries, ...] = ()
    sources: frozenset[int] = frozenset()
    low: float = -np.inf
    high: float = np.inf

    def mapped(self, move: Callable[[ir.Array], ir.Array]) -> Reading:
        """The same tensor, moved."""
        return replace(self, branches=tuple(branch.mapped(move) for branch in self.branches))

    def affine(self, factor: ir.Array, added: ir.Array) -> Reading:
        """`factor` * tensor + `added`, both known."""
        branches = tuple(
            Entries(
                np.broadcast_to(b.places, np.broadcast_shapes(b.places.shape, factor.shape, added.shape)),
                b.scale * factor,
                b.shift * factor + added,
            )
            for b in self.branches
        )
        low, high = product((self.low, self.high), hull(factor))
        return Reading(branches, self.sources, low + hull(added)[0], high + hull(added)[1])

    def clipped(self, low: float, high: float) -> Reading:
        """No entry below `low` or above `high`."""
        return replace(self, low=min(max(self.low, low), high), high=max(min(self.high, high), low))


UNKNOWN = Reading()
BOOLEAN = Reading(low=0, high=1)


def constant(array: ir.Array) -> Reading:
    """A known tensor."""
    low, high = hull(array)
    nowhere = np.broadcast_to(np.int64(-1), array.shape)
    shift = array.astype(np.float64)
    return Reading((Entries(nowhere, np.zeros(()), shift),), frozenset(), low, high)


def either(readings: Sequence[Reading]) -> Reading:
    """A tensor whose entries are taken from one of several.

    Of two functions of the same entries the simpler one is kept: an index counted from the
    end is another name of the same row.
    """
    kept: list[Entries] = []
    for branch in sorted((b for r in readings for b in r.branches), key=_plainness):
        if not any(_same_places(branch, other) for other in kept):
            kept.append(branch)
    known = all(reading.branches for reading in readings) and len(kept) <= _BRANCHES
    return Reading(
        tuple(kept) if known else (),
        frozenset().union(*(reading.sources for reading in readings)),
        min(reading.low for reading in readings),
        max(reading.high for reading in readings),
    )


def joined(readings: Sequence[Reading], axis: int) -> Reading:
    """Tensors side by side."""
    mixed = either(readings)
    if any(len(reading.branches) != 1 for reading in readings):
        return replace(mixed, branches=())
    parts = [reading.branches[0].mapped(lambda array: array) for reading in readings]
    whole = Entries(
        np.concatenate([part.places for part in parts], axis),
        np.concatenate([part.scale for part in parts], axis),
        np.concatenate([part.shift for part in parts], axis),
    )
    return replace(mixed, branches=(whole,))


def hull(array: ir.Array) -> tuple[float, float]:
    """Least and largest entry."""
    if not array.size:
        return 0.0, 0.0
    return float(array.min()), float(array.max())


def product(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Least and largest product; 0 times infinity is 0."""
    ends = [a * b if a and b else 0.0 for a in one for b in other]
    return min(ends), max(ends)


def _plainness(branch: Entries) -> int:
    return int(np.any(branch.scale != 1)) + int(np.any(branch.shift != 0))


def _same_places(one: Entries, other: Entries) -> bool:
    return (
        one.places.shape == other.places.shape
        and bool(np.array_equal(one.places, other.places))
        and bool((one.places >= 0).any())
    )
