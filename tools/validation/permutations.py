"""Rules for permutations against truth: ``python -m tools.validation.permutations --all``.

Claimed but false: operands are permuted as a rule allows, and the results are not permuted likewise.
True but missing: two places of an axis, or of two axes together, change places, the results are the same but
for the same change along an axis of theirs, and the rule keeps one of these axes in its order.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphnorm import ir
from graphnorm.ir import Array, Node, Value
from graphnorm.permutation.axes import Axis
from graphnorm.permutation.rules import RULES
from graphnorm.permutation.symmetry import Symmetry, Walk
from tools.validation.case import Case
from tools.validation.families import GENERATORS
from tools.validation.judge import Verdict, make_case, stream
from tools.validation.judging import command_line
from tools.validation.truth import Operator

_ALIKE = "places that a window or a sampling treats alike at these sizes only"
ALLOWED: dict[str, str] = {
    "Attention": "heads packed into a last axis; queries and keys are tied where they are as many",
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool", "aten::adaptive_avg_pool"), _ALIKE),
    **dict.fromkeys(("aten::adaptive_max_pool", "Conv", "ConvTranspose", "Resize", "Upsample"), _ALIKE),
    "Gather": "rows that no index picks",
    "GatherElements": "entries that no index picks",
    "Hardmax": "of equal entries the first one counts",
    "Pad": "two places of which one is repeated",
    "TopK": "of two entries that are all picked, the places change places",
    "Pow": "exponents of which two are equal",
    "Slice": "with a step other than 1, entries that are left out",
}
"""Operators whose rules leave out freedoms on purpose, and why."""
_PAIRS = 24  # of axes of different operands that are tried together, a case
_DRAWS = 7  # besides the first: decisions (places, comparisons) agree by chance on a few
Place = tuple[int, int]  # operand, axis


@dataclass(frozen=True)
class Walked:
    """A case, its operands and results, and what the rules say of their axes."""

    case: Case
    operator: Operator
    given: Sequence[Array | None]
    results: Sequence[Array]
    axes: dict[str, tuple[Axis, ...]]
    free: dict[int, int]
    lengths: dict[int, int]

    def is_free(self, place: Place) -> bool:
        """Whether some permutation moves an axis of an operand."""
        axis = self.axes[f"x{place[0]}"][place[1]]
        return any(factor in self.free for segment in axis for factor in segment)


def visited(node: Node, arrays: dict[str, Array], fixed: Sequence[str] = ()) -> Walk:
    """A walk over one node whose operands are weights, but for those that are constants."""
    values = {name: Value(name, array.shape, array.dtype.name) for name, array in arrays.items()}
    held = {name: array for name, array in arrays.items() if name in node.inputs}
    weights = {name: array for name, array in held.items() if name not in fixed}
    constants = {name: held[name] for name in fixed if name in held}
    walk = Walk(ir.Graph("g", (), (), (node,), values, weights, constants))
    walk.visit(node)
    assert not walk.defects, walk.defects
    return walk


def settle(walk: Walk) -> None:
    """Resolve all axes until nothing more is frozen."""
    before = -1
    while before != walk.table.frozen_count:
        before = walk.table.frozen_count
        for axes in walk.found.values():
            for axis in axes:
                walk.table.resolve(axis)


def walked(op: str, index: int, seed: int = 0) -> Walked:
    """A case of an operator, walked by the rules."""
    drawn = make_case(op, seed, index)
    operator = Operator(drawn)
    given = operator.draw(stream(op, seed, index, 1))
    names = ["" if array is None else f"x{k}" for k, array in enumerate(given)]
    results = operator.run(given)
    outs = [f"y{k}" for k in range(len(results))]
    arrays = {n: a for n, a in zip([*names, *outs], [*given, *results], strict=True) if a is not None}
    fixed = [n for n, o in zip(names, drawn.operands, strict=True) if n and o.kind == "constant"]
    walk = visited(Node("n", op, tuple(names), tuple(outs), drawn.attributes), arrays, fixed)
    settle(walk)
    axes = {name: tuple(map(walk.table.resolve, walk.found[name])) for name in arrays if name in walk.found}
    factors = {factor for held in axes.values() for axis in held for s in axis for factor in s}
    lengths = {factor: walk.table.size(factor) for factor in factors}
    free = {f: n for f, n in lengths.items() if n > 1 and not walk.table.is_frozen(f)}
    return Walked(drawn, operator, given, results, axes, free, lengths)


def claimed(found: Walked, seed: int) -> str:
    """Where the results of permuted operands are not the permuted results; "" if nowhere."""
    draw = np.random.default_rng(seed)
    orders = {factor: draw.permutation(size) for factor, size in found.free.items()}
    given = {f"x{k}": array for k, array in enumerate(found.given) if array is not None}
    arrays = given | {f"y{k}": array for k, array in enumerate(found.results)}
    new = Symmetry(found.free, found.axes, found.lengths).apply(orders, arrays)
    again = found.operator.run([None if a is None else new[f"x{k}"] for k, a in enumerate(found.given)])
    for k, result in enumerate(again):
        if not _same(result, new[f"y{k}"]):
            return f"result {k} of {found.case}"
    return ""


def missing(found: Walked) -> Iterator[str]:
    """Axes that a rule keeps in their order, though two of their places may change."""
    if any(array is not None and not array.size for array in found.given):
        return  # nothing is permuted next to a tensor without entries
    draws = [found.given, *(found.operator.draw(np.random.default_rng(seed)) for seed in range(_DRAWS))]
    for places in _candidates(found):
        if all(map(found.is_free, places)):
            continue
        targets = [_targets(found, draw, places) for draw in draws]
        if all(set.intersection(*along) for along in zip(*targets, strict=True)):
            yield f"axes {places} of {found.case}"


def _candidates(found: Walked) -> Iterator[tuple[Place, ...]]:
    places = [
        (k, axis)
        for k, (array, operand) in enumerate(zip(found.given, found.case.operands, strict=True))
        if array is not None and operand.kind != "constant"
        for axis, size in enumerate(array.shape)
        if size > 1
    ]
    yield from ((place,) for place in places)
    sizes = {place: _size(found.given, place) for place in places}
    pairs = (pair for pair in itertools.combinations(places, 2) if pair[0][0] != pair[1][0])
    alike = (pair for pair in pairs if sizes[pair[0]] == sizes[pair[1]])
    yield from itertools.islice(alike, _PAIRS)


def _targets(found: Walked, draw: Sequence[Array | None], places: tuple[Place, ...]) -> list[set[int]]:
    """For each result the axes along which it changes when the operands do; -1: it stays the same."""
    before = found.operator.run(list(draw))
    operands = list(draw)
    for k, axis in places:
        array = operands[k]
        assert array is not None
        operands[k] = _swapped(array, axis)
    after = found.operator.run(operands)
    size = _size(draw, places[0])
    return [
        {
            axis
            for axis in range(-1, one.ndim)
            if axis < 0 or one.shape[axis] == size
            if _same(two, one if axis < 0 else _swapped(one, axis))
        }
        for one, two in zip(before, after, strict=True)
    ]


def _size(operands: Sequence[Array | None], place: Place) -> int:
    array = operands[place[0]]
    assert array is not None
    return int(array.shape[place[1]])


def _same(one: Array, other: Array) -> bool:
    return np.allclose(one, other, rtol=1e-9, atol=1e-12, equal_nan=True)


def _swapped(array: Array, axis: int) -> Array:
    order = np.arange(array.shape[axis])
    order[[0, -1]] = order[[-1, 0]]
    return np.asarray(np.take(array, order, axis=axis))


def validate(op: str, seed: int, index: int) -> Verdict:
    """Draw a case and judge its operator's rule; one without a rule says why in the registry."""
    if op not in RULES:
        cell = RULES.cell(op)
        return Verdict(op, seed, index, "exempt", "" if cell is None else cell.reason)
    found = walked(op, index, seed)
    if wrong := claimed(found, index):
        return Verdict(op, seed, index, "unsound", wrong)
    left = next(missing(found), "")
    if left and op in ALLOWED:
        return Verdict(op, seed, index, "allowed", ALLOWED[op])
    return Verdict(op, seed, index, "missing" if left else "ok", left)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return command_line(__doc__ or "", validate, sorted(GENERATORS), arguments)


if __name__ == "__main__":
    sys.exit(main())
