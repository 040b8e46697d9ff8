"""Concrete input sizes for symbolic dimensions, and the axes that vary with them.

The graph is evaluated at example sizes, chosen so that no node fails, and once more at other sizes:
an axis whose size differs between the two is dynamic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graphnorm.errors import InputError
from graphnorm.frontends.onnx.evaluation import Evaluation
from graphnorm.ir import Array, Value

Dimension = int | str  # a fixed size, or the name of a symbol
Dimensions = Mapping[str, Sequence[Dimension] | None]  # per input; None where the rank is unknown
Sizes = Mapping[str, int]  # per symbol
Role = Literal["batch", "channel", "spatial", "length"]
Evaluate = Callable[[Sizes], Evaluation]

# Image sides and sequence lengths that are tried in turn.
_CANDIDATES = ((224, 16), (64, 64), (32, 32), (256, 256), (48, 128), (320, 512), (640, 576), (48, 1024))


@dataclass(frozen=True, slots=True)
class Sized:
    """The evaluation at the chosen sizes, and those at other sizes (none if nothing is symbolic)."""

    sizes: Sizes
    first: Evaluation
    others: tuple[Evaluation, ...] = ()

    @property
    def all(self) -> tuple[Evaluation, ...]:
        return self.first, *self.others

    def value(self, name: str, dtype: str) -> Value:
        """The value's shape, with the axes marked that vary."""
        shape = self.first.shape(name)
        if shape is None:
            return Value(name, shape, dtype)
        dynamic = range(len(shape)) if self.changes(name) else self.varying_axes(name, shape)
        return Value(name, shape, dtype, frozenset(dynamic))

    def varying_axes(self, name: str, shape: tuple[int, ...]) -> frozenset[int]:
        """The axes of a value of this shape whose size varies."""
        axes = frozenset(range(len(shape)))
        found: frozenset[int] = frozenset()
        for other in self.others:
            size = other.shape(name)
            unlike = size is None or len(size) != len(shape)
            found |= axes if size is None or unlike else {i for i in axes if size[i] != shape[i]}
        return found

    def check(self) -> None:
        """Refuse nodes that are invalid at all sizes of the inputs.

        Raises:
            ModelFileError: names the node.
        """
        for result, (step, why) in self.first.broken.items():
            reads = [(name, self.first.shape(name)) for name in step.operands if name]
            fixed = all(
                shape is not None and not self.varying_axes(name, shape) and not self.changes(name)
                for name, shape in reads
            )
            if fixed and all(result in other.broken for other in self.others):
                raise step.invalid(why)

    def is_foldable(self, name: str) -> bool:
        """Whether a computed value may become a constant.

        One that varies with the input sizes may only if its `Value` can say so (an axis to mark
        as dynamic) and if it is an operand of shapes or indices, not of arithmetic.
        """
        if not self.first.is_constant(name):
            return False
        array = self.first.known[name]
        return not self.changes(name) or (array.ndim > 0 and array.dtype.kind in "biu")

    def changes(self, name: str) -> bool:
        """Whether a known array is another one at other sizes."""
        return self.first.is_constant(name) and any(
            not _same(self.first.known[name], other.known.get(name)) for other in self.others
        )


def _same(first: Array, second: Array | None) -> bool:
    if second is None or first is second:
        return second is not None
    return np.array_equal(first, second, equal_nan=first.dtype.kind in "fc")


def choose_sizes(
    dimensions: Dimensions,
    requested: Mapping[str, Sequence[int]],
    evaluate: Evaluate,
    source: str,
) -> Sized:
    """Evaluate at the best of the example sizes, then at other sizes.

    Raises:
        InputError: `requested` doesn't fit the model's inputs, or an input's rank is unknown.
    """
    given = bind_request(dimensions, requested, source)
    roles = _roles(dimensions)
    sizes, first = _best(_examples(roles, given), evaluate) if roles else ({}, evaluate({}))
    if first.uncounted:  # how often these loops run is one more size that varies
        roles |= dict.fromkeys(sorted(first.uncounted), "length")
        sizes, first = _best(_examples(roles, given), evaluate)
    return Sized(sizes, first, _vary(sizes, evaluate, _score(first)) if roles else ())


def bind_request(
    dimensions: Dimensions, requested: Mapping[str, Sequence[int]], source: str
) -> dict[str, int]:
    """Sizes of the symbols that the user's shapes determine."""
    found: dict[str, int] = {}
    unknown = [name for name in requested if name not in dimensions]
    if unknown:
        inputs = ", ".join(repr(name) for name in dimensions) or "none"
        raise InputError(f"{source}: no input is named {unknown[0]!r}; its inputs are: {inputs}")
    for name, dims in dimensions.items():
        where = f"{source}: input {name!r}"
        if name not in requested:
            if dims is None:
                raise InputError(
                    f"{where} has an unknown number of dimensions; "
                    f"give its shape, for instance --input {name}:1x3x224x224"
                )
            continue
        shape = tuple(requested[name])
        if any(size < 1 for size in shape):
            raise InputError(f"{where}: sizes must be positive, got {_show(shape)}")
        # An input of unknown rank takes any shape; its symbols are named after its axes.
        dims = [axis_symbol(name, axis) for axis in range(len(shape))] if dims is None else dims
        if len(dims) != len(shape):
            raise InputError(f"{where} has {len(dims)} dimensions ({_show(dims)}), got {_show(shape)}")
        for dim, size in zip(dims, shape, strict=True):
            fixed = found.setdefault(dim, size) if isinstance(dim, str) else dim
            if fixed != size:
                raise InputError(
                    f"{where}: dimension {dim!r} is {fixed} in the model or another input, "
                    f"got {size} in {_show(shape)}; the model's shape is {_show(dims)}"
                )
    return found


