"""Coarse correction: the same problem with one shift per channel group, solved by damped Newton.

Slow modes of cyclic descent are layer-wide shifts that diffuse through depth.  Their problem has a few
hundred unknowns: Phi(t) = sum_q B_q exp(p k_q . t) over pairs of profiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

from graphnorm.solver.arrays import Array, add_at
from graphnorm.solver.blocks import CompiledBlock
from graphnorm.solver.cyclic import sweeps
from graphnorm.solver.descent import Descent
from graphnorm.solver.method import Limits, Run
from graphnorm.util.typing import Floats, Integers

_STEPS = 200  # a safeguard: damped Newton on a convex problem converges long before
_MAX_STEP = 2.0  # in p t: keeps the quadratic model honest far from the optimum
_DENSE = 1 << 17  # masses times unknowns up to which dense matrices are faster
_REGULAR = 1e-14  # of the mean diagonal: makes the singular Hessian of unpinned groups solvable
_NEAR, _POLISH = 1e-10, 2  # below this relative decrease rounding hides it: so many full steps end it
_SHORTEST = 1e-6  # of a step: a shorter one changes Phi by rounding only


@dataclass(frozen=True, slots=True)
class _Totals:
    """How a block's masses are summed to pairs of profiles, and which pairs can move."""

    block: CompiledBlock
    members: tuple[Array, Array]  # (profiles, entries) matrices of 0 and 1
    moving: Integers

    def sums(self) -> Array:
        """Masses of each pair of profiles, over exp(level); from a product that is known, if it can be."""
        rows, columns = self.block.sides
        of_rows, of_columns = self.members
        if len(of_rows) == 1 and len(of_columns) == 1:
            return self.block.total()[None]
        if len(of_columns) == 1:
            return of_rows @ (rows.factor * self.block.product(0))
        if len(of_rows) == 1:
            return of_columns @ (columns.factor * self.block.product(1))
        found = self.block.mass.right((columns.factor * of_columns).T)
        return ((rows.factor * of_rows) @ found).reshape(-1)


class Coarse:
    """The coarse problem of a descent; its structure is found once."""

    def __init__(self, at: Descent) -> None:
        self._at = at
        self._parts: list[_Totals] = []
        terms: list[tuple[tuple[int, float], ...]] = []
        for block in at.blocks:
            rows, columns = block.sides
            pairs = [(*row, *column) for row in rows.profiles for column in columns.profiles]
            moving = np.array([k for k, pair in enumerate(pairs) if pair], dtype=np.int64)
            members = (_members(at, rows.profile), _members(at, columns.profile))
            self._parts.append(_Totals(block, members, moving))
            terms += [pairs[k] for k in moving]
        self._forms = _forms(terms, at.problem.group_count)
        group = np.zeros(at.count, dtype=np.int64)
        group[:] = at.problem.groups
        self._group = at.arrays.array(group)
        self._moves = at.arrays.array(at.arrays.host(at.active).astype(np.float64))

    def shift(self) -> Array:
        """The shift of every variable (equal within a group) that minimises Phi at the current point."""
        if not self._parts:
            return self._at.arrays.zeros(self._at.count)
        t = minimise(self._forms, self._log_masses(), self._at.p)
        return self._at.arrays.array(t)[self._group] * self._moves

    def preconditioner(self, level: float) -> Callable[[Array], Array]:
        """Inverse Hessian among group shifts, in the unit exp(level), as an operator on variables."""
        at = self._at
        masses = np.exp(self._log_masses() - level)
        weighted = sp.dia_array((masses[None, :], [0]), shape=(len(masses),) * 2)
        hessian = sp.csc_array(at.p**2 * (self._forms.T @ weighted @ self._forms))
        n = hessian.shape[0]
        diagonal = hessian.diagonal()
        extra = np.where(diagonal > 0, _REGULAR * diagonal.max(initial=0.0), 1.0)
        solve = scipy.sparse.linalg.splu(hessian + sp.dia_array((extra[None, :], [0]), shape=(n, n))).solve

        def apply(residual: Array) -> Array:
            sums = at.arrays.zeros(n)
            add_at(sums, self._group, residual * self._moves)
            return at.arrays.array(solve(at.arrays.host(sums)))[self._group] * self._moves

        return apply

    def _log_masses(self) -> Floats:
        """Logarithm of the mass of each pair of profiles that can move."""
        at = self._at
        masses = [part.sums() for part in self._parts]
        levels = at.xp.stack([at.level(part.block) for part in self._parts])
        together = at.arrays.host(at.xp.concatenate([*masses, levels]))  # one transfer
        logs, start = [], 0
        with np.errstate(divide="ignore"):
            for i, (part, mass) in enumerate(zip(self._parts, masses, strict=True)):
                values = together[start : start + len(mass)][part.moving]
                logs.append(np.log(values) + together[i - len(self._parts)])
                start += len(mass)
        return np.concatenate(logs)


