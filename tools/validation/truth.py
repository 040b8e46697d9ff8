"""What an operator does to numbers: which rescalings of its operands come out as rescalings of its results.

s is a log-scale per entry of the operands that move.  It passes if there is a log-scale t with
op(e^s u) = e^t op(u) for all u.  To first order, with rho_j the gradient of log|y_j| by log|u|, this says
that rho_j . s is the same number t_j at every u: s lies in the null space of the centred gradients over many
draws.  What an operator decides (comparisons, roundings) leaves no gradient, so each null space is also tried
at finite scales; where it fails, the largest group that passes is sought among structured candidates instead.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from graphnorm.ir import Array
from graphnorm.util.typing import Floats
from tools.validation.case import Case, Rng
from tools.validation.evaluate import evaluator

STEP = 3e-5  # of a log-scale, for central differences
NULL = 1e-6  # singular values below are 0
KINK = 1e-2  # one-sided derivatives further apart than this
Arrays = list[Array | None]


class Operator:
    """A case as a function of numbers."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.run = evaluator(case)
        self.moving = [k for k, operand in enumerate(case.operands) if operand.moves]
        sizes = [int(np.prod(case.operands[k].gain_shape)) for k in self.moving]
        self.offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        self.size = int(self.offsets[-1])

    def draw(self, rng: Rng) -> Arrays:
        return [operand.draw(rng) for operand in self.case.operands]

    def scaled(self, operands: Arrays, s: Floats) -> Arrays:
        """Operands times e^s."""
        moved = list(operands)
        for i, k in enumerate(self.moving):
            array = operands[k]
            assert array is not None
            part = s[self.offsets[i] : self.offsets[i + 1]]
            moved[k] = array * np.exp(part).reshape(self.case.operands[k].gain_shape)
        return moved

    def floats(self, operands: Arrays) -> Floats:
        """All floating-point results, flat."""
        parts = [y.ravel() for y in self.run(operands) if y.dtype.kind == "f"]
        return np.concatenate(parts) if parts else np.zeros(0)


def passes(operator: Operator, s: Floats, t: Floats | None, rng: Rng, draws: int, tolerance: float) -> bool:
    """Whether op(e^s u) = e^t op(u) at random u; without `t`, for some t that doesn't depend on u."""
    before, after = [], []
    for _ in range(draws):
        operands = operator.draw(rng)
        first, second = operator.run(operands), operator.run(operator.scaled(operands, s))
        for y, z in zip(first, second, strict=True):
            if y.dtype.kind != "f" and not np.array_equal(y, z):
                return False
            if y.shape != z.shape:
                return False
        before.append(np.concatenate([np.zeros(0), *(y.ravel() for y in first if y.dtype.kind == "f")]))
        after.append(np.concatenate([np.zeros(0), *(z.ravel() for z in second if z.dtype.kind == "f")]))
        if len(before) > 1 and t is None and not _agree(before, after, None, tolerance):
            return False
    return _agree(before, after, t, tolerance)


def _agree(before: list[Floats], after: list[Floats], t: Floats | None, tolerance: float) -> bool:
    y, z = np.stack(before), np.stack(after)
    odd = ~np.isfinite(y) | ~np.isfinite(z)
    same = (np.isnan(y) & np.isnan(z)) | (y == z)
    if (odd & ~same).any():
        return False
    y, z = np.where(odd, 0.0, y), np.where(odd, 0.0, z)
    if t is None:
        power = (y * y).sum(0)
        factor = np.where(power > 0, (y * z).sum(0) / np.where(power > 0, power, 1.0), 1.0)
        if (factor <= 0).any():
            return False
    else:
        factor = np.exp(t)
    size = np.maximum(np.abs(y * factor), np.abs(z)).max(0, initial=0.0)
    return bool((np.abs(z - factor * y) <= tolerance * np.maximum(size, 1e-12)).all())


