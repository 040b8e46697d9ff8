"""Which conditions the model alone determines, for all inputs and all sizes.

A number that was computed from sizes may be the same at all sizes that were tried and yet change at
another (`length > 1000`).  So each entry of a known array is traced back to the sizes it was read from.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from graphnorm.frontends.onnx.compute import run_step
from graphnorm.frontends.onnx.sizes import Sized
from graphnorm.frontends.onnx.steps import Step
from graphnorm.ops.table import having
from graphnorm.ops.traits import Trait

Mask = npt.NDArray[np.bool_]

# Operators that move entries: operand 0 (Concat: all operands) is moved, the others say how.
_MOVES = having(Trait.MOVES | Trait.WITHIN) | {"Identity"}


class Variation:
    """Entries of known arrays that depend on sizes which vary, found on demand."""

    def __init__(self, sized: Sized) -> None:
        self._sized = sized
        self._makers: dict[str, Step] = {}
        self._masks: dict[str, Mask] = {}
        self._loose: set[str] = set()  # other sizes may give these another rank

    def add(self, step: Step) -> None:
        """Make the results of a step known."""
        self._makers.update((name, step) for name in step.results if name)
        self.follow((*step.operands, *step.captured), step.results)

    def follow(self, operands: Iterable[str], results: Iterable[str], *, choice: bool = False) -> None:
        """Results whose shape follows from operands, or is that of either operand (`choice`)."""
        names = list(operands)
        shapes = {self._sized.first.shape(name) for name in names} if choice else set()
        if len(shapes) > 1 or not self._loose.isdisjoint(names):
            self._loose.update(results)

    def is_settled(self, name: str) -> bool:
        """Whether a value is one known number, at all sizes and for all weights."""
        return self.is_fixed(name) and self._sized.first.known[name].size == 1

    def is_fixed(self, name: str) -> bool:
        """Whether a value is one known array, at all sizes and for all weights."""
        if not self._sized.first.is_constant(name) or self._sized.changes(name):
            return False
        return not self._mask(name).any()

    def has_fixed_rank(self, name: str) -> bool:
        """Whether no other size gives the value another rank."""
        return name not in self._loose

    def _mask(self, name: str) -> Mask:
        if name not in self._masks:
            self._masks[name] = self._find(name)
        return self._masks[name]

    def _find(self, name: str) -> Mask:
        array = self._sized.first.known[name]
        step = self._makers.get(name)
        if step is None:
            return np.zeros(array.shape, np.bool_)
        op = step.node.op_type
        if op in ("Shape", "Size"):
            return self._of_sizes(step, array.shape)
        if any(operand and operand not in self._sized.first.known for operand in step.operands):
            return np.ones(array.shape, np.bool_)
        masks = [self._mask(operand) for operand in step.operands if operand]
        if op == "Cast":
            return masks[0]
        moved = masks if op == "Concat" else masks[:1]
        if op in _MOVES and not any(mask.any() for mask in masks[len(moved) :]):
            found = self._move(step, name, len(moved))
            if found is not None:
                return found
        return np.full(array.shape, any(mask.any() for mask in masks))

    def _of_sizes(self, step: Step, shape: tuple[int, ...]) -> Mask:
        operand = step.operands[0]
        size = self._sized.first.shape(operand)
        if size is None or operand in self._loose:
            return np.ones(shape, np.bool_)
        axes = self._sized.varying_axes(operand, size)
        if step.node.op_type == "Size":
            return np.full(shape, bool(axes))
        varies = np.array([axis in axes for axis in range(len(size))], np.bool_)
        return varies[step.node.attributes.get_int("start", 0) : step.node.attributes.get_int("end", None)]

    def _move(self, step: Step, name: str, moved: int) -> Mask | None:
        """Move the mask as the node moves the array."""
        arrays = {operand: self._sized.first.known[operand] for operand in step.operands if operand}
        for operand in step.operands[:moved]:
            arrays[operand] = self._mask(operand).astype(arrays[operand].dtype)
        found = run_step(step, arrays)
        return None if found is None else found[name] != 0
