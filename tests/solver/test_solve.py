"""The solver against an independent optimiser, its guarantees, and degenerate problems."""

from __future__ import annotations

import numpy as np
import pytest

from graphnorm.solver.arrays import NumpyArrays
from graphnorm.solver.bounds import bounds
from graphnorm.solver.descent import Descent
from graphnorm.solver.masses import ALL, Dense
from graphnorm.solver.problem import Problem, flows, imbalance, make_block, objective
from graphnorm.solver.solve import METHODS, Status, solve, touched
from graphnorm.util.typing import Floats
from tests.support.solver_problems import (
    Forms,
    array,
    chain,
    forms,
    mixed,
    moved,
    problem,
    reference,
    relabelled,
    residual,
)

PROBLEMS = {
    "chain": chain([3, 4, 5, 2]),
    "chain_p1": chain([3, 4, 5, 2], p=1.0),
    "chain_p05": chain([3, 4, 4, 2], p=0.5),
    "chain_p4": chain([3, 4, 4, 2], p=4.0, spread=1.0),
    "chain_p8": chain([3, 4, 4, 2], p=8.0, spread=1.0),
    "mixed": mixed(0),
    "mixed_other": mixed(1),
    "mixed_p1": mixed(2, p=1.0),
    "residual": residual(0),
}


