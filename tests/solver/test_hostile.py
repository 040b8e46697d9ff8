"""Hostile problems: no inf, no NaN, no endless loop, and a result that says how it ended."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphnorm.solver.problem import Problem, objective
from graphnorm.solver.solve import Solution, Status, solve
from graphnorm.util.typing import Floats
from tests.support.solver_problems import array, chain, layers


def random_layers(depth: int, width: int, seed: int, weight: str) -> list[Floats]:
    """Absolute weights of a chain, (out, in)."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(depth):
        w = rng.normal(size=(width, width))
        if weight == "heavy":
            w = rng.standard_t(1.1, size=w.shape) * np.exp(2 * rng.normal(size=w.shape))
        elif weight == "pruned":
            w = w * (rng.random(w.shape) < 0.05)
        elif weight == "wide":  # 1e-30 to 1e30
            w = w * 10 ** rng.uniform(-30, 30, size=w.shape)
        elif weight == "fp16":
            w = (w * 1e-4).astype(np.float16).astype(np.float64)
        found.append(np.abs(w))
    return found


def check(found: Problem, solution: Solution) -> None:
    assert np.isfinite(solution.z).all()
    assert np.isfinite([solution.before, solution.after]).all()
    assert solution.after <= solution.before * (1 + 1e-12)
    assert solution.after == pytest.approx(objective(found, solution.z), rel=1e-9)


@pytest.mark.parametrize("weight", ["heavy", "pruned", "fp16", "wide"])
@pytest.mark.parametrize("depth", [4, 20])
def test_hostile_weights(weight: str, depth: int) -> None:
    found = layers([w**2 for w in random_layers(depth, 100, 0, weight)])
    solution = solve(found, tol=1e-8, certify=True)
    check(found, solution)
    assert solution.status is Status.CONVERGED
    assert solution.cycles <= 25
    assert solution.gap is not None
    assert solution.gap <= 1e-12


@pytest.mark.parametrize("p", [0.5, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("weight", ["heavy", "wide"])
def test_exponents(p: float, weight: str) -> None:
    found = layers([w**p for w in random_layers(5, 30, 1, weight)], p)
    solution = solve(found, tol=1e-8)
    check(found, solution)
    assert solution.status is Status.CONVERGED
    assert solution.cycles <= 25


def test_a_thousand_layers() -> None:
    found = layers([w**2 * 1.44 ** (k % 7) for k, w in enumerate(random_layers(1000, 6, 2, "normal"))])
    solution = solve(found, tol=1e-8, certify=True)
    check(found, solution)
    assert solution.converged
    assert solution.cycles <= 15
    assert solution.gap is not None
    assert solution.gap <= 1e-12


def test_one_channel_layers_and_disconnected_pieces() -> None:
    ones = layers([np.full((1, 1), 4.0**k) for k in (3, -5, 0, 2)])
    solution = solve(ones, tol=1e-12)
    check(ones, solution)
    assert solution.after == pytest.approx(4.0, rel=1e-12)  # four equal masses of product 1
    block = np.zeros((6, 6))
    block[:3, :3], block[3:, 3:] = 1.0, 7.0
    apart = layers([np.ones((6, 2)), block, np.ones((2, 6))])
    check(apart, solve(apart, tol=1e-12))


def test_weights_beyond_float64_are_refused_with_a_reason() -> None:
    found = chain([3, 4, 4, 3], spread=0.0)
    array(found.blocks[1])[:] = np.inf
    solution = solve(found)
    assert solution.status is Status.OUT_OF_RANGE
    assert "smaller p" in solution.status.message
    assert (solution.z == 0).all()


def test_rounding_ends_a_hopeless_tolerance() -> None:
    found = chain([30, 40, 40, 30])
    solution = solve(found, tol=1e-30, max_cycles=10**6)
    assert solution.status is Status.ROUNDING
    assert solution.imbalance < 1e-13


@pytest.mark.parametrize("weight", ["normal", "heavy", "pruned"])
def test_largest_entries_balance(weight: str) -> None:
    weights = random_layers(5, 20, 3, weight)
    found = layers(weights, np.inf)
    solution = solve(found, tol=1e-8)
    assert solution.converged
    assert np.isfinite(solution.z).all()
    z = solution.z
    scaled = []
    for k, w in enumerate(weights):
        into = z[20 * k : 20 * (k + 1)] if k < 4 else np.zeros(20)
        out = z[20 * (k - 1) : 20 * k] if k > 0 else np.zeros(20)
        scaled.append(w * np.exp(into[:, None] - out))
    for before, after in itertools.pairwise(scaled):
        come, go = before.max(axis=1), after.max(axis=0)
        live = (come > 0) & (go > 0)
        mine = np.isin(np.arange(20), np.flatnonzero(live))
        ratio = np.abs(np.log(come[mine]) - np.log(go[mine]))
        assert np.sort(ratio)[: len(ratio) - len(solution.degenerate)].max(initial=0.0) <= 1e-8
    assert solution.after <= solution.before * (1 + 1e-14)  # the largest entry may be one that cannot move
    assert solution.after == pytest.approx(max(s.max() for s in scaled))


@pytest.mark.parametrize("weight", ["normal", "heavy", "fp16", "wide"])
def test_largest_entries_of_deep_networks(weight: str) -> None:
    """On the way there are exponents so large that powers of most entries vanish."""
    found = layers(random_layers(20, 60, 4, weight), np.inf)
    solution = solve(found, tol=1e-6)
    assert np.isfinite(solution.z).all()
    assert solution.cycles <= 320
    assert solution.imbalance <= 1e-3
    assert solution.after <= solution.before * (1 + 1e-14)  # the largest entry may be one that cannot move
