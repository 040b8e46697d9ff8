"""Weights that a normal form computes: values in float64, and the sums that rounding is judged by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphnorm import ir
from graphnorm.alignment import leaves
from graphnorm.alignment.leaves import Leaf

RNG = np.random.default_rng(0)
ONE, TWO = (RNG.standard_normal((3, 3)).astype(np.float32) for _ in range(2))
SUM, OTHER = (  # computed already: what is behind an entry is more than the entry
    Leaf(RNG.standard_normal((3, 3)), RNG.uniform(3, 5, (3, 3)), 1e-3, (name,)) for name in ("s", "t")
)


def held(array: ir.Array, name: str = "w") -> Leaf:
    return leaves.leaf_of(array, name)


def test_a_weight_as_it_is() -> None:
    leaf = held(-np.abs(ONE))
    assert leaf.direct
    assert leaf.value.dtype == np.float32
    assert leaf.eps == np.finfo(np.float32).eps
    assert leaf.sources == ("w",)
    assert np.array_equal(leaf.size(), np.abs(ONE).astype(np.float64))
    assert held(np.arange(3)).eps == 0.0
    moved = leaf.moved(lambda array: array.T)
    assert moved.direct
    assert np.array_equal(moved.value, leaf.value.T)
    assert not SUM.direct
    turned = SUM.moved(lambda array: array.T)
    assert np.array_equal(turned.size(), SUM.size().T)


def test_numbers() -> None:
    leaf = leaves.number(-2.5, 1e-7)
    assert (float(leaf.value), float(leaf.size()), leaf.eps, leaf.sources) == (-2.5, 2.5, 1e-7, ())
    assert not leaf.direct


@pytest.mark.parametrize(
    ("combine", "value", "size"),
    [
        (leaves.add, np.add, np.add),
        (leaves.multiply, np.multiply, np.multiply),
        (leaves.contract, np.matmul, np.matmul),
    ],
)
@pytest.mark.parametrize(
    ("first", "second"), [(held(ONE), held(TWO, "u")), (SUM, held(ONE)), (held(ONE), SUM), (SUM, OTHER)]
)
def test_pairs(
    combine: Callable[[Leaf, Leaf], Leaf],
    value: Callable[..., ir.Array],
    size: Callable[..., ir.Array],
    first: Leaf,
    second: Leaf,
) -> None:
    found = combine(first, second)
    np.testing.assert_array_equal(found.value, value(first.exact(), second.exact()))
    np.testing.assert_array_equal(found.size(), size(first.size(), second.size()))
    assert found.sources == (*first.sources, *second.sources)
    assert found.eps == max(first.eps, second.eps)
    assert not found.direct
    assert combine(first, first).sources == first.sources


def test_factors() -> None:
    whole = held(ONE)
    assert leaves.scaled(whole, 1.0).direct
    assert leaves.scaled(whole, -1.0).direct, "a sign rounds nothing"
    np.testing.assert_array_equal(leaves.scaled(whole, 1.0).value, ONE)
    np.testing.assert_array_equal(leaves.scaled(whole, -1.0).value, -ONE)
    np.testing.assert_array_equal(leaves.scaled(SUM, -1.0).size(), SUM.size())
    found = leaves.scaled(SUM, -3.0)
    np.testing.assert_array_equal(found.value, -3 * SUM.value)
    np.testing.assert_array_equal(found.size(), 3 * SUM.size())


def test_products_that_underflow_are_no_numbers() -> None:
    tiny = held(np.array([1e-200, 1e-200, 0.0, 2.0**-511]))
    other = held(np.array([1e-200, 0.0, 1e-200, 2.0**-511]))
    found = leaves.multiply(tiny, other).value
    assert np.isnan(found).tolist() == [True, False, False, False]
    assert found[3] == np.finfo(np.float64).tiny, "the least normal number is one"
    assert np.isnan(leaves.scaled(tiny, 1e-200).value).tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("exponent", "times"), [(2.0, 2.0), (-1.0, 1.0), (0.5, 1.0), (-0.5, 1.0), (3.0, 3.0)]
)
def test_powers_multiply_relative_errors(exponent: float, times: float) -> None:
    value, size = np.array([2.0, 4.0, 0.25]), np.array([6.0, 4.0, 1.0])
    found = leaves.power(Leaf(value, size, 1e-3, ()), exponent)
    np.testing.assert_allclose(found.value, value**exponent)
    np.testing.assert_allclose(found.size(), value**exponent * size / value * times)
    zero = leaves.power(Leaf(np.zeros(1), np.ones(1), 1e-3, ()), 2.0)
    assert (zero.value.tolist(), zero.size().tolist()) == ([0.0], [0.0])


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), ()])
@pytest.mark.parametrize("mean", [False, True])
def test_sums(axes: tuple[int, ...], mean: bool) -> None:
    leaf = Leaf(RNG.standard_normal((2, 3)), RNG.uniform(3, 5, (2, 3)), 1e-3, ())
    found = leaves.summed(leaf, axes, mean)
    reduce = np.mean if mean else np.sum
    np.testing.assert_allclose(found.value, reduce(leaf.value, axis=axes, keepdims=True))
    np.testing.assert_allclose(found.size(), reduce(leaf.size(), axis=axes, keepdims=True))
