"""Which outputs changed with the inputs: one that never changes shows nothing about the network before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from graphnorm import ir

_UNITS = 8.0  # of rounding, that an entry must move by


class Movement:
    """Watches outputs input by input.

    An entry moves where it is finite on two inputs and differs by more than rounding. With a single input,
    being finite and not zero counts.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[int, tuple[int, ...]], tuple[Sequence[ir.Array], ir.Array]] = {}
        self._moved: dict[int, bool] = {}
        self._alone: dict[int, bool] = {}  # outputs seen for one input only

    def see(self, inputs: Sequence[ir.Array], outputs: Sequence[ir.Array]) -> None:
        """Record one run."""
        for index, output in enumerate(outputs):
            self._moved.setdefault(index, False)
            self._alone.setdefault(index, True)
            key = index, output.shape
            if key not in self._first:
                self._first[key] = list(inputs), output.copy()
                continue
            before, first = self._first[key]
            if all(_same(*pair) for pair in zip(before, inputs, strict=True)):
                continue
            self._alone[index] = False
            self._moved[index] = self._moved[index] or bool(_differ(first, output).any())

    @property
    def still(self) -> tuple[int, ...]:
        """Outputs that no input changed."""
        lively = {index for (index, _), (_, first) in self._first.items() if _shows(first)}
        return tuple(
            index
            for index, moved in self._moved.items()
            if not moved and not (self._alone[index] and index in lively)
        )


def _differ(first: ir.Array, second: ir.Array) -> npt.NDArray[np.bool_]:
    if first.dtype.name not in ir.FLOAT_TYPES or second.dtype != first.dtype:
        return np.asarray(first != second)
    one, two = first.astype(np.float64), second.astype(np.float64)
    with np.errstate(all="ignore"):
        unit = ir.float_format(first.dtype).eps * np.maximum(np.abs(one), np.abs(two))
        moved = np.abs(one / 2 - two / 2) > _UNITS / 2 * unit
    return np.asarray(moved & np.isfinite(one) & np.isfinite(two))


def _shows(output: ir.Array) -> bool:
    if output.dtype.name not in ir.FLOAT_TYPES:
        return True
    wide = output.astype(np.float64)
    return bool((np.isfinite(wide) & (wide != 0)).any())


def _same(one: ir.Array, two: ir.Array) -> bool:
    return one.shape == two.shape and one.dtype == two.dtype and one.tobytes() == two.tobytes()


def unmoved(network: ir.Graph, still: Sequence[int]) -> tuple[int, ...]:
    """The `still` outputs (indices) that some input leads to: others are the same on every input."""
    reached = set(network.inputs)
    for node in network.nodes:
        if not reached.isdisjoint(node.inputs):
            reached.update(name for name in node.outputs if name)
    names = dict(enumerate(network.outputs))
    return tuple(index for index in still if index not in names or names[index] in reached)


def of_unmoved(network: ir.Graph, still: Sequence[int], inputs: int) -> str:
    """A sentence for the report."""
    known = dict(enumerate(network.outputs))
    names = ", ".join(repr(known.get(index, index)) for index in still)
    return (
        f"output {names} was infinite, NaN or the same on all {inputs} inputs that were tried: the runs show "
        "nothing about what is computed there; give an input (--input) that reaches it"
    )
