"""The solver against an independent optimiser, its guarantees, and degenerate problems."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp

from graphnorm.solver.coarse import coarse_shift
from graphnorm.solver.cyclic import _incidences, _sweep, solve
from graphnorm.solver.degenerate import bounded
from graphnorm.solver.problem import Block, Floats, Problem, flows, imbalance, make_block, objective

Forms = list[dict[int, float]]


def forms(rows: Forms, count: int) -> sp.csr_array:
    found = sp.lil_array((len(rows), count))
    for i, row in enumerate(rows):
        for variable, c in row.items():
            found[i, variable] = c
    return sp.csr_array(found)


def problem(
    count: int, groups: list[int], blocks: list[tuple[Floats, Forms, Forms]], p: float = 2.0
) -> Problem:
    made: list[Block] = []
    for mass, rows, columns in blocks:
        block = make_block("w", mass, forms(rows, count), forms(columns, count), np.array(groups))
        assert block is not None
        made.append(block)
    return Problem(count, np.array(groups), tuple(made), p)


def chain(widths: list[int], seed: int = 0, spread: float = 3.0, p: float = 2.0) -> Problem:
    """A fully connected network: widths include pinned input and output."""
    rng = np.random.default_rng(seed)
    starts = np.cumsum([0, *widths[1:-1]])
    groups = [g for g, n in enumerate(widths[1:-1]) for _ in range(n)]
    blocks = []
    for layer in range(len(widths) - 1):
        mass = rng.random((widths[layer + 1], widths[layer])) * np.exp(spread * rng.normal())
        last, first = layer == len(widths) - 2, layer == 0
        rows: Forms = [{} if last else {int(starts[layer]) + i: 1.0} for i in range(widths[layer + 1])]
        columns: Forms = [{} if first else {int(starts[layer - 1]) + j: -1.0} for j in range(widths[layer])]
        blocks.append((mass, rows, columns))
    return problem(int(starts[-1]), groups, blocks, p)


def mixed(seed: int) -> Problem:
    """Ties, a group joined to itself, a product and an antisymmetric pair."""
    rng = np.random.default_rng(seed)

    def random(m: int, n: int) -> Floats:
        return rng.random((m, n)) * np.exp(rng.normal(size=(m, n)))

    none: Forms = [{}, {}, {}]
    a: Forms = [{i: 1.0} for i in range(3)]
    minus_a: Forms = [{i: -1.0} for i in range(3)]
    b: Forms = [{3 + i: 1.0} for i in range(3)]
    product: Forms = [{i: -1.0, 3 + i: -1.0} for i in range(3)]
    both: Forms = [{3 + i: -1.0} for i in range(3)]
    blocks = [
        (random(3, 3), a, none), (random(3, 3), b, none), (random(3, 3), none, product),
        (random(3, 3), a, minus_a), (random(3, 3), both, none), (random(3, 3), none, minus_a),
    ]  # fmt: skip
    return problem(6, [0, 0, 0, 1, 1, 1], blocks)


def reference(found: Problem) -> tuple[Floats, float]:
    """Minimum by an independent convex optimiser."""

    def gradient(z: Floats) -> Floats:
        rising, falling = flows(found, z)
        return found.p * (rising - falling)

    result = scipy.optimize.minimize(
        lambda z: objective(found, z), np.zeros(found.count), jac=gradient, method="BFGS",
        options={"gtol": 1e-10, "maxiter": 5000},
    )  # fmt: skip
    return result.x, float(result.fun)


PROBLEMS = {
    "chain": chain([3, 4, 5, 2]),
    "chain_p1": chain([3, 4, 5, 2], p=1.0),
    "chain_p05": chain([3, 4, 2], p=0.5),
    "chain_p4": chain([3, 4, 2], p=4.0, spread=1.0),
    "mixed": mixed(0),
    "mixed_other": mixed(1),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_equals_an_independent_optimiser(name: str) -> None:
    found = PROBLEMS[name]
    solution = solve(found, tol=1e-10)
    z, value = reference(found)
    assert solution.converged
    assert solution.imbalance <= 1e-10
    assert solution.after <= value * (1 + 1e-12)
    assert np.abs(solution.z - z).max() < 1e-4  # the reference stops at its own gradient tolerance
    assert solution.after == pytest.approx(objective(found, solution.z))
    assert solution.before == pytest.approx(objective(found, np.zeros(found.count)))


@pytest.mark.parametrize("name", PROBLEMS)
def test_objective_never_rises(name: str) -> None:
    found = PROBLEMS[name]
    z = np.zeros(found.count)
    values = [objective(found, z)]
    groups = _incidences(found)
    for _ in range(20):
        _sweep(found, groups, z)
        values.append(objective(found, z))
        z = z + coarse_shift(found, z)
        values.append(objective(found, z))
    assert (np.diff(values) <= 1e-12 * values[0]).all()


def test_minimum_is_unique_from_any_rescaled_start() -> None:
    found = chain([4, 6, 6, 3])
    shift = np.random.default_rng(1).normal(size=found.count) * 3
    blocks = []
    for block in found.blocks:
        r, c = np.exp(found.p * (block.rows.forms @ shift)), np.exp(found.p * (block.columns.forms @ shift))
        made = make_block(
            "w", r[:, None] * block.mass * c, block.rows.forms, block.columns.forms, found.groups
        )
        assert made is not None
        blocks.append(made)
    moved = Problem(found.count, found.groups, tuple(blocks), found.p)
    first, second = solve(found, tol=1e-12), solve(moved, tol=1e-12)
    assert np.abs(first.z - (second.z + shift)).max() < 1e-10
    assert first.after == pytest.approx(second.after, rel=1e-12)


@pytest.mark.parametrize("depth", [5, 30, 100])
def test_depth_does_not_cost_cycles(depth: int) -> None:
    solution = solve(chain([8] * (depth + 1)), tol=1e-8)
    assert solution.converged
    assert solution.cycles <= 15


def test_coarse_correction_earns_its_keep() -> None:
    found = chain([8] * 21)
    assert solve(found).cycles * 5 < solve(found, coarse=False, max_cycles=2000).cycles


def test_gives_up_with_a_result() -> None:
    solution = solve(chain([8] * 31), max_cycles=3, coarse=False)
    assert not solution.converged
    assert solution.cycles == 3
    assert solution.after < solution.before


def test_dead_neurons_stay_at_one_and_are_reported() -> None:
    found = chain([3, 4, 3])
    found.blocks[0].mass[1] = 0.0  # nothing comes in
    found.blocks[1].mass[:, 2] = 0.0  # nothing goes out
    solution = solve(found)
    assert solution.degenerate.tolist() == [1, 2]
    assert (solution.z[[1, 2]] == 0).all()
    assert solution.converged
    assert np.isfinite(solution.z).all()
    assert (solution.z[[0, 3]] != 0).all()


def test_zero_layer_and_frozen_variables() -> None:
    found = chain([3, 4, 4, 3])
    found.blocks[1].mass[:] = 0.0
    assert solve(found).degenerate.tolist() == list(range(8))
    frozen = np.array([True] * 4 + [False] * 4)
    held = solve(chain([3, 4, 4, 3]), frozen=frozen)
    assert (held.z[:4] == 0).all()
    assert (held.z[4:] != 0).all()


def test_boundedness_follows_products() -> None:
    assert bounded(mixed(0)).all()
    gated = mixed(0)
    pruned = Problem(6, gated.groups, gated.blocks[:2], 2.0)  # nothing consumes the product
    assert not bounded(pruned).any()


def test_extreme_masses_stay_finite() -> None:
    found = chain([3, 4, 4, 3], spread=0.0)
    found.blocks[0].mass[:] *= 1e-60
    found.blocks[2].mass[:] *= 1e60
    solution = solve(found)
    assert np.isfinite(solution.z).all()
    assert solution.converged


def test_imbalance_sees_an_error() -> None:
    found = chain([3, 4, 3])
    solution = solve(found)
    active = np.ones(found.count, dtype=bool)
    z = solution.z.copy()
    z[2] += 1e-3
    assert imbalance(*flows(found, z), active) == pytest.approx(4e-3, rel=0.2)


def test_equal_forms_are_summed() -> None:
    mass = np.arange(6.0).reshape(2, 3)
    rows: Forms = [{0: 1.0}, {0: 1.0}]
    block = make_block("w", mass, forms(rows, 1), forms([{}, {}, {}], 1), np.array([0]))
    assert block is not None
    assert block.mass.tolist() == [[15.0]]
    assert make_block("w", mass, forms([{}, {}], 1), forms([{}, {}, {}], 1), np.array([0])) is None
