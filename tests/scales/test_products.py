"""Products are rounded once, whatever path they take; what overflows is reported."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import pytest

from graphnorm.util.typing import Floats
from graphnorm.weights.products import multiplied

RNG = np.random.default_rng(0)


def factors(*shapes: tuple[int, ...], spread: float = 3.0) -> list[Floats]:
    return [np.exp(spread * RNG.normal(size=shape)) for shape in shapes]


def precise(old: np.ndarray, given: Sequence[Floats]) -> np.ndarray:
    """In extended precision, rounded to float32."""
    product = old.astype(np.longdouble)
    for factor in given:
        product = product * factor.astype(np.longdouble)
    return product.astype(old.dtype)


CASES: dict[str, tuple[tuple[int, ...], list[tuple[int, ...]]]] = {
    "matrix": ((300, 700), [(300, 1), (1, 700)]),
    "convolution": ((40, 30, 3, 3), [(40, 1, 1, 1), (1, 30, 1, 1)]),
    "rows": ((64, 9), [(64, 1)]),
    "columns": ((1, 50), [(1, 50)]),
    "three": ((8, 6, 5), [(8, 1, 1), (1, 6, 1), (1, 1, 5)]),
    "both at once": ((8, 6), [(8, 6)]),
    "vector": ((33,), [(33,)]),
    "number": ((), [()]),
    "empty": ((0, 4), [(0, 1), (1, 4)]),
    "constant": ((5, 4), [(1, 1)]),
}


@pytest.mark.parametrize("name", CASES)
def test_within_half_a_unit(name: str) -> None:
    shape, shapes = CASES[name]
    old, given = np.asarray(RNG.normal(size=shape), dtype=np.float32), factors(*shapes)
    new, bad = multiplied(old, given, exact=False)
    assert bad is None
    assert new.shape == old.shape
    assert new.dtype == old.dtype
    np.testing.assert_array_max_ulp(new, precise(old, given), maxulp=0)


def test_transposed_memory() -> None:
    old, given = np.asfortranarray(RNG.normal(size=(30, 20)).astype(np.float32)), factors((30, 1), (1, 20))
    np.testing.assert_array_equal(multiplied(old, given, False)[0], precise(old, given))


def test_extreme_factors_that_cancel() -> None:
    """One after the other they would lose the weight below the range of float64."""
    old = np.full((3, 2), 1e-30, dtype=np.float32)
    given = [np.full((3, 1), 1e300), np.full((1, 2), 1e-299)]
    new, bad = multiplied(old, given, exact=False)
    assert bad is None
    np.testing.assert_allclose(new, 1e-29, rtol=1e-6)


@pytest.mark.parametrize("size", [4, 400_000])
def test_overflow_is_reported(size: int) -> None:
    old = np.ones((2, size), dtype=np.float32)
    old[1, 3] = 1e30
    new, bad = multiplied(old, [np.full((2, 1), 1e5), np.full((1, size), 1e5)], exact=False)
    assert bad is not None
    assert np.argwhere(bad).tolist() == [[1, 3]]
    assert np.isinf(new[1, 3])
    assert np.isfinite(new[0]).all()


@pytest.mark.parametrize("exact", [False, True])
def test_factors_that_overflow_together_are_reported(exact: bool) -> None:
    old = np.array([[2.0**-900, 0.0], [np.inf, 1.0]])
    given = [np.array([[2.0**800], [1.0]]), np.full((1, 2), 2.0**800)]
    _, bad = multiplied(old, given, exact=exact)
    assert bad is not None
    assert bad.tolist() == [[True, True], [False, False]]


def test_large_weights_are_no_overflow() -> None:
    old = np.full((2, 3), 1e30, dtype=np.float32)  # its square is
    new, bad = multiplied(old, [np.full((2, 1), 2.0), np.full((1, 3), 3.0)], exact=False)
    assert bad is None
    np.testing.assert_allclose(new, 6e30, rtol=1e-6)


def test_weights_that_are_not_finite_stay_so() -> None:
    old = np.array([[np.nan, np.inf], [1.0, 2.0]], dtype=np.float32)
    new, bad = multiplied(old, [np.full((2, 1), 2.0), np.full((1, 2), 2.0)], exact=False)
    assert bad is None
    np.testing.assert_array_equal(new, old * 4)


@pytest.mark.parametrize(
    ("dtype", "bits", "least"),  # of float64 the factors are rounded too
    [
        (np.float16, 11, 6e-8),
        (ml_dtypes.bfloat16, 8, 0.0),
        (np.float64, 52, 0.0),
    ],
)
def test_other_types(dtype: type, bits: int, least: float) -> None:
    old: np.ndarray = RNG.normal(size=(20, 30)).astype(dtype)
    given = factors((20, 1), (1, 30), spread=1.0)
    new, bad = multiplied(old, given, exact=False)
    assert bad is None
    assert new.dtype == old.dtype
    exact = old.astype(np.longdouble) * given[0] * given[1]
    error = np.abs(new.astype(np.longdouble) - exact)
    assert (error <= np.maximum(1.0001 * 2.0**-bits * np.abs(exact), least)).all()


def test_exact_mode_reports_what_was_rounded() -> None:
    old = np.array([[1.0, np.nextafter(np.float32(0), np.float32(1))]], dtype=np.float32)
    new, bad = multiplied(old, [np.full((1, 1), 0.5)], exact=True)
    assert bad is not None
    assert bad.tolist() == [[False, True]]
    assert new[0, 0] == 0.5
