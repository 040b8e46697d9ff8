"""Inputs that the original accepts: each is run on it before it is used.

An input that the original refuses gets other integers: closer to the example, finally the example's
own.  One on which it overflows is no reference: its floats are scaled down; if that does not help, infinities
are part of the function.  An input that is still refused is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import overload

import numpy as np

from graphnorm import ir
from graphnorm.errors import RunError
from graphnorm.verification.inputs.battery import GIVEN, MARKED, RANGED, Drawing, Probe
from graphnorm.verification.inputs.ranges import Table
from graphnorm.verification.inputs.reach import Suspect, filled
from graphnorm.verification.run_errors import ADVICE, is_refusal
from graphnorm.verification.runner import Runner

_SHRINKS = (1 / 8, 1 / 64, 1 / 4096)
_BETTER = 0.1  # share of the entries without a finite number that a repaired input may keep
_PATIENCE = 3  # consecutive inputs that could not be repaired, after which no more are tried
_MOST_ALONE = 32  # rows that get an input each
_FIRST_TRIES = 3  # random inputs before regular ones are tried

Plan = tuple[str, tuple[Table, int] | None]  # kind, and the row that alone is picked


class Probes(Sequence[Probe]):
    """A battery of inputs, each run on the original when it is first asked for.

    Args:
        drawing: draws inputs.
        original: runs the original.
        planned: kinds of inputs to draw.
        suspects: rows of tables: for each, one input that picks nothing else comes first.
    """

    def __init__(
        self, drawing: Drawing, original: Runner, planned: Sequence[str], suspects: Sequence[Suspect] = ()
    ) -> None:
        self.drawing, self.original = drawing, original
        alone = [(suspect.table, int(row)) for suspect in suspects for row in suspect.rows]
        plan: list[Plan] = [("row", pick) for pick in alone] if len(alone) <= _MOST_ALONE else []
        self._found: list[Probe] = []
        self._waiting = self._vetted([*plan, *((kind, None) for kind in planned)])
        self._based = drawing.base is not None
        self._wildest = 0.0  # share of results that were not finite, on the worst input that was kept
        self._in_vain = 0
        self._refusals: dict[int, str] = {}  # input -> the original's error
        self._shrunk: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._why = ""  # the first input was left out

    @overload
    def __getitem__(self, index: int) -> Probe: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Probe]: ...

    def __getitem__(self, index: int | slice) -> Probe | Sequence[Probe]:
        last = index.stop if isinstance(index, slice) else index + 1
        self._fill(None if last is None or last <= 0 else last)
        return self._found[index]

    def __len__(self) -> int:
        self._fill(None)
        return len(self._found)

    def __iter__(self) -> Iterator[Probe]:
        index = 0
        while self._fill(index + 1):
            yield self._found[index]
            index += 1

    def takes(self, arrays: Sequence[ir.Array]) -> bool:
        """Whether the original takes an input, and overflows on it no more than on one that was kept."""
        share, _ = self._share(arrays)
        return share is not None and share <= self._wildest

    @property
    def tried(self) -> Sequence[Probe]:
        """Inputs requested so far."""
        return self._found

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was done to inputs, a sentence each."""
        names = self.drawing.network.inputs
        found = [
            f"input {names[i]!r}: numbers that the original does not take ({why}) were replaced by others"
            for i, why in self._refusals.items()
        ]
        if self._shrunk:
            found.append(f"scaled down, because the original overflows on them: {_counted(self._shrunk)}")
        if self._dropped:
            found.append(
                f"left out, because the original refuses them ({self._why}): {_counted(self._dropped)}"
            )
        return tuple(found)

    def _fill(self, count: int | None) -> bool:
        while count is None or len(self._found) < count:
            probe = next(self._waiting, None)
            if probe is None:
                break
            self._found.append(probe)
        return count is not None and len(self._found) >= count

    def _vetted(self, planned: Sequence[Plan]) -> Iterator[Probe]:
        if self.drawing.base is not None:
            example = list(self.drawing.base)
            self._wildest = _wild(self.original.run(example))
            yield "given", example
        for plan in planned:
            arrays = self._accepted(plan)
            if arrays is not None:
                yield plan[0], arrays

    def _draw(self, plan: Plan, shrink: float = 1.0, levels: Sequence[int] | None = None) -> list[ir.Array]:
        kind, pick = plan
        if pick is None:
            return self.drawing.draw(kind, shrink, levels)
        return filled(*pick, self.drawing.ranges, self.drawing.draw("normal", shrink, levels))

    def _accepted(self, plan: Plan) -> list[ir.Array] | None:
        """An input of a kind that the original accepts, with as little overflow as possible."""
        drawn = self._draw(plan)
        share, why = self._share(drawn)
        if share == 0:
            return drawn
        if self._in_vain < _PATIENCE:
            if share is None and not self._based:
                self.drawing.base = self._valid()
                self._based = True
            mended = self._with_other_integers(plan, share, why)
            if mended is None and share is not None:
                mended = self._smaller(plan, share)
            if mended is not None:
                self._in_vain = 0
                return mended
            self._in_vain += 1
        if share is not None:  # infinite however small the input is: part of the function
            self._wildest = max(self._wildest, share)
            return drawn
        self._dropped[plan[0]] = self._dropped.get(plan[0], 0) + 1
        self._why = self._why or why
        return None

    def _share(self, arrays: Sequence[ir.Array]) -> tuple[float | None, str]:
        """The share of results that are not finite; None and the reason if the original refuses the input."""
        try:
            return _wild(self.original.run(arrays)), ""
        except RunError as error:
            if not is_refusal(error):
                raise
            return None, str(error).removesuffix(ADVICE)

    def _better(self, arrays: Sequence[ir.Array], share: float | None) -> bool:
        found, _ = self._share(arrays)
        return found is not None and (share is None or found <= _BETTER * share)

    def _with_other_integers(self, plan: Plan, share: float | None, why: str) -> list[ir.Array] | None:
        """The same kind of input with integers closer to the example; remembers which inputs need that."""
        drawing = self.drawing
        movable = [i for i in range(len(drawing.levels)) if drawing.is_index(i)]
        for level in (MARKED, RANGED, GIVEN):
            raised = [max(old, level) if i in movable else old for i, old in enumerate(drawing.levels)]
            if raised == drawing.levels or (level == GIVEN and drawing.base is None):
                continue
            arrays = self._draw(plan, levels=raised)
            if not self._better(arrays, share):
                continue
            for i in movable if len(movable) > 1 else ():
                alone = [level if j == i else old for j, old in enumerate(drawing.levels)]
                trial = self._draw(plan, levels=alone)
                if alone[i] > drawing.levels[i] and self._better(trial, share):
                    raised, arrays = alone, trial
                    break
            for i, old in enumerate(drawing.levels):
                if raised[i] > old:
                    self._refusals.setdefault(i, why or "it overflows on them")
            drawing.levels = raised
            return arrays
        return None

    def _smaller(self, plan: Plan, share: float) -> list[ir.Array] | None:
        for shrink in _SHRINKS:
            arrays = self._draw(plan, shrink)
            if self._better(arrays, share):
                self._shrunk[plan[0]] = self._shrunk.get(plan[0], 0) + 1
                return arrays
        return None

    def _valid(self) -> list[ir.Array] | None:
        """Some input that the original takes, if one is found."""
        return next((arrays for arrays in self._guesses() if self._share(arrays)[0] is not None), None)

    def _guesses(self) -> Iterator[list[ir.Array]]:
        """Random inputs, then integers that are all equal, count up, or partition an axis."""
        drawing = self.drawing
        levels = [RANGED] * len(drawing.levels)
        for _ in range(_FIRST_TRIES):
            yield drawing.draw("normal", levels=levels)
        sizes = {size for array in drawing.draw("zero") for size in array.shape}
        regular: list[Callable[[ir.Array], ir.Array]] = [np.ones_like, np.zeros_like, _counted_up]
        regular += [_Shares(size, begin) for size in sorted(sizes) for begin in (False, True)]
        for make in regular:
            arrays = drawing.draw("normal", levels=levels)
            yield [
                array if not drawing.is_index(i) or drawing.bounded(i, array.shape).any() else make(array)
                for i, array in enumerate(arrays)
            ]


class _Shares:
    """Lengths that add up to a size, as equal as can be; or the offsets of such pieces."""

    def __init__(self, size: int, begin: bool) -> None:
        self._size, self._begin = size, begin

    def __call__(self, array: ir.Array) -> ir.Array:
        if not array.size:
            return array
        ends = np.arange(array.size + 1) * self._size // array.size
        return (ends[:-1] if self._begin else np.diff(ends)[::-1]).reshape(array.shape).astype(array.dtype)


def _counted_up(array: ir.Array) -> ir.Array:
    return np.arange(array.size).reshape(array.shape).astype(array.dtype)


def _wild(outputs: Sequence[ir.Array]) -> float:
    """Share of float entries that are infinite or NaN."""
    floats = [array for array in outputs if array.dtype.name in ir.FLOAT_TYPES]
    total = sum(array.size for array in floats)
    return sum(int(np.count_nonzero(~np.isfinite(array.astype(np.float64)))) for array in floats) / max(
        total, 1
    )


def _counted(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())