def axis_symbol(name: str, axis: int) -> str:
    """The symbol of an axis that the file leaves unnamed."""
    return f"{name}[{axis}]"


def _show(dims: Iterable[Dimension]) -> str:
    return "x".join(map(str, dims))


def _roles(dimensions: Dimensions) -> dict[str, Role]:
    """What each symbol stands for; the first reading of a symbol that several inputs share counts."""
    found: dict[str, Role] = {}
    for name, dims in dimensions.items():
        for axis, dim in enumerate(dims or ()):
            if isinstance(dim, str) and found.get(dim, "length") == "length":
                found[dim] = _role(dim, axis, dims or (), name)
    return found


def _role(symbol: str, axis: int, dims: Sequence[Dimension], name: str) -> Role:
    word = symbol.lower()
    if word != axis_symbol(name, axis).lower():
        if "batch" in word or word in ("n", "b"):
            return "batch"
        if any(part in word for part in ("seq", "len", "time")):
            return "length"
    # (batch, ...), or a recurrent state (layers, batch, hidden).
    state = len(dims) == 3 and axis == 1 and isinstance(dims[0], int) and dims[0] > 1
    if state or (axis == 0 and len(dims) > 1):
        return "batch"
    if len(dims) != 4:
        return "length"
    # Channels come last in some exports of TensorFlow.
    channels_last = dims[3] in (1, 3, 4) and dims[1] not in (1, 3, 4)
    return "channel" if axis == (3 if channels_last else 1) else "spatial"


def _examples(roles: Mapping[str, Role], given: Sizes) -> Iterator[Sizes]:
    """Usual sizes; second, the given ones for others of a kind, which may have to agree."""
    usual = _usual(roles, given)
    yield next(usual)
    open_ = [symbol for symbol in roles if symbol not in given]
    for size in dict.fromkeys(given[symbol] for symbol in roles if symbol in given):
        for role in dict.fromkeys(roles[symbol] for symbol in open_):
            alike = {symbol: size for symbol in open_ if roles[symbol] == role}
            yield next(_usual(roles, {**given, **alike}))
    yield from usual


def _usual(roles: Mapping[str, Role], given: Sizes) -> Iterator[Sizes]:
    for channels in (3, 1):
        for spatial, length in _CANDIDATES:
            default: dict[Role, int] = {"batch": 1, "channel": channels, "spatial": spatial, "length": length}
            yield {symbol: default[role] for symbol, role in roles.items()} | dict(given)


Score = tuple[int, int, int]


def _score(found: Evaluation) -> Score:
    """Failures, unknown shapes, empty tensors: fewer is better, in this order."""
    shapes = [found.shape(name) for name in found.types]
    return len(found.failures), shapes.count(None), len(found.empty)


def _best(choices: Iterable[Sizes], evaluate: Evaluate) -> tuple[Sizes, Evaluation]:
    """The first choice without a failure, else the one with the fewest."""
    best: tuple[Score, Sizes, Evaluation] | None = None
    tried: list[Sizes] = []
    for sizes in choices:
        if sizes in tried:
            continue
        tried.append(sizes)
        found = evaluate(sizes)
        if best is None or _score(found) < best[0]:
            best = _score(found), sizes, found
        if best[0] == (0, 0, 0):
            break
    assert best is not None  # there is always an example
    return best[1], best[2]


# Other sizes than the example's.  Large steps come first: they are visible behind strides.
_STEPS: tuple[Callable[[int], int], ...] = (
    lambda size: size * 3,
    lambda size: size * 2,
    lambda size: size + 32,
    lambda size: max(size // 2, 1),
    lambda size: size + 1,
)


def _vary(sizes: Sizes, evaluate: Evaluate, target: Score) -> tuple[Evaluation, ...]:
    """Evaluations at other sizes, none of them worse than `target`.

    Each symbol moves alone, so that no two changes cancel.  Symbols that can't (two names for one size) move
    together.  Where that fails too, the model runs at one size only, which is no change; but if nothing at
    all could be moved, a failed attempt stands in, and what it does not compute is dynamic.
    """

    def attempts(symbols: Iterable[str]) -> Iterator[Evaluation]:
        names = set(symbols)
        for step in _STEPS:
            other = {name: step(size) if name in names else size for name, size in sizes.items()}
            if other != sizes:
                yield evaluate(other)

    moved = {symbol: _first_good(attempts([symbol]), target) for symbol in sizes}
    found = [other for other in moved.values() if other is not None]
    if len(found) < len(sizes):
        together = _first_good(attempts(sizes), target)
        found += [together] if together is not None else []
    return tuple(found) or (min(attempts(sizes), key=_score),)


def _first_good(found: Iterable[Evaluation], target: Score) -> Evaluation | None:
    return next((other for other in found if _score(other) <= target), None)