def starting(found: Problem) -> Descent:
    return Descent(found, touched(found), NumpyArrays(), np.zeros(found.count))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_equals_an_independent_optimiser(name: str, method: str) -> None:
    found = PROBLEMS[name]
    solution = solve(found, tol=1e-11, max_cycles=20000, method=method)
    z, value = reference(found)
    assert solution.status is Status.CONVERGED
    assert solution.imbalance <= 1e-11
    assert abs(solution.after - value) <= 1e-12 * value
    assert np.abs(solution.z - z).max() <= 1e-10
    assert solution.after == pytest.approx(objective(found, solution.z))
    assert solution.before == pytest.approx(objective(found, np.zeros(found.count)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_objective_never_rises(name: str, method: str) -> None:
    found = PROBLEMS[name]
    values = [objective(found, np.zeros(found.count))]
    solve(
        found, tol=1e-12, max_cycles=40, method=method,
        watch=lambda at, cycles, seen: values.append(objective(found, at.z)),
    )  # fmt: skip
    assert len(values) > 3
    assert (np.diff(values) <= 1e-13 * values[0]).all()


@pytest.mark.parametrize("name", PROBLEMS)
def test_minimum_is_unique_from_any_rescaled_start(name: str) -> None:
    found = PROBLEMS[name]
    shift = np.random.default_rng(1).normal(size=found.count) * 2
    first, second = solve(found, tol=1e-12), solve(moved(found, shift), tol=1e-12)
    assert np.abs(first.z - (second.z + shift)).max() <= 1e-10
    assert first.after == pytest.approx(second.after, rel=1e-12)


@pytest.mark.parametrize("name", PROBLEMS)
def test_minimum_does_not_depend_on_labels(name: str) -> None:
    found = PROBLEMS[name]
    order = np.random.default_rng(2).permutation(found.count)
    assert (
        np.abs(solve(relabelled(found, order), tol=1e-12).z[order] - solve(found, tol=1e-12).z).max() <= 1e-10
    )


@pytest.mark.parametrize("depth", [5, 30, 100])
def test_depth_does_not_cost_cycles(depth: int) -> None:
    solution = solve(chain([8] * (depth + 1)), tol=1e-8)
    assert solution.converged
    assert solution.cycles <= 15


def test_coarse_correction_earns_its_keep() -> None:
    found = chain([8] * 21)
    plain = solve(found, method="cyclic", max_cycles=5000)
    assert solve(found, method="coarse").cycles * 5 < plain.cycles
    assert solve(found).cycles * 5 < plain.cycles


def test_gives_up_with_a_result() -> None:
    solution = solve(chain([8] * 31), max_cycles=3, method="cyclic")
    assert solution.status is Status.CYCLE_LIMIT
    assert "more cycles" in solution.status.message
    assert solution.cycles == 3
    assert solution.after < solution.before


def zeroed(found: Problem, block: int, rows: int | slice, columns: int | slice) -> Problem:
    array(found.blocks[block])[rows, columns] = 0.0
    return found


def test_dead_neurons_stay_at_one_and_are_reported() -> None:
    found = zeroed(chain([3, 4, 4, 3]), 0, 0, ALL)  # nothing comes into channel 0
    found = zeroed(found, 1, ALL, 2)  # nothing goes out of channel 2
    solution = solve(found)
    assert solution.degenerate.tolist() == [0, 2]
    assert (solution.z[[0, 2]] == 0).all()
    assert solution.converged
    assert np.isfinite(solution.z).all()
    assert (solution.z[[1, 3, 4, 5, 6, 7]] != 0).all()
    assert solution.after == pytest.approx(objective(found, solution.z))


def test_zero_layer_and_frozen_variables() -> None:
    found = zeroed(chain([3, 4, 4, 3]), 1, ALL, ALL)
    assert solve(found).degenerate.tolist() == list(range(8))
    frozen = np.array([True] * 4 + [False] * 4)
    held = solve(chain([3, 4, 4, 3]), frozen=frozen)
    assert (held.z[:4] == 0).all()
    assert (held.z[4:] != 0).all()


@pytest.mark.parametrize("p", [1.0, 2.0, np.inf])
@pytest.mark.parametrize("dead", [1, 3])  # no channel moves; those of one layer do
def test_layers_that_cannot_move_count(p: float, dead: int) -> None:
    found = zeroed(chain([3, 4, 4, 3, 4, 2] if dead == 3 else [3, 4, 4, 3], p=p), dead, ALL, ALL)
    solution = solve(found)
    assert solution.before == pytest.approx(objective(found, np.zeros(found.count)))
    assert solution.after == pytest.approx(objective(found, solution.z))


def test_boundedness_follows_products() -> None:
    assert bounds(starting(mixed(0))).finite.all()
    gated = mixed(0)
    pruned = Problem(6, gated.groups, gated.blocks[:2], 2.0)  # nothing consumes the product
    assert not bounds(starting(pruned)).finite.any()


@pytest.mark.parametrize("name", PROBLEMS)
def test_bounds_hold_the_minimiser(name: str) -> None:
    found = PROBLEMS[name]
    box = bounds(starting(found))
    z = solve(found).z
    assert box.finite.all()
    assert (box.lower <= z).all()
    assert (z <= box.upper).all()


def test_imbalance_sees_an_error() -> None:
    found = chain([3, 4, 3])
    solution = solve(found)
    active = np.ones(found.count, dtype=bool)
    z = solution.z.copy()
    z[2] += 1e-3
    assert imbalance(*flows(found, z), active) == pytest.approx(4e-3, rel=0.2)
    at = starting(found)
    at.move_to(z)
    assert at.imbalance() == pytest.approx(imbalance(*flows(found, z), active), rel=1e-9)


def test_equal_forms_are_summed() -> None:
    mass: Floats = np.arange(6.0).reshape(2, 3)
    rows: Forms = [{0: 1.0}, {0: 1.0}]
    block = make_block("w", mass, forms(rows, 1), forms([{}, {}, {}], 1))
    assert block is not None
    assert array(block).tolist() == [[15.0]]
    assert make_block("w", mass, forms([{}, {}], 1), forms([{}, {}, {}], 1)) is None


@pytest.mark.parametrize("coefficient", [2.0, 0.5])
def test_the_largest_entries_balance_whatever_their_coefficients(coefficient: float) -> None:
    """At p = inf no weight grows beyond the largest: the limit of (c a)^(1/p) is that of a^(1/p)."""
    a, b = np.array([[3.0]]), np.array([[5.0]])
    found = problem(1, [0], [(a, [{0: coefficient}], [{}]), (b, [{}], [{0: -1.0}])], np.inf)
    solution = solve(found)
    best = np.log(5.0 / 3.0) / (1.0 + coefficient)
    assert solution.status is Status.CONVERGED
    assert solution.z == pytest.approx([best], abs=1e-7)
    assert solution.after == pytest.approx(5.0 * np.exp(-best), rel=1e-7)
    rising, falling = flows(found, solution.z)
    assert rising == pytest.approx(falling, rel=1e-7)


def test_float32_columns_of_many_rows() -> None:
    """Sums of 200000 equal numbers, whose plain float32 sum is off by 2e-3."""
    array = np.full((200_000, 2), 0.1, dtype=np.float32)
    mass = Dense(array).fitting(np.float32)
    assert mass is not None
    assert mass.totals is not None
    exact = array.sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(mass.totals[1], exact, rtol=1.5e-6)
    np.testing.assert_allclose(mass.left(np.ones(len(array))), exact, rtol=1e-5)
    np.testing.assert_allclose(mass.left(np.ones(len(array)), slice(1, 2)), exact[1:], rtol=1e-5)
