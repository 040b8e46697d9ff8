"""Constraint rows against the full grid, elimination against dense linear algebra."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphnorm.scales import labels as lb
from graphnorm.scales.constraints import Constraints, Rows, Term
from graphnorm.scales.elimination import eliminate
from graphnorm.scales.labels import FREE, Labels


def dense(rows: list[Rows], count: int) -> np.ndarray:
    """The equations as a matrix over all labels, label 0 included as a pin."""
    matrix = [np.eye(count)[:1]]
    for batch in rows:
        block = np.zeros((len(batch.labels), count))
        for c, column in zip(batch.coefficients, batch.labels.T, strict=True):
            np.add.at(block, (np.arange(len(block)), column), c)
        matrix.append(block)
    return np.concatenate(matrix)


def full_grid(terms: list[Term]) -> list[Rows]:
    columns = np.broadcast_arrays(*(labels for _, labels in terms))
    table = np.stack([column.ravel() for column in columns], axis=1)
    return [Rows(tuple(c for c, _ in terms), table[(table != FREE).all(axis=1)], 0, "")]


@st.composite
def label_arrays(draw: st.DrawFn, count: int, shape: tuple[int, ...]) -> Labels:
    own = tuple(size if draw(st.booleans()) else 1 for size in shape)
    low = FREE if draw(st.integers(0, 4)) == 0 else 0
    flat = draw(st.lists(st.integers(low, count - 1), min_size=lb.size(own), max_size=lb.size(own)))
    return np.array(flat, dtype=np.int64).reshape(own)


@st.composite
def equations(draw: st.DrawFn) -> tuple[int, list[list[Term]]]:
    count = draw(st.integers(2, 9))
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    found = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 3))
        found.append(
            [
                (draw(st.sampled_from([1.0, -1.0, 2.0, 0.5])), draw(label_arrays(count, shape)))
                for _ in range(size)
            ]
        )
    return count, found


@settings(max_examples=300, deadline=None)
@given(equations())
def test_anchored_rows_span_the_full_grid_and_elimination_solves_them(
    problem: tuple[int, list[list[Term]]],
) -> None:
    count, found = problem
    constraints = Constraints()
    constraints.count = count
    grid: list[Rows] = []
    for terms in found:
        constraints.equation(terms, 0, "test")
        grid += full_grid(terms)
    rank = np.linalg.matrix_rank(dense(grid, count))
    assert np.linalg.matrix_rank(dense(constraints.rows, count)) == rank
    solution = eliminate(count, constraints.rows)
    assert solution.count == count - rank
    basis = solution.basis.toarray()
    assert np.abs(dense(grid, count) @ basis).max(initial=0.0) < 1e-12
    assert np.linalg.matrix_rank(basis) == solution.count


def test_uniform_lets_the_first_constrained_entry_stand_for_the_others() -> None:
    constraints = Constraints()
    a = constraints.fresh((3,), 0, "a")
    shrunk = constraints.uniform(np.array([FREE, a[0], a[1]]), [0], 0, "mixed")
    assert shrunk.tolist() == [a[0]]
    assert eliminate(constraints.count, constraints.rows).count == 2


def test_family_of() -> None:
    constraints = Constraints()
    constraints.fresh((2,), 5, "first")
    second = constraints.fresh((3,), 6, "second")
    assert constraints.family_of(second).tolist() == [1, 1, 1]
