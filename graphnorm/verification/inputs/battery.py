"""Inputs on which models are run.

Floats are drawn in several sizes.  Integers lie within the range that the graph allows (`input_ranges`): rows
of a table are drawn without replacement, so that each occurs in turn; the others have either sign and
magnitudes up to a million, mixed with the numbers that the graph compares them with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from graphnorm import ir
from graphnorm.errors import InputError
from graphnorm.verification.inputs.ranges import Ranges, input_ranges

FREE, MARKED, RANGED, GIVEN = range(4)
"""How far an input's integers may deviate: anywhere; to numbers that the graph compares them with; within
what
the base holds; nowhere."""
_DENSITY = 0.05  # of sparse inputs
_SIZES = {"normal": 1.0, "large": 30.0, "small": 1e-2, "uniform": 1.0, "sparse": 1.0, "zero": 0.0}
_MAGNITUDES = {"normal": 100, "large": 1_000_000, "small": 4, "uniform": 256, "sparse": 10, "zero": 0}
_MARKS = 0.25  # share of free integers that are near a number that the graph compares with
_DECK = 1 << 22  # rows of tables drawn without replacement; rows of larger ones with it
_GROUPS = 64  # of entries of one input with a range of their own

Probe = tuple[str, list[ir.Array]]


def battery(
    network: ir.Graph,
    example: Sequence[ir.Array] | None,
    draws: int = 1,
    seed: int = 0,
    wide: bool = False,
) -> list[Probe]:
    """Inputs to try: the example, `draws` of normal, large and small ones, and zeros.

    Wide: uniform and sparse ones too, and integers beyond the example's.
    """
    drawing = Drawing(network, example, seed, wide)
    given = [] if example is None else [("given", list(example))]
    return given + [(kind, drawing.draw(kind)) for kind in kinds(draws, wide)]


def kinds(draws: int, wide: bool) -> list[str]:
    """Kinds of input, in the order of the battery."""
    each = ["normal", "large", "small"] + (["uniform", "sparse"] if wide else [])
    return each * draws + ["zero"]


class Drawing:
    """Draws inputs of a network.

    Args:
        network: whose inputs are drawn.
        example: valid inputs, if some are known.
        seed: of the generator.
        wide: let integers go beyond the example's range.

    Attributes:
        base: valid inputs: what held entries are, and the range of integers that may not deviate.
        levels: how far the integers of each input may deviate.
    """

    def __init__(
        self,
        network: ir.Graph,
        example: Sequence[ir.Array] | None,
        seed: int = 0,
        wide: bool = False,
    ) -> None:
        self.network = network
        self.ranges: Ranges = input_ranges(network)
        self.base: list[ir.Array] | None = None if example is None else [np.asarray(a) for a in example]
        self.levels = [FREE] * len(network.inputs)
        self._wide = wide
        self._first: list[ir.Array] = [np.empty(0, np.int64) for _ in network.inputs]
        self._generator = np.random.default_rng(seed)
        self._decks: dict[tuple[int, int, int], ir.Array] = {}

    def draw(self, kind: str, shrink: float = 1.0, levels: Sequence[int] | None = None) -> list[ir.Array]:
        """One input of a kind; floats are multiplied by `shrink`."""
        levels = self.levels if levels is None else levels
        return [self._entries(i, kind, shrink, level) for i, level in enumerate(levels)]

    def deal_first(self, index: int, numbers: ir.Array) -> None:
        """Draw these numbers of an input before all others."""
        self._first[index] = np.unique(np.concatenate([self._first[index], numbers]))

    def near(
        self, arrays: Sequence[ir.Array], length: float, generator: np.random.Generator
    ) -> list[ir.Array]:
        """An input next to another: floats moved by `length` times their size, some integers redrawn."""
        drawn = self.draw(str(generator.choice(list(_MAGNITUDES))))
        share = min(max(length, 0.0), 1.0) * generator.uniform()
        return [
            self._moved(i, array, other, length, share, generator)
            for i, (array, other) in enumerate(zip(arrays, drawn, strict=True))
        ]

    def _moved(
        self,
        index: int,
        array: ir.Array,
        other: ir.Array,
        length: float,
        share: float,
        generator: np.random.Generator,
    ) -> ir.Array:
        floats = array.dtype.name in ir.FLOAT_TYPES
        if not self.is_index(index) or not array.size or other.shape != array.shape:
            return _shifted(array, length, generator) if floats else array
        anew = generator.uniform(size=array.shape) < share
        anew.reshape(-1)[generator.integers(array.size)] = True
        if not floats:
            return np.where(anew, other, array)
        held = self.ranges.held[index]
        indices = self.bounded(index, array.shape) | (held if held.shape == array.shape else False)
        return np.where(indices, np.where(anew, other, array), _shifted(array, length, generator))

    def bounded(self, index: int, shape: Sequence[int]) -> ir.Array:
        """Which entries of an input have a range of their own."""
        low, high = self.ranges.low[index], self.ranges.high[index]
        if low.shape != tuple(shape):
            return np.zeros(shape, dtype=bool)
        return np.asarray(np.isfinite(low) & np.isfinite(high) & (low <= high))

    def is_index(self, index: int) -> bool:
        """Whether an input holds integers, or floats that are used as such."""
        ranges = self.ranges
        floats = self.network.values[self.network.inputs[index]].is_float
        limited = np.isfinite(ranges.low[index]).any() or np.isfinite(ranges.high[index]).any()
        return bool(not floats or limited or ranges.held[index].any())

    def _entries(self, index: int, kind: str, shrink: float, level: int) -> ir.Array:
        name = self.network.inputs[index]
        value = self.network.values[name]
        base = None if self.base is None else self.base[index]
        shape = (value.shape or ()) if base is None else base.shape
        dtype = _dtype(name, value.dtype) if base is None or value.is_float else base.dtype
        if base is not None and ((level == GIVEN and self.is_index(index)) or dtype.kind not in "biufcV"):
            return base
        if value.is_float or dtype.kind == "c":
            drawn = np.asarray(_SIZES[kind] * shrink * self._floats(kind, shape, dtype.kind == "c"))
        else:
            drawn = self._integers(index, kind, shape, dtype, level)
        self._constrain(index, drawn, level)
        return np.asarray(drawn).astype(dtype)

    def _floats(self, kind: str, shape: Sequence[int], complex_: bool) -> ir.Array:
        generator = self._generator
        if kind == "uniform":
            return np.asarray(generator.uniform(0, 1, shape))
        normal = np.asarray(generator.standard_normal(shape))
        if complex_:
            normal = normal + 1j * generator.standard_normal(shape)
        sparse = kind == "sparse"
        return np.where(generator.uniform(size=shape) < _DENSITY, normal, 0.0) if sparse else normal

    def _integers(
        self, index: int, kind: str, shape: Sequence[int], dtype: np.dtype[Any], level: int
    ) -> ir.Array:
        base = None if self.base is None else self.base[index]
        generator = self._generator
        stray = self._wide and (base is None or kind == "large")
        low, high = _limits(dtype)
        if level >= RANGED or not (stray or (base is None and high - low < 256)):
            if base is not None and base.size:
                low, high = int(base.min()), int(base.max())
            else:
                low, high = 0, 1
            return np.asarray(generator.integers(low, high, shape, endpoint=True))
        if high - low < 256:
            reach = min(_MAGNITUDES[kind], 256)
            return np.asarray(generator.integers(max(low, -reach), min(high, reach), shape, endpoint=True))
        reach = min(_MAGNITUDES[kind], high)
        drawn = (
            np.floor(np.exp(generator.uniform(0, np.log(reach + 1), shape)) + generator.uniform(size=shape))
            - 1
        )
        if low < 0 and kind != "uniform":
            drawn = drawn * generator.choice([-1, 1], shape)
        marks = self.ranges.landmarks[index]
        if marks.size:
            near = generator.choice(marks, shape)
            if level == FREE:
                near = np.floor(near) + generator.integers(-1, 1, shape, endpoint=True)
            marked = generator.uniform(size=shape) < (_MARKS if level == FREE else 1.0)
            drawn = np.where(marked, near, drawn)
        return np.asarray(np.clip(drawn, low, high)).astype(np.int64)

    def _constrain(self, index: int, drawn: ir.Array, level: int) -> None:
        """Move entries into their range; restore those that are held."""
        shape = drawn.shape
        low, high, held = (part[index] for part in (self.ranges.low, self.ranges.high, self.ranges.held))
        if low.shape != shape:  # the example has another one than the graph was traced with
            return
        if np.isfinite(low).any() or np.isfinite(high).any():
            np.clip(drawn, low, np.maximum(low, high), out=drawn, casting="unsafe")
        bounded = self.bounded(index, shape)
        for least, most in sorted(set(zip(low[bounded].tolist(), high[bounded].tolist(), strict=True)))[
            :_GROUPS
        ]:
            group = bounded & (low == least) & (high == most)
            drawn[group] = self._dealt(index, least, most, int(group.sum()), level)
        if held.any():
            base = None if self.base is None else self.base[index]
            drawn[held] = self._generator.integers(0, 2, int(held.sum())) if base is None else base[held]

    def _dealt(self, index: int, least: float, most: float, count: int, level: int) -> ir.Array:
        """The next `count` integers without replacement; any numbers if the range contains no integer."""
        low, high = int(np.ceil(least)), int(np.floor(most))
        generator = self._generator
        if level >= RANGED and self.base is not None and self.base[index].size:
            inside = np.unique(self.base[index])
            inside = inside[(inside >= low) & (inside <= high)]
            if inside.size:
                return np.asarray(generator.choice(inside, count))
        if high <= low:
            return np.asarray(generator.uniform(least, most, count))
        if high - low >= _DECK:
            return np.asarray(generator.integers(low, high, count, endpoint=True))
        key = (index, low, high)
        cards = self._decks.get(key)
        if cards is None:
            cards = self._shuffled(low, high)
            first = self._first[index]
            first = generator.permutation(first[(first >= low) & (first <= high)])
            cards = np.concatenate([first, cards])
        while cards.size < count:
            cards = np.concatenate([cards, self._shuffled(low, high)])
        self._decks[key] = cards[count:]
        return cards[:count]

    def _shuffled(self, low: int, high: int) -> ir.Array:
        return np.asarray(self._generator.permutation(np.arange(low, high + 1)))


def _shifted(array: ir.Array, length: float, generator: np.random.Generator) -> ir.Array:
    size = float(np.sqrt(np.mean(array.astype(np.float64) ** 2))) or 1.0
    step = length * size * np.asarray(generator.standard_normal(array.shape))
    return np.asarray((array.astype(np.float64) + step).astype(array.dtype))


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Least and greatest number of an integer type."""
    if dtype.kind == "b":
        return 0, 1
    iinfo: Any = ml_dtypes.iinfo
    info = iinfo(dtype)
    return int(info.min), int(info.max)


def _dtype(input_name: str, name: str) -> np.dtype[Any]:
    """The type of entries that can be drawn.

    Raises:
        InputError: of text, sequences and the like none can.
    """
    try:
        return np.dtype(getattr(ml_dtypes, name, name))
    except TypeError as error:
        raise InputError(
            f"input {input_name!r} holds {name}, of which none can be drawn; give example inputs"
        ) from error
