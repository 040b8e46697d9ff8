"""A case: one operator with shapes, attributes, and operands that may move or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphnorm.ir import Array

Rng = np.random.Generator
Sample = Callable[[Rng, tuple[int, ...]], Array]
MOVING = frozenset({"data", "zeros", "weight"})


@dataclass(frozen=True)
class Operand:
    """One operand, by what the minimal network makes of it.

    ``data``: a network input times a gain with one entry per entry; ``zeros``: the same, with known zeros;
    ``weight``: a weight; ``constant``: known and fixed; ``input``: known only at run time and fixed;
    ``absent``: not given.
    """

    kind: str
    shape: tuple[int, ...] = ()
    sample: Sample | None = None
    value: Array | None = None  # of a constant; the 0/1 mask of ``zeros``
    real: bool = True  # floating point, so that its kind may be chosen
    along: tuple[int, ...] | None = None  # axes along which the gain varies; None: all

    @property
    def moves(self) -> bool:
        return self.kind in MOVING

    @property
    def gain_shape(self) -> tuple[int, ...]:
        """Shape of what scales the operand, broadcastable to it."""
        if self.along is None or self.kind == "weight":
            return self.shape
        return tuple(size if axis in self.along else 1 for axis, size in enumerate(self.shape))

    def __str__(self) -> str:
        if self.kind == "absent":
            return "-"
        known = self.value if self.kind == "constant" else None
        values = "" if known is None or known.size > 8 else f"={known.tolist()}"
        gain = (
            f" by {list(self.gain_shape)}"
            if self.kind in {"data", "zeros"} and self.along is not None
            else ""
        )
        return f"{self.kind}{list(self.shape)}{gain}{values}"

    def draw(self, rng: Rng) -> Array | None:
        """Values of the operand, or None where it is absent."""
        if self.kind == "absent":
            return None
        if self.kind == "constant":
            return self.value
        assert self.sample is not None
        array = self.sample(rng, self.shape)
        return array * self.value if self.kind == "zeros" else array


ABSENT = Operand("absent", real=False)


@dataclass(frozen=True)
class Case:
    """An operator with its operands (in ONNX's order), attributes, and number of results.

    ``fine``: every entry of each operand has a scale of its own, also where rules only look at channels.
    Nothing false may be claimed then either, but some of what is true is left out.
    """

    op: str
    operands: tuple[Operand, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    results: int = 1
    fine: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(operand.kind for operand in self.operands)

    def __str__(self) -> str:
        operands = ", ".join(map(str, self.operands))
        attributes = ", ".join(f"{key}={value!r}" for key, value in self.attributes.items())
        return f"{self.op}({operands}; {attributes})" if attributes else f"{self.op}({operands})"


# How values are drawn.


def signed(rng: Rng, shape: tuple[int, ...]) -> Array:
    """On both sides of 0, and away from it."""
    return np.asarray(positive(rng, shape) * rng.choice([-1.0, 1.0], shape))


def positive(rng: Rng, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.uniform(0.4, 2.0, shape))


def above_one(rng: Rng, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.uniform(1.2, 3.0, shape))


def repeating(rng: Rng, shape: tuple[int, ...]) -> Array:
    """Few different values, so that some are equal."""
    return np.asarray(rng.choice([-1.0, -0.5, 0.5, 1.0], shape))


def inside_one(rng: Rng, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.uniform(0.1, 0.9, shape) * rng.choice([-1.0, 1.0], shape))