def coarse(at: Descent, limits: Limits) -> Run:
    """A coarse correction before each sweep."""
    correction = Coarse(at)
    return sweeps(at, limits, at.coloured, lambda: at.move_to(at.z + correction.shift()))


def _members(at: Descent, profile: Integers) -> Array:
    matrix = np.zeros((int(profile.max(initial=0)) + 1, len(profile)))
    matrix[profile, np.arange(len(profile))] = 1.0
    return at.arrays.array(matrix)


def _forms(terms: list[tuple[tuple[int, float], ...]], groups: int) -> sp.csr_array:
    row = [i for i, form in enumerate(terms) for _ in form]
    column = [g for form in terms for g, _ in form]
    data = [c for form in terms for _, c in form]
    return sp.csr_array((data, (row, column)), shape=(len(terms), groups))


def minimise(forms: sp.csr_array, log_masses: Floats, p: float) -> Floats:
    """Minimise sum_q exp(log_masses_q + p forms_q t) over t by damped Newton."""
    t = np.zeros(forms.shape[1])
    alive = np.isfinite(log_masses)
    chosen, base = sp.csr_array(forms[np.flatnonzero(alive)]), log_masses[alive]
    if not len(base):
        return t
    forms = chosen.toarray() if chosen.shape[0] * chosen.shape[1] <= _DENSE else chosen
    base, polished = base - base.max(), 0
    for _ in range(_STEPS):
        current = np.exp(base + p * (forms @ t))
        value, gradient = float(current.sum()), p * (forms.T @ current)
        if polished == _POLISH or np.abs(gradient).max(initial=0.0) <= 1e-15 * p * value:
            break
        step = -_solved(forms, current, p, gradient)
        step *= min(1.0, _MAX_STEP / (p * np.abs(step).max(initial=1e-300)))
        slope, size = float(gradient @ step), 1.0
        if -slope <= _NEAR * value:
            polished += 1
        else:
            while np.exp(base + p * (forms @ (t + size * step))).sum() > value + 1e-4 * size * slope:
                size /= 2
                if size < _SHORTEST:
                    return t
        t = t + size * step
    return t


def _solved(forms: sp.csr_array | Floats, current: Floats, p: float, gradient: Floats) -> Floats:
    """Hessian^-1 gradient, lightly regularised: groups that nothing holds stay."""
    n = len(gradient)
    if isinstance(forms, np.ndarray):
        dense = p * p * (forms.T @ (current[:, None] * forms))
        dense[np.diag_indices(n)] += _REGULAR * np.trace(dense) / n + 1e-300
        return np.asarray(np.linalg.solve(dense, gradient))
    weighted = sp.dia_array((current[None, :], [0]), shape=(len(current),) * 2)
    hessian = p * p * (forms.T @ weighted @ forms)
    small = _REGULAR * float(hessian.diagonal().sum()) / n + 1e-300
    return np.asarray(scipy.sparse.linalg.spsolve(sp.csc_array(hessian + small * sp.eye_array(n)), gradient))