def _gradients(operator: Operator, rng: Rng, draws: int) -> tuple[Floats, Floats]:
    """Results (draws, m), and their derivatives by log|u| (draws, m, n); NaN at kinks."""
    values, rows = [], []
    with np.errstate(all="ignore"):
        for _ in range(draws):
            operands = operator.draw(rng)
            y = operator.floats(operands)
            columns = []
            for direction in np.eye(operator.size):
                up = operator.floats(operator.scaled(operands, STEP * direction)) - y
                down = y - operator.floats(operator.scaled(operands, -STEP * direction))
                kink = np.abs(up - down) > KINK * STEP * (np.abs(up) / STEP + np.abs(y) + 1e-9)
                columns.append(np.where(kink, np.nan, (up + down) / (2 * STEP)))
            values.append(y)
            rows.append(np.stack(columns, axis=-1) if columns else np.zeros((len(y), 0)))
    return np.stack(values), np.stack(rows)


def null_space(operator: Operator, rng: Rng, draws: int) -> Floats:
    """Directions s (n, k) that to first order come out as a rescaling of each result."""
    y, gradient = _gradients(operator, rng, draws)
    blocks = [np.zeros((1, operator.size))]
    for j in range(y.shape[1]):
        good = np.isfinite(y[:, j]) & np.isfinite(gradient[:, j]).all(-1)
        value, rows = y[good, j], gradient[good, j]
        if not len(rows) or not np.abs(rows).max():
            continue
        if np.abs(value).max() > 0:
            unit = value / np.linalg.norm(value)
            rows = rows - np.outer(unit, unit @ rows)
        blocks.append(rows / max(np.abs(gradient[good, j]).max(), np.abs(value).max()))
    _, singular, basis = np.linalg.svd(np.concatenate(blocks))
    padded = np.zeros(operator.size)
    padded[: len(singular)] = singular[: operator.size]
    return np.asarray(basis[padded <= NULL * max(1.0, padded.max(initial=0.0))].T)


def candidates(operator: Operator) -> Iterator[Floats]:
    """Structured directions: slabs along some axes, in one operand or aligned in several, with signs."""
    shapes = [operator.case.operands[k].gain_shape for k in operator.moving]
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    for axes in itertools.chain.from_iterable(
        itertools.combinations(range(rank), n) for n in range(rank + 1)
    ):
        for signs in itertools.product((0, 1, -1), repeat=len(shapes)):
            if next((sign for sign in signs if sign), 0) != 1:
                continue
            whole = [max(p[a] for p, sign in zip(padded, signs, strict=True) if sign) for a in axes]
            for place in itertools.product(*map(range, whole)):
                parts = []
                for shape, sign in zip(padded, signs, strict=True):
                    inside = np.ones(shape) * sign
                    for axis, index in zip(axes, place, strict=True):
                        if shape[axis] > 1:
                            where = np.arange(shape[axis]).reshape(
                                [-1 if a == axis else 1 for a in range(rank)]
                            )
                            inside = inside * (where == index)
                    parts.append(inside.ravel())
                yield np.concatenate(parts)


def group(operator: Operator, rng: Rng) -> Floats:
    """A basis (n, k) of the rescalings of the operands that the operator lets through."""
    operands = operator.draw(rng)
    outputs = max(1, len(operator.floats(operands)))
    draws = 10 + min(60, -(-3 * operator.size // outputs))
    for _ in range(2):
        basis = null_space(operator, rng, draws)
        tried = [basis @ rng.normal(scale=1.5, size=basis.shape[1]) for _ in range(2)]
        if all(passes(operator, sign * s, None, rng, 20, 1e-5) for s in tried for sign in (1, -1)):
            return basis
        draws *= 2
    found = np.zeros((operator.size, 0))
    for s in candidates(operator):
        if rank(np.column_stack([found, s])) == rank(found):
            continue
        if all(passes(operator, sign * s, None, rng, 40, 1e-9) for sign in (1.2, -1.2)):
            found = np.column_stack([found, s])
    return found


def rank(columns: Floats) -> int:
    """Rank of a matrix of directions."""
    return int(np.linalg.matrix_rank(columns, tol=1e-5)) if columns.size else 0
