"""Optimisation problems for the solver's tests, and an independent optimiser."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.optimize
import scipy.sparse as sp

from graphnorm.solver.masses import Array as Masses
from graphnorm.solver.masses import Dense
from graphnorm.solver.problem import Block, Problem, flows, make_block, objective
from graphnorm.util.typing import Floats

Forms = list[dict[int, float]]


def forms(rows: Forms, count: int) -> sp.csr_array:
    """Sparse (entries, variables) matrix from one dictionary for each form."""
    found = sp.lil_array((len(rows), count))
    for i, row in enumerate(rows):
        for variable, c in row.items():
            found[i, variable] = c
    return sp.csr_array(found)


def problem(
    count: int, groups: Sequence[int], blocks: list[tuple[Floats, Forms, Forms]], p: float = 2.0
) -> Problem:
    """Blocks of (masses, row forms, column forms)."""
    made: list[Block] = []
    for mass, rows, columns in blocks:
        block = make_block("w", mass, forms(rows, count), forms(columns, count))
        assert block is not None
        made.append(block)
    return Problem(count, np.array(groups), tuple(made), p)


def layers(masses: Sequence[Floats], p: float = 2.0) -> Problem:
    """A chain of fully connected layers, masses (out, in); input and output are pinned."""
    widths = [masses[0].shape[1], *(mass.shape[0] for mass in masses)]
    starts = np.cumsum([0, *widths[1:-1]])
    count = int(starts[-1])
    blocks = []
    for layer, mass in enumerate(masses):
        sides: list[sp.csr_array] = []
        for position, sign in ((layer + 1, 1.0), (layer, -1.0)):
            n = widths[position]
            if position in (0, len(masses)):
                sides.append(sp.csr_array((n, count)))
            else:
                index = starts[position - 1] + np.arange(n)
                sides.append(sp.csr_array((np.full(n, sign), (np.arange(n), index)), shape=(n, count)))
        block = make_block(f"layer{layer}", mass, sides[0], sides[1], bool(np.isfinite(p)))
        if block is not None:
            blocks.append(block)
    groups = np.repeat(np.arange(len(widths) - 2), widths[1:-1])
    return Problem(count, groups, tuple(blocks), p)


def chain(widths: Sequence[int], seed: int = 0, spread: float = 3.0, p: float = 2.0) -> Problem:
    """Random masses; layers differ by factors of about exp(spread)."""
    rng = np.random.default_rng(seed)
    return layers(
        [
            rng.random((widths[k + 1], widths[k])) * np.exp(spread * rng.normal())
            for k in range(len(widths) - 1)
        ],
        p,
    )


def mixed(seed: int, p: float = 2.0) -> Problem:
    """Ties, a group joined to itself, a product, a square and an antisymmetric pair."""
    rng = np.random.default_rng(seed)

    def random(m: int, n: int) -> Floats:
        return rng.random((m, n)) * np.exp(rng.normal(size=(m, n)))

    none: Forms = [{}, {}, {}]
    a: Forms = [{i: 1.0} for i in range(3)]
    minus_a: Forms = [{i: -1.0} for i in range(3)]
    b: Forms = [{3 + i: 1.0} for i in range(3)]
    product: Forms = [{i: -1.0, 3 + i: -1.0} for i in range(3)]
    square: Forms = [{3 + i: -2.0} for i in range(3)]
    blocks = [
        (random(3, 3), a, none), (random(3, 3), b, none), (random(3, 3), none, product),
        (random(3, 3), a, minus_a), (random(3, 3), square, none), (random(3, 3), none, minus_a),
    ]  # fmt: skip
    return problem(6, [0, 0, 0, 1, 1, 1], blocks, p)


def residual(seed: int, p: float = 2.0, blocks: int = 3, width: int = 4) -> Problem:
    """One stream that `blocks` branches read and write: a tie of all their outer channels."""
    rng = np.random.default_rng(seed)
    n, count = width, width * (blocks + 1)

    def random() -> Floats:
        return rng.random((n, n)) * np.exp(2 * rng.normal())

    none: Forms = [{}] * n
    out: Forms = [{i: 1.0} for i in range(n)]
    read: Forms = [{i: -1.0} for i in range(n)]
    found = [(random(), out, none), (random(), none, read)]
    for k in range(1, blocks + 1):
        inner: Forms = [{n * k + i: 1.0} for i in range(n)]
        found += [(random(), inner, read), (random(), out, [{n * k + i: -1.0} for i in range(n)])]
    return problem(count, [v // n for v in range(count)], found, p)


def moved(found: Problem, shift: Floats) -> Problem:
    """The problem of the same network with weights rescaled by exp(shift)."""
    blocks = []
    for block in found.blocks:
        r, c = np.exp(found.exponent * (block.rows @ shift)), np.exp(found.exponent * (block.columns @ shift))
        blocks.append(Block(block.name, block.mass.held(np.float64).scaled(r, c), block.rows, block.columns))
    return Problem(found.count, found.groups, tuple(blocks), found.p)


def relabelled(found: Problem, order: np.ndarray) -> Problem:
    """The problem with variable v called order[v]."""
    blocks = []
    for block in found.blocks:
        rows, columns = (
            sp.csr_array((f.data, order[f.indices], f.indptr), shape=f.shape)
            for f in (block.rows, block.columns)
        )
        made = make_block(block.name, block.mass.held(np.float64), rows, columns)
        assert made is not None
        blocks.append(made)
    groups = np.empty_like(found.groups)
    groups[order] = found.groups
    return Problem(found.count, groups, tuple(blocks), found.p)


def array(block: Block) -> Masses:
    """The masses themselves."""
    assert isinstance(block.mass, Dense)
    return block.mass.array


def reference(found: Problem) -> tuple[Floats, float]:
    """Minimiser and minimum by scipy's trust-region Newton method on the log form."""
    dense = [(array(b), b.rows.toarray(), b.columns.toarray()) for b in found.blocks]
    p = found.p

    def gradient(z: Floats) -> Floats:
        rising, falling = flows(found, z)
        return p * (rising - falling)

    def hessian(z: Floats) -> Floats:
        total = np.zeros((found.count, found.count))
        for mass, rows, columns in dense:
            for i, j in np.ndindex(mass.shape):
                form = rows[i] + columns[j]
                total += p * p * mass[i, j] * np.exp(p * (form @ z)) * np.outer(form, form)
        return total

    start = np.zeros(found.count)
    result = scipy.optimize.minimize(
        lambda z: objective(found, z), start, jac=gradient, hess=hessian, method="trust-exact",
        options={"gtol": 1e-14 * objective(found, start), "maxiter": 1000},
    )  # fmt: skip
    z = result.x
    for _ in range(3):  # full steps where rounding stops the trust region
        z = z - np.linalg.solve(hessian(z), gradient(z))
    return z, objective(found, z)
