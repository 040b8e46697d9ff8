"""Traits and degrees against what operators compute: claimed but false, and true but missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from graphnorm.ir import Array
from graphnorm.ops.table import TABLE
from graphnorm.ops.traits import Operator, Trait
from tests.support.validating import quiet
from tools.validation.case import ABSENT, Case, Rng
from tools.validation.evaluate import evaluator
from tools.validation.families import GENERATORS
from tools.validation.judge import make_case, stream

CASES = 8
Operands = list[Array | None]
Run = Callable[[Operands], list[Array]]


def drawn(name: str) -> Iterator[tuple[Case, Run, Operands, Rng]]:
    """Cases of an operator with operands in float64."""
    for index in range(CASES):
        case, rng = make_case(name, 0, index), stream(name, 0, index, 7)
        yield case, evaluator(case), [operand.draw(rng) for operand in case.operands], rng


def floats(case: Case, operands: Operands) -> list[int]:
    """Positions of the operands that are numbers to compute with, rather than arguments."""
    found = enumerate(zip(case.operands, operands, strict=True))
    return [i for i, (operand, x) in found if operand.real and x is not None and x.dtype.kind == "f"]


def changed(operands: Operands, places: Sequence[int], change: Callable[[Array], Array]) -> Operands:
    return [change(x) if i in places and x is not None else x for i, x in enumerate(operands)]


def same(one: Sequence[Array], two: Sequence[Array]) -> bool:
    return all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)
        for a, b in zip(one, two, strict=True)
        if a.dtype.kind == "f"
    ) and all(np.array_equal(a, b) for a, b in zip(one, two, strict=True) if a.dtype.kind != "f")


def is_of_degree(row: Operator, case: Case, run: Run, operands: Operands, rng: Rng, degree: float) -> bool:
    factor, places = 3.7, floats(case, operands)
    scaled = run(changed(operands, places, lambda x: factor * x))
    expected = [factor**degree * y if y.dtype.kind == "f" else y for y in run(operands)]
    return same(scaled, expected)


def is_pointwise(row: Operator, case: Case, run: Run, operands: Operands, rng: Rng) -> bool:
    """Entries of the broadcast operands in another order give the same results in that order."""
    places = [0] if row.name == "Dropout" else [i for i, x in enumerate(operands) if x is not None]
    before = run(operands)
    shape = before[0].shape
    order = rng.permutation(int(np.prod(shape)))

    def spread(x: Array) -> Array:
        return np.broadcast_to(x, shape).reshape(-1)

    flat = run(changed(operands, places, spread))
    mixed = run(changed(operands, places, lambda x: spread(x)[order]))
    return same(flat, [y.reshape(-1) for y in before]) and same(mixed, [y[order] for y in flat])


def is_linear(row: Operator, case: Case, run: Run, operands: Operands, rng: Rng) -> bool:
    """f(x + y) - f(x) - f(y) = 0 in all float operands at once."""
    return _adds(case, run, operands, rng, floats(case, operands))


def is_multilinear(row: Operator, case: Case, run: Run, operands: Operands, rng: Rng) -> bool:
    """The same in one of the first two operands at a time."""
    if row.name != "Einsum":  # without a bias
        case = replace(case, operands=(*case.operands[:2], *[ABSENT] * (len(case.operands) - 2)))
        operands = [*operands[:2], *[None] * (len(operands) - 2)]
        run = evaluator(case)
    return all(_adds(case, run, operands, rng, [place]) for place in floats(case, operands))


def _adds(case: Case, run: Run, operands: Operands, rng: Rng, places: Sequence[int]) -> bool:
    others = changed(operands, places, lambda x: rng.standard_normal(x.shape))
    both = [
        x if x is None or y is None or i not in places else x + y
        for i, (x, y) in enumerate(zip(operands, others, strict=True))
    ]
    return same(run(both), [a + b for a, b in zip(run(operands), run(others), strict=True)])


def is_commutative(row: Operator, case: Case, run: Run, operands: Operands, rng: Rng) -> bool:
    turned = replace(case, operands=case.operands[::-1])
    return same(evaluator(turned)(operands[::-1]), run(operands))


def lies_within(row: Operator, case: Case, run: Run, operands: Operands, rng: Rng) -> bool:
    given = [operands[i] for i in floats(case, operands)]
    low, high = (min(x.min() for x in given if x is not None), max(x.max() for x in given if x is not None))
    slack = 1e-12 * max(abs(low), abs(high))
    return all(
        bool(((y >= low - slack) & (y <= high + slack)).all()) for y in run(operands) if y.dtype.kind == "f"
    )


def is_bounded(row: Operator, case: Case, run: Run, operands: Operands, rng: Rng) -> bool:
    """Far outside as well."""
    far = run(changed(operands, floats(case, operands), lambda x: 1e6 * x))
    return all(float(np.abs(y).max()) <= 4 for y in far)


def is_nonnegative(row: Operator, case: Case, run: Run, operands: Operands, rng: Rng) -> bool:
    return all(bool((y >= 0).all()) for y in run(operands) if y.dtype.kind == "f")


def is_finite(row: Operator, case: Case, run: Run, operands: Operands, rng: Rng) -> bool:
    """At zeros as well, where divisions and logarithms are not."""
    still = changed(operands, floats(case, operands), lambda x: x * rng.integers(-1, 2, x.shape))
    return all(not np.isinf(y).any() for y in run(still) if y.dtype.kind == "f")


def only_moves(row: Operator, case: Case, run: Run, operands: Operands, rng: Rng) -> bool:
    given = np.concatenate([np.zeros(1), *(x.ravel() for x in operands if x is not None)])
    return all(bool(np.isin(y, given).all()) for y in run(operands))


FACTS = {
    Trait.POINTWISE: is_pointwise,
    Trait.LINEAR: is_linear,
    Trait.MULTILINEAR: is_multilinear,
    Trait.COMMUTATIVE: is_commutative,
    Trait.WITHIN: lies_within,
    Trait.BOUNDED: is_bounded,
    Trait.NONNEGATIVE: is_nonnegative,
    Trait.FINITE: is_finite,
    Trait.MOVES: only_moves,
}
PAIRS = [
    (name, trait) for name, row in TABLE.items() if name in GENERATORS for trait in FACTS if row.has(trait)
]


def holds(name: str, trait: Trait) -> bool:
    with quiet():
        return all(FACTS[trait](TABLE[name], *item) for item in drawn(name))


@pytest.mark.parametrize(("name", "trait"), PAIRS, ids=[f"{n}-{t.name}" for n, t in PAIRS])
def test_traits_hold(name: str, trait: Trait) -> None:
    assert holds(name, trait)


def degree_fits(name: str, degree: float) -> bool:
    with quiet():
        return all(is_of_degree(TABLE[name], *item, degree) for item in drawn(name))


@pytest.mark.parametrize(
    "name", [name for name, row in TABLE.items() if name in GENERATORS and row.degree is not None]
)
def test_degrees_hold(name: str) -> None:
    assert degree_fits(name, float(TABLE[name].degree or 0))


@pytest.mark.parametrize(
    "name", [name for name, row in TABLE.items() if name in GENERATORS and row.has(Trait.SATURATES)]
)
def test_saturating_functions_have_no_degree(name: str) -> None:
    assert not any(degree_fits(name, degree) for degree in (-1, 0, 0.5, 1, 2))


ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
# They hold for the cases that are drawn, and the table does not say so.
UNSAID: dict[Trait, dict[str, str]] = {
    Trait.POINTWISE: {"graphnorm::Choice": "chooses between branches as a whole"},
    Trait.COMMUTATIVE: {"com.microsoft::BiasGelu": "the second operand must be a vector"},
    Trait.HOMOGENEOUS: {
        "Shape": "integers: of no or any degree",
        "Size": "integers: of no or any degree",
        "EyeLike": "the operand is not read",
        "NonZero": "integers: of no or any degree",
        "Unique": "indices and counts are of another degree than the values",
    },
}


@pytest.mark.parametrize("trait", UNSAID, ids=lambda trait: trait.name)
def test_no_trait_is_missing(trait: Trait) -> None:
    """Traits that all cases of an operator show, and that its row does not have."""
    missing = [
        name
        for name, row in TABLE.items()
        if name in GENERATORS and not row.has(trait) and shows(name, trait)
    ]
    assert missing == list(UNSAID[trait])


def shows(name: str, trait: Trait) -> bool:
    row = TABLE[name]
    try:
        if trait is Trait.HOMOGENEOUS:
            return (
                row.has(Trait.UNARY)
                and row.degree is None
                and any(degree_fits(name, k) for k in (-1, 0, 0.5, 1, 2))
            )
        return (trait is Trait.POINTWISE or row.operands[0] > 1) and holds(name, trait)
    except ERRORS:  # operands of other shapes or in another order are refused
        return False
