"""The reference that rounding is measured against: a run in more precision, if it computes the same function.

A run in float64 by another implementation, or by a module that does something else in float64, may compute
another function; used as the reference, its error would hide any smaller difference.  So on every input it is
used only if it lies within the original's own error: within a few units of rounding, or within a multiple of
what runs of the original differ by when inputs move by one unit of rounding, or of what the reference itself
changes by when every operand of every operator is perturbed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from graphnorm import ir
from graphnorm.errors import RunError
from graphnorm.verification.norms import distance, root_mean_square
from graphnorm.verification.runner import Runner

Arrays = list[ir.Array]
_CLOSE = 4.0  # float epsilons of the outputs' root mean square: no error needs to be explained
_FLOAT64 = 1024.0  # the same, where the original computes in float64 itself
_MARGIN = 32.0  # of the distance between runs that differ by rounding
_DRAWS = 3


class Truth:
    """The reference outputs of a model, as far as they are available.

    Attributes:
        reference: how the model's noise is measured.
        doubted: inputs on which the reference was not used.
        seen: inputs tried.
    """

    def __init__(self, original: Runner) -> None:
        self._original = original
        self.reference = original.reference()
        self.doubted = 0
        self.seen = 0

    @property
    def name(self) -> str:
        """What the noise was measured against."""
        reference = self.reference
        if not self.doubted:
            return reference.name
        why = f"{reference.fallback} ({reference.name} is farther from it than its rounding explains)"
        if self.doubted == self.seen:
            return why
        return f"{reference.name}; on {self.doubted} of {self.seen} inputs {why}"

    def __call__(self, arrays: Sequence[ir.Array], runs: Sequence[Arrays]) -> tuple[Arrays, bool]:
        """Reference outputs, and whether they are from the float64 run.

        Args:
            arrays: the input.
            runs: outputs of the original and of the reference's variants.
        """
        self.seen += 1
        anchor = self.reference.anchor
        fallback = runs[1] if len(runs) > 1 else runs[0]
        if anchor is None:
            return fallback, False
        try:
            exact = anchor.run(arrays)
            if len(exact) == len(runs[0]) and self._believed(arrays, runs, exact):
                return exact, True
        except RunError:
            pass  # it is not available, or cannot be judged
        self.doubted += 1
        return fallback, False

    def _believed(self, arrays: Sequence[ir.Array], runs: Sequence[Arrays], exact: Arrays) -> bool:
        """Whether rounding explains each output's distance from `exact`; runs are made until it does."""
        left = [i for i, truth in enumerate(exact) if not _close(runs[0][i], truth)]
        if not all(_comparable(runs[0][i], exact[i]) for i in left):
            return False
        for one, two in self._set_apart(arrays, runs, exact):
            left = [i for i in left if not _off(runs[0][i], exact[i]) <= _MARGIN * _off(one[i], two[i])]
            if not left:
                return True
        return not left

    def _set_apart(
        self, arrays: Sequence[ir.Array], runs: Sequence[Arrays], exact: Arrays
    ) -> Iterator[tuple[Arrays, Arrays]]:
        """Pairs of runs that differ by rounding alone, the cheapest first."""
        for variant in runs[1:]:
            yield runs[0], variant
        for seed in range(_DRAWS):
            yield runs[0], self._original.run(_nudged(arrays, seed))
        anchor = self.reference.anchor
        unit = max(
            (ir.float_format(a.dtype).eps for a in runs[0] if a.dtype.name in ir.FLOAT_TYPES), default=0
        )
        for seed in range(_DRAWS):
            if anchor is not None:
                yield exact, anchor.shaken(arrays, unit, seed)


def _nudged(arrays: Sequence[ir.Array], seed: int) -> Arrays:
    """Random float entries moved by one unit of rounding towards zero: none leaves its range."""
    generator = np.random.default_rng(seed)
    found: Arrays = []
    for array in arrays:
        if array.dtype.name not in ir.FLOAT_TYPES:
            found.append(array)
            continue
        unit = ir.float_format(array.dtype).eps * generator.integers(0, 2, array.shape)
        with np.errstate(all="ignore"):
            found.append(np.asarray((array.astype(np.float64) * (1 - unit)).astype(array.dtype)))
    return found


def _comparable(computed: ir.Array, exact: ir.Array) -> bool:
    """Whether a float64 run has the shape of a float run, and is finite wherever that is."""
    if computed.shape != exact.shape or computed.dtype.name not in ir.FLOAT_TYPES:
        return False
    return bool(np.isfinite(exact.astype(np.float64))[np.isfinite(computed.astype(np.float64))].all())


def _close(computed: ir.Array, exact: ir.Array) -> bool:
    """Whether the two agree to a few units of rounding; integers exactly."""
    if computed.dtype.name not in ir.FLOAT_TYPES:
        return bool(np.array_equal(computed, exact))
    if not _comparable(computed, exact):
        return False
    units = _FLOAT64 if computed.dtype == np.float64 else _CLOSE
    allowed = units * ir.float_format(computed.dtype).eps
    return _off(computed, exact) <= allowed * root_mean_square(_finite(computed, exact))


def _off(one: ir.Array, two: ir.Array) -> float:
    if one.shape != two.shape:
        return 0.0
    return distance(_finite(one, two), _finite(two, one))


def _finite(array: ir.Array, other: ir.Array) -> ir.Array:
    """Entries of the first that are finite in both."""
    one, two = array.astype(np.float64), other.astype(np.float64)
    return np.asarray(one[np.isfinite(one) & np.isfinite(two)])
