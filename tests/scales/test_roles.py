"""Factors of products of weights: in the end each weight is counted, or follows."""

from __future__ import annotations

import numpy as np
import pytest

from graphnorm.ir import Graph, Node, Value
from graphnorm.rescaling.graph import build
from graphnorm.scales.demands import Role


@pytest.mark.parametrize("plain", [False, True])
def test_no_weight_stays_a_factor(plain: bool) -> None:
    """x (a b), alone and before another gain."""
    arrays = {name: np.ones((2, 3) if name in "xyz" else (1, 3)) for name in "xyzabpk"}
    nodes = [Node("p", "Mul", ("a", "b"), ("p",)), Node("y", "Mul", ("x", "p"), ("y",))]
    nodes += [Node("z", "Mul", ("y", "k"), ("z",))] if plain else []
    weights = {name: arrays[name] for name in ("abk" if plain else "ab")}
    values = {name: Value(name, array.shape, "float64") for name, array in arrays.items()}
    graph = build(Graph("g", ("x",), ("z" if plain else "y",), tuple(nodes), values, weights))
    assert graph.dimension == (6 if plain else 3)
    assert Role.FACTOR not in {demand.role for demand in graph.demands}
    assert {demand.weight for demand in graph.demands} == set(weights)


@pytest.mark.parametrize("nodes", [1, 2])
def test_factors_that_are_added(nodes: int) -> None:
    """x + a b: all demands are of factors, and what one gains the other loses."""
    arrays = {name: np.ones((2, 3) if name in "xy" else (1, 3)) for name in "xyabp"}
    made = [Node("p", "Mul", ("a", "b"), ("p",)), Node("y", "Add", ("x", "p")[:: 3 - 2 * nodes], ("y",))]
    values = {name: Value(name, array.shape, "float64") for name, array in arrays.items()}
    graph = build(Graph("g", ("x",), ("y",), tuple(made), values, {name: arrays[name] for name in "ab"}))
    assert graph.dimension == 3
    assert {demand.weight: demand.role for demand in graph.demands} == {"a": Role.WEIGHT, "b": Role.WEIGHT}
