"""Search for an input on which two models differ, and for the smallest such input.

The objective is the distance of the outputs over their size.  Two torch models: gradient ascent on the inputs
(Adam), then random local search on integers.  Otherwise: random local search on all, which keeps a step that
helps and changes its length.  Integers stay where the battery may draw them (`battery`), and inputs that the
original refuses or overflows on do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from graphnorm import ir
from graphnorm.errors import RunError
from graphnorm.verification.inputs.battery import Drawing
from graphnorm.verification.inputs.probes import Probes
from graphnorm.verification.measure import Judge
from graphnorm.verification.runner import Runnable

Arrays = list[ir.Array]
_STARTS = 3
_STEPS = 60
_SHRINK_RUNS = 64  # at most, to make a counterexample smaller
_KEPT = 0.1  # share of the difference, over the noise, that a smaller counterexample must keep
GRADIENT, RANDOM = "gradient ascent", "random local search"


class Differentiable(Protocol):
    """Two models whose difference has a gradient."""

    def ascend(self, arrays: Sequence[ir.Array], step: float) -> tuple[float, Arrays]:
        """The distance at `arrays`, and inputs one step uphill."""


def find_difference(
    judge: Judge, probes: Probes, seconds: float, climb: Differentiable | None = None, seed: int = 0
) -> tuple[Arrays | None, int]:
    """An input on which the models differ, if one is found in time; and how many inputs were tried."""
    end = time.perf_counter() + seconds
    tried = 0
    integers = any(probes.drawing.is_index(i) for i in range(len(probes.drawing.levels)))
    for _, start in probes[:_STARTS]:
        best = list(start)
        if climb is not None and any(array.dtype.name in ir.FLOAT_TYPES for array in start):
            best, count = _climbed(climb, start, end)
            tried += count
        if climb is None or integers:
            best, count = _walked(judge, probes.drawing, best, end, seed)
            tried += count
        if probes.takes(best) and judge(best).differs:
            return best, tried
        if time.perf_counter() > end:
            break
    return None, tried


def _climbed(climb: Differentiable, start: Sequence[ir.Array], end: float) -> tuple[Arrays, int]:
    best, current = list(start), list(start)
    highest = -np.inf
    for step in range(_STEPS):
        value, following = climb.ascend(current, 0.1 * 0.95**step)
        if value > highest:
            highest, best = value, current
        current = following
        if time.perf_counter() > end:
            return best, step + 1
    return best, _STEPS


def _walked(
    judge: Judge, drawing: Drawing, start: Sequence[ir.Array], end: float, seed: int
) -> tuple[Arrays, int]:
    generator = np.random.default_rng(seed)
    best = list(start)
    highest = _distance_if_taken(judge, best)
    length = 0.5
    for step in range(_STEPS * 4):
        if time.perf_counter() > end:
            return best, step
        trial = drawing.near(best, length, generator)
        value = _distance_if_taken(judge, trial)
        length *= 1.2 if value > highest else 0.9
        if value > highest:
            highest, best = value, trial
    return best, _STEPS * 4


def _distance_if_taken(judge: Judge, arrays: Sequence[ir.Array]) -> float:
    try:
        return distance(judge.original, judge.new, arrays)
    except RunError:
        return -np.inf


def distance(first: Runnable, second: Runnable, arrays: Sequence[ir.Array]) -> float:
    """Distance of the outputs over their size, the largest of all outputs; of integers the share that differ.

    Integers count where all outputs are: else the search would look for rounding that
    moves a maximum.
    """
    found = 0.0
    pairs = list(zip(first.run(arrays), second.run(arrays), strict=True))
    discrete = not any(one.dtype.name in ir.FLOAT_TYPES for one, _ in pairs)
    for one, two in pairs:
        if one.shape != two.shape or not one.size:
            continue
        if one.dtype.name in ir.FLOAT_TYPES:
            a, b = one.astype(np.float64), two.astype(np.float64)
            size = float(np.linalg.norm(a)) or 1.0
            off = float(np.linalg.norm(a - b)) / size
            found = max(found, off) if np.isfinite(off) else found
        elif discrete:
            found = max(found, float(np.mean(one != two)))
    return found


def smallest(
    judge: Judge, arrays: Sequence[ir.Array], seconds: float, takes: Callable[[Arrays], bool] = lambda _: True
) -> Arrays:
    """The same counterexample with as many zeros as time permits, block by block, and as clear a difference.

    `takes` says whether the original takes an input.
    """
    end = time.perf_counter() + seconds
    best = [np.array(array) for array in arrays]
    least = _KEPT * judge(best).ratio
    runs = 0

    def try_zero(index: int, part: slice) -> bool:
        nonlocal runs
        trial = [array.copy() for array in best]
        trial[index].reshape(-1)[part] = 0
        runs += 1
        if not takes(trial):
            return False
        found = judge(trial)
        if not found.differs or found.ratio < least:
            return False
        best[index] = trial[index]
        return True

    for index, array in enumerate(best):
        if array.dtype.name in ir.FLOAT_TYPES:
            _bisect(slice(0, array.size), lambda part, i=index: try_zero(i, part),  # type: ignore[misc]
                    lambda: runs < _SHRINK_RUNS and time.perf_counter() < end)  # fmt: skip
    return best


def _bisect(whole: slice, try_zero: Callable[[slice], bool], going: Callable[[], bool]) -> None:
    """Zero the largest blocks first; a block that must stay is halved."""
    waiting = [whole]
    while waiting and going():
        part = waiting.pop(0)
        if try_zero(part) or part.stop - part.start <= 1:
            continue
        middle = (part.start + part.stop) // 2
        waiting += [slice(part.start, middle), slice(middle, part.stop)]
