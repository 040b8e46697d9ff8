"""Newton-CG on the whole problem: finishes what cyclic descent leaves slow.

    g = p (R^T m_r + C^T m_c),     H d = p^2 (R^T (m_r * Rd + r A (c * Cd)) + C^T (m_c * Cd + c A^T (r * Rd)))

H is a grounded graph Laplacian in the balancing case; conjugate gradients with its diagonal as
preconditioner need products with A only.  The step is limited to |p dz| <= 1 and accepted only if Phi falls.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from graphnorm.solver.problem import Floats, Problem, objective, scaled_exponents

_MAX_STEP = 1.0


def newton_step(problem: Problem, z: Floats, active: npt.NDArray[np.bool_], iterations: int = 200) -> Floats:
    """One damped Newton step; returns the new point (or `z` where no step lowers Phi)."""
    p = problem.p
    terms = []
    gradient, diagonal = np.zeros(problem.count), np.zeros(problem.count)
    for block in problem.blocks:
        r, c = scaled_exponents(block, p, z)
        masses = (r * (block.mass @ c), c * (block.mass.T @ r))
        terms.append((block, r, c, masses))
        for side, mass in zip((block.rows, block.columns), masses, strict=True):
            gradient += p * (side.forms.T @ mass)
            squared = sp.csr_array(
                (side.forms.data**2, side.forms.indices, side.forms.indptr), shape=side.forms.shape
            )
            diagonal += p * p * (squared.T @ mass)
    diagonal[~active] = 1.0

    def hessian(d: Floats) -> Floats:
        total = np.zeros_like(d)
        for block, r, c, (row_mass, column_mass) in terms:
            row, column = block.rows.forms @ d, block.columns.forms @ d
            total += block.rows.forms.T @ (row_mass * row + r * (block.mass @ (c * column)))
            total += block.columns.forms.T @ (column_mass * column + c * (block.mass.T @ (r * row)))
        return np.where(active, p * p * total, d)

    step = _conjugate_gradient(hessian, np.where(active, -gradient, 0.0), diagonal, iterations)
    step *= min(1.0, _MAX_STEP / (p * np.abs(step).max(initial=1e-300)))
    value = objective(problem, z)
    for _ in range(20):
        if objective(problem, z + step) <= value:
            return z + step
        step = step / 2
    return z


def _conjugate_gradient(product, right: Floats, diagonal: Floats, iterations: int) -> Floats:  # type: ignore[no-untyped-def]
    x = np.zeros_like(right)
    residual = right.copy()
    direction = scaled = residual / diagonal
    rho = start = float(residual @ scaled)
    for _ in range(iterations):
        if rho <= 1e-12 * start:
            break
        image = product(direction)
        alpha = rho / float(direction @ image)
        x = x + alpha * direction
        residual = residual - alpha * image
        scaled = residual / diagonal
        rho, previous = float(residual @ scaled), rho
        direction = scaled + (rho / previous) * direction
    return x
