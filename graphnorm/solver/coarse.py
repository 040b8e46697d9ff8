"""Coarse correction: the same problem with one shift per channel group, solved by damped Newton.

Slow modes of cyclic descent are layer-wide shifts that diffuse through depth.  Their problem has a few
hundred unknowns: Phi(t) = sum_q B_q exp(p k_q . t) over pairs of segments.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from graphnorm.solver.problem import Block, Floats, Problem, scaled_exponents

_STEPS = 30
_MAX_STEP = 2.0  # in p t: keeps the quadratic model honest far from the optimum


def coarse_shift(problem: Problem, z: Floats) -> Floats:
    """The shift of every variable (equal within a group) that minimises Phi(z + shift)."""
    masses: list[Floats] = []
    rows: list[int] = []
    columns: list[int] = []
    data: list[float] = []
    for block in problem.blocks:
        totals = _segment_totals(block, problem.p, z)
        for i, row in enumerate(block.rows.profiles):
            for j, column in enumerate(block.columns.profiles):
                if totals[i, j] > 0 and (row or column):
                    for group, c in (*row, *column):
                        rows.append(len(masses))
                        columns.append(group)
                        data.append(c)
                    masses.append(totals[i, j])
    forms = sp.csr_array((data, (rows, columns)), shape=(len(masses), problem.group_count))
    forms.sum_duplicates()
    return _newton(forms, np.array(masses), problem.p)[problem.groups]


def _segment_totals(block: Block, p: float, z: Floats) -> Floats:
    r, c = scaled_exponents(block, p, z)
    parts = block.columns.segments
    if len(parts) == 1:
        by_row = (block.mass @ c)[:, None]
    else:
        starts = np.zeros((block.columns.size, len(parts)))
        for j, part in enumerate(parts):
            starts[part, j] = c[part]
        by_row = block.mass @ starts
    weighted = r[:, None] * by_row
    return np.stack([weighted[part].sum(axis=0) for part in block.rows.segments])


def _newton(forms: sp.csr_array, masses: Floats, p: float) -> Floats:
    t = np.zeros(forms.shape[1])
    value = masses.sum()
    for _ in range(_STEPS):
        current = masses * np.exp(p * (forms @ t))
        gradient = p * (forms.T @ current)
        if np.abs(gradient).max(initial=0.0) <= 1e-15 * p * value:
            break
        weighted = sp.dia_array((current[None, :], [0]), shape=(len(current),) * 2)
        hessian = p * p * (forms.T @ weighted @ forms).toarray()
        hessian[np.diag_indices_from(hessian)] += 1e-14 * np.trace(hessian) / max(len(t), 1)
        hessian[np.diag_indices_from(hessian)] += 1e-300
        step = np.linalg.solve(hessian, -gradient)
        step *= min(1.0, _MAX_STEP / (p * np.abs(step).max(initial=1e-300)))
        slope = float(gradient @ step)
        size = 1.0
        while True:
            trial = float((masses * np.exp(p * (forms @ (t + size * step)))).sum())
            if trial <= value + 1e-4 * size * slope or size < 1e-6:
                break
            size /= 2
        if trial > value:
            break
        t, value = t + size * step, trial
    return t
