"""What is said of the entries of a result: which input entries they are, and between which bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphnorm.ir import Array, Graph, Node, Value
from graphnorm.verification.inputs.entries import Entries, Reading
from graphnorm.verification.inputs.entry_rules import COMPARISONS, RULES, Walk, as_entries, read
from tools.validation.case import Case, Rng
from tools.validation.evaluate import evaluator

Arrays = Sequence[Array | None]
DRAWS = 4


def entered(case: Case, operands: Arrays, rng: Rng) -> str | None:
    """What is wrong with the reading of the operator's results; None if it has no rule.

    Data are small integers, within known bounds.
    """
    if case.op not in RULES and case.op not in COMPARISONS:
        return None
    moving = [k for k, operand in enumerate(case.operands) if operand.real or operand.kind == "input"]
    moving = [k for k in moving if case.operands[k].kind not in {"constant", "absent"}]
    held = [
        _small(x, rng) if case.operands[k].real and k not in moving else x for k, x in enumerate(operands)
    ]
    walk, node = _walk(case, held, moving)
    readings = read(walk, node)
    run = evaluator(case)
    for _ in range(DRAWS):
        given = list(held)
        for k in moving:
            draw = case.operands[k].draw(rng)
            assert draw is not None
            given[k] = _small(draw, rng) if case.operands[k].real else draw
        flat = np.concatenate([np.zeros(0), *(np.ravel(given[k]) for k in moving)])  # type: ignore[arg-type]
        for j, (reading, found) in enumerate(zip(readings, run(given), strict=True)):
            if case.op in {"Max", "Min"} and _uneven(walk):  # bounds of their own for each entry
                reading = replace(reading, branches=())
            said = _misread(reading, np.asarray(found, dtype=np.float64), flat)
            if said:
                return f"result {j} {said}"
    return ""


def _uneven(walk: Walk) -> bool:
    return any(len(np.unique(array)) > 1 for array in walk.network.constants.values())


def _small(array: Array | None, rng: Rng) -> Array | None:
    """Integers in place of floats."""
    if array is None or array.dtype.kind != "f":
        return array
    return np.asarray(rng.integers(-3, 4, array.shape), dtype=np.float64)


def _walk(case: Case, held: Arrays, moving: Sequence[int]) -> tuple[Walk, Node]:
    """A walk at the node: operands that move are inputs, whose entries are numbered through."""
    names = ["" if x is None else f"u{k}" for k, x in enumerate(held)]
    results = evaluator(case)(list(held))
    ys = tuple(f"y{j}" for j in range(case.results))
    arrays = {f"u{k}": x for k, x in enumerate(held) if x is not None}
    arrays |= dict(zip(ys, results, strict=True))
    node = Node("op", case.op, tuple(names), ys, case.attributes)
    network = Graph(
        case.op, tuple(f"u{k}" for k in moving), ys, (node,),
        {name: Value(name, x.shape, x.dtype.name) for name, x in arrays.items()}, {},
        {f"u{k}": x for k, x in enumerate(held) if x is not None and k not in moving},
    )  # fmt: skip
    walk, start = Walk(network), 0
    for k in moving:
        array = held[k]
        assert array is not None
        places = np.arange(start, start + array.size).reshape(array.shape)
        walk.readings[f"u{k}"] = as_entries(places)
        start += array.size
    return walk, node


def _misread(reading: Reading, found: Array, flat: Array) -> str:
    """How a result is none that the reading allows, or ""."""
    if found.size and (found.min() < reading.low or found.max() > reading.high):
        return f"reaches from {found.min()} to {found.max()}, not from {reading.low} to {reading.high}"
    if not reading.branches:
        return ""
    allowed = [_value(branch, flat, found.shape) for branch in reading.branches]
    allowed = [np.clip(value, reading.low, reading.high) for value in allowed]
    close = [np.isclose(found, value, rtol=1e-12, atol=1e-12) for value in allowed]
    if np.any(close, axis=0).all():
        return ""
    return f"is {found.tolist()}, not {' or '.join(str(value.tolist()) for value in allowed)}"


def _value(branch: Entries, flat: Array, shape: tuple[int, ...]) -> Array:
    entries = np.where(branch.places >= 0, flat[np.maximum(branch.places, 0)] if flat.size else 0.0, 0.0)
    return np.broadcast_to(entries * branch.scale + branch.shift, shape)
