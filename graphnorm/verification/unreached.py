"""Weights that differ between two models, and that no observed output of the first depends on.

Two models that agree on all inputs show nothing about weights behind a unit that was never active or a branch
that was never taken.  So the entries that differ are changed in the first model, channel by channel: where
none of its outputs changes on any input, no input reached them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from graphnorm import ir
from graphnorm.errors import RunError
from graphnorm.verification.runner import Runnable

_MOST_CHANNELS = 256  # changed one by one; if there are more, whole weights are
_MOST_BYTES = 1 << 28  # of weights, which each change copies
_MOVE = 0.5  # of an entry and of the weight's root mean square

Build = Callable[[Mapping[str, ir.Array]], Runnable]


def unreached(
    original: Runnable,
    build: Build,
    weights: Mapping[str, ir.Array],
    others: Mapping[str, ir.Array],
    inputs: Sequence[Sequence[ir.Array]],
    seconds: float,
) -> tuple[str, ...]:
    """Weights with entries that differ and that no input reached, as far as time permits.

    Args:
        original: runs the first model.
        build: the first model with some weights replaced.
        weights: its weights.
        others: the second model's, by the same names.
        inputs: those that the models agree on.
        seconds: for all runs.
    """
    end = time.perf_counter() + seconds
    if sum(array.nbytes for array in weights.values()) > _MOST_BYTES:
        return ()
    differing = list(_differing(weights, others))
    many = sum(sum(mask.shape[:2]) for _, mask in differing) > _MOST_CHANNELS
    seen = _Seen(original, inputs)
    found: dict[str, None] = {}
    for name, mask in differing:
        for part in [mask] if many else _channels(mask):
            if time.perf_counter() > end:
                return tuple(found)
            if not _shows(build, name, weights[name], part, seen, end):
                found[name] = None
                break
    return tuple(found)


def of_unreached(names: Sequence[str]) -> str:
    """A sentence for the report."""
    listed = ", ".join(map(repr, names))
    return f"weights differ in entries that no input reached: {listed}; give an input (--input) that does"


def _differing(
    weights: Mapping[str, ir.Array], others: Mapping[str, ir.Array]
) -> Iterator[tuple[str, ir.Array]]:
    """Weights, and which of their entries differ."""
    for name, other in others.items():
        mask = np.asarray(weights[name] != other)
        if mask.any():
            yield name, mask


def _channels(mask: ir.Array) -> Iterator[ir.Array]:
    """The entries of a mask, channel by channel: along each of the first two axes."""
    for axis in range(min(mask.ndim, 2)):
        for index in np.flatnonzero(mask.any(axis=tuple(i for i in range(mask.ndim) if i != axis))):
            part = np.zeros_like(mask)
            where: tuple[slice | int, ...] = (*[slice(None)] * axis, int(index))
            part[where] = mask[where]
            yield part
    if not mask.ndim:
        yield mask


class _Seen:
    """Inputs and what the first model gave on them, each run when it is first needed."""

    def __init__(self, original: Runnable, inputs: Sequence[Sequence[ir.Array]]) -> None:
        self._original, self._inputs = original, inputs
        self._outputs: list[Sequence[ir.Array]] = []

    def __iter__(self) -> Iterator[tuple[Sequence[ir.Array], Sequence[ir.Array]]]:
        for index, arrays in enumerate(self._inputs):
            if index == len(self._outputs):
                self._outputs.append(self._original.run(arrays))
            yield arrays, self._outputs[index]


def _shows(build: Build, name: str, weight: ir.Array, mask: ir.Array, seen: _Seen, end: float) -> bool:
    """Whether moving these entries, up or down, changes an output on some input, or time ran out."""
    wide = weight.astype(np.float64)
    step = _MOVE * (np.abs(wide) + np.sqrt(np.mean(wide**2))) * mask
    for sign in (1, -1):
        moved = build({name: (wide + sign * step).astype(weight.dtype)})
        for arrays, before in seen:
            if time.perf_counter() > end:
                return True
            try:
                after = moved.run(arrays)
            except RunError:
                return True
            if not all(_same(*pair) for pair in zip(before, after, strict=True)):
                return True
    return False


def _same(one: ir.Array, two: ir.Array) -> bool:
    """The same numbers; of zeros the sign doesn't count."""
    return np.array_equal(one, two, equal_nan=one.dtype.name in ir.FLOAT_TYPES)
