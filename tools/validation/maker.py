"""What generators of cases draw from, and the register of generators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphnorm.ir import Array
from tools.validation.case import ABSENT, Case, Operand, Rng, Sample, signed


class Maker:
    """What generators draw from; `op` is the operator that a case is wanted for.

    In a plain case parameters are weights and all else depends on the network's inputs, as in any network.
    """

    def __init__(self, op: str, rng: Rng, plain: bool = False) -> None:
        self.op = op
        self.rng = rng
        self.plain = plain

    def chance(self, probability: float = 0.5) -> bool:
        return bool(self.rng.random() < probability)

    def choose(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def integer(self, low: int, high: int) -> int:
        """Between `low` and `high`, both included."""
        return int(self.rng.integers(low, high + 1))

    def shape(self, low: int = 1, high: int = 3, entries: int = 18, smallest: int = 1) -> tuple[int, ...]:
        """A shape of `low` to `high` axes with `smallest` to 3 entries each."""
        while True:
            sizes = tuple(self.integer(smallest, 3) for _ in range(self.integer(low, high)))
            if np.prod(sizes) <= entries:
                return sizes

    def broadcast(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that broadcasts against `shape`."""
        kept = [size if self.chance(0.75) else 1 for size in shape]
        return tuple(kept[self.integer(0, len(kept)) if self.chance(0.3) else 0 :])

    def axis(self, rank: int) -> int:
        """An axis, counted from either end."""
        return self.integer(-rank, rank - 1)

    def real(
        self, shape: Sequence[int], sample: Sample = signed, along: tuple[int, ...] | None = None
    ) -> Operand:
        """A floating-point operand, looked at along the axes `along`; `settle` picks its kind."""
        return Operand("data", tuple(shape), sample, along=along)

    def parameter(self, shape: Sequence[int], sample: Sample = signed) -> Operand:
        """An operand that nearly always is a weight."""
        operand = self.real(shape, sample)
        return replace(operand, kind="weight", real=False) if self.plain or self.chance(0.6) else operand

    def maybe(self, operand: Operand) -> Operand:
        """An optional one."""
        return operand if self.chance(0.7) else ABSENT

    def fixed(self, value: Any, dtype: Any = np.int64) -> Operand:
        """A constant argument: sizes, axes, bounds."""
        array = np.asarray(value, dtype=dtype)
        return Operand("constant", array.shape, value=array, real=False)

    def index(self, shape: Sequence[int], below: int, run_time: float = 0.3) -> Operand:
        """Indices of an axis of `below` entries: a constant, or known only at run time."""

        def sample(rng: Rng, size: tuple[int, ...]) -> Array:
            return np.asarray(rng.integers(-below, below, size))

        return self.discrete(shape, sample, run_time)

    def discrete(self, shape: Sequence[int], sample: Sample, run_time: float = 0.3) -> Operand:
        """Integers or booleans: a constant, or known only at run time."""
        if self.chance(run_time):
            return Operand("input", tuple(shape), sample, real=False)
        return Operand("constant", tuple(shape), value=sample(self.rng, tuple(shape)), real=False)

    def case(self, *operands: Operand, results: int = 1, **attributes: Any) -> Case:
        return Case(self.op, operands, attributes, results)


Generator = Callable[[Maker], Case]
GENERATORS: dict[str, Generator] = {}


def cases(*operators: str) -> Callable[[Generator], Generator]:
    """Register a generator of cases for `operators`."""

    def register(function: Generator) -> Generator:
        for operator in operators:
            if operator in GENERATORS:
                raise ValueError(f"{operator} has two generators")
            GENERATORS[operator] = function
        return function

    return register


_KINDS = ("data", "data", "data", "zeros", "weight", "constant")


def settle(case: Case, rng: Rng, plain: bool = False) -> Case:
    """Pick a kind for each floating-point operand that is no parameter; at least one of them moves."""
    if plain or not any(operand.real for operand in case.operands):
        return case
    fine = bool(rng.random() < 0.3) and any(operand.along is not None for operand in case.operands)
    operands = tuple(replace(operand, along=None) for operand in case.operands) if fine else case.operands
    while True:
        chosen = tuple(_as(o, str(rng.choice(_KINDS)), rng) if o.real else o for o in operands)
        if any(operand.moves for operand in chosen):
            return replace(case, operands=chosen, fine=fine)


def _as(operand: Operand, kind: str, rng: Rng) -> Operand:
    if kind == "zeros":
        mask = np.asarray(rng.choice([0.0, 1.0, 1.0], operand.shape))
        mask.reshape(-1)[0] = 1.0  # not all of them
        return replace(operand, kind=kind, value=mask)
    if kind == "constant":
        assert operand.sample is not None
        value = operand.sample(rng, operand.shape)
        if rng.random() < 0.4:  # known zeros
            value = np.asarray(value * rng.choice([0.0, 1.0], operand.shape))
        return replace(operand, kind=kind, value=value)
    return replace(operand, kind=kind)


def compress(case: Case, rng: Rng) -> Case:
    """Give about half of the operands one scale along some axes: their labels have size 1 there.

    The axes that stay are an operand's `along`; where a family has set it, it stays as it is.
    """
    return replace(case, operands=tuple(_compressed(operand, rng) for operand in case.operands))


def _compressed(operand: Operand, rng: Rng) -> Operand:
    longer = [axis for axis, size in enumerate(operand.shape) if size > 1]
    if operand.kind not in {"data", "zeros"} or operand.along is not None or not longer or rng.random() < 0.5:
        return operand
    alike = set(rng.permutation(longer)[: int(rng.integers(1, len(longer) + 1))].tolist())
    return replace(operand, along=tuple(axis for axis in range(len(operand.shape)) if axis not in alike))
