"""Coarse correction: the same problem with one shift per channel group, solved by damped Newton.

Slow modes of cyclic descent are layer-wide shifts that diffuse through depth.  Their problem has a few
hundred unknowns: Phi(t) = sum_q B_q exp(p k_q . t) over pairs of profiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

from graphnorm.solver.arrays import Array
from graphnorm.solver.cyclic import sweep
from graphnorm.solver.descent import CompiledBlock, Descent
from graphnorm.solver.method import Limits, Run
from graphnorm.solver.problem import Floats, Integers

_STEPS = 200
_MAX_STEP = 2.0  # in p t: keeps the quadratic model honest far from the optimum
_DENSE = 400  # unknowns up to which a dense factorisation is faster


@dataclass(frozen=True, slots=True)
class _Totals:
    """How a block's masses are summed to pairs of profiles, and which pairs can move."""

    block: CompiledBlock
    rows: Array
    columns: Array  # (entries, profiles) matrices of 0 and 1
    moving: Integers


class Coarse:
    """The coarse problem of a descent; its structure is found once."""

    def __init__(self, at: Descent) -> None:
        self._at = at
        self._parts: list[_Totals] = []
        forms: list[sp.csr_array] = []
        for block in at.blocks:
            rows, columns = block.sides
            pairs = [(row, column) for row in rows.profiles for column in columns.profiles]
            moving = np.array([k for k, (row, column) in enumerate(pairs) if row or column])
            self._parts.append(
                _Totals(block, *(_members(at, side.profile) for side in block.sides), moving)
            )
            forms += [_form((*pairs[k][0], *pairs[k][1]), at.problem.group_count) for k in moving]
        groups = at.problem.group_count
        self._forms = sp.csr_array(sp.vstack(forms)) if forms else sp.csr_array((0, groups))
        group = np.zeros(at.count, dtype=np.int64)
        group[:] = at.problem.groups
        self._group = at.arrays.array(group)
        self._moves = at.arrays.array(at.arrays.host(at.active).astype(np.float64))

    def shift(self) -> Array:
        """The shift of every variable (equal within a group) that minimises Phi at the current point."""
        if not self._parts:
            return self._at.arrays.zeros(self._at.count)
        masses, levels = [], []
        for part in self._parts:
            rows, columns = part.block.sides
            found = part.block.mass.right(columns.factor[:, None] * part.columns)
            masses.append(((rows.factor[:, None] * part.rows).T @ found).reshape(-1))
            levels.append(self._at.level(part.block))
        at = self._at
        together = at.arrays.host(at.xp.concatenate([*masses, at.xp.stack(levels)]))  # one transfer
        logs, start = [], 0
        with np.errstate(divide="ignore"):
            for i, (part, mass) in enumerate(zip(self._parts, masses, strict=True)):
                values = together[start : start + len(mass)][part.moving]
                logs.append(np.log(values) + together[i - len(self._parts)])
                start += len(mass)
        t = minimise(self._forms, np.concatenate(logs), at.p)
        return at.arrays.array(t)[self._group] * self._moves


def coarse(at: Descent, limits: Limits) -> Run:
    """A coarse correction before each sweep."""
    correction = Coarse(at)
    cycles, left = 0, at.imbalance()
    while left > limits.tol and cycles < limits.max_cycles:
        at.move_to(at.z + correction.shift())
        seen = sweep(at)
        cycles += 1
        limits.tell(at, cycles, seen)
        if seen <= limits.tol or cycles == limits.max_cycles:
            left = at.imbalance()
    return Run(cycles, left)


def _members(at: Descent, profile: Integers) -> Array:
    matrix = np.zeros((len(profile), int(profile.max(initial=0)) + 1))
    matrix[np.arange(len(profile)), profile] = 1.0
    return at.arrays.array(matrix)


def _form(terms: tuple[tuple[int, float], ...], groups: int) -> sp.csr_array:
    index, data = [g for g, _ in terms], [c for _, c in terms]
    form = sp.csr_array((data, ([0] * len(index), index)), shape=(1, groups))
    form.sum_duplicates()
    return form


def minimise(forms: sp.csr_array, log_masses: Floats, p: float) -> Floats:
    """Minimise sum_q exp(log_masses_q + p forms_q t) over t by damped Newton."""
    t = np.zeros(forms.shape[1])
    alive = np.isfinite(log_masses)
    forms, base = sp.csr_array(forms[np.flatnonzero(alive)]), log_masses[alive]
    if not len(base):
        return t
    base = base - base.max()
    current = np.exp(base)
    value = current.sum()
    for _ in range(_STEPS):
        gradient = p * (forms.T @ current)
        if np.abs(gradient).max(initial=0.0) <= 1e-15 * p * value:
            break
        step = -_solved(forms, current, p, gradient)
        step *= min(1.0, _MAX_STEP / (p * np.abs(step).max(initial=1e-300)))
        slope, size = float(gradient @ step), 1.0
        while True:
            trial = np.exp(base + p * (forms @ (t + size * step)))
            if trial.sum() <= value + 1e-4 * size * slope or size < 1e-6:
                break
            size /= 2
        if not trial.sum() <= value:
            break
        t, current, value = t + size * step, trial, trial.sum()
    return t


def _solved(forms: sp.csr_array, current: Floats, p: float, gradient: Floats) -> Floats:
    """Hessian^-1 gradient, lightly regularised: groups that nothing holds stay."""
    weighted = sp.dia_array((current[None, :], [0]), shape=(len(current),) * 2)
    hessian = p * p * (forms.T @ weighted @ forms)
    n = len(gradient)
    small = 1e-14 * float(hessian.diagonal().sum()) / n + 1e-300
    if n <= _DENSE:
        dense = hessian.toarray()
        dense[np.diag_indices(n)] += small
        return np.asarray(np.linalg.solve(dense, gradient))
    regular = sp.csc_array(hessian + small * sp.eye_array(n))
    return np.asarray(scipy.sparse.linalg.spsolve(regular, gradient))
