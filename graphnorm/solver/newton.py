"""Newton-CG on the whole problem: finishes what cyclic descent leaves slow.

    g = p (R^T m_r + C^T m_c),     H d = p^2 (R^T (m_r * Rd + r A (c * Cd)) + C^T (m_c * Cd + c A^T (r * Rd)))

H is a grounded graph Laplacian in the balancing case; conjugate gradients need products with A only.  Their
preconditioner has two levels, so that depth doesn't cost iterations: the diagonal, and the exact solution
among shifts of whole groups.  The step is limited to |p dz| <= 1 and accepted only if Phi falls.
"""

from __future__ import annotations

from collections.abc import Callable

from graphnorm.solver.arrays import Array
from graphnorm.solver.coarse import Coarse
from graphnorm.solver.cyclic import sweep
from graphnorm.solver.descent import Descent
from graphnorm.solver.laplacian import Laplacian
from graphnorm.solver.method import Limits, Run

Operator = Callable[[Array], Array]
_MAX_STEP = 1.0  # in |p dz|: a trust region for the quadratic model of exp()
_WARM = 4  # cycles before: far from the optimum a Newton step is cut short


def newton(at: Descent, limits: Limits) -> Run:
    """A few coarse cycles, then Newton steps, each after a coarse correction."""
    correction = Coarse(at)
    cycles, left = 0, at.imbalance()
    while left > limits.tol and cycles < limits.max_cycles:
        at.move_to(at.z + correction.shift())
        if cycles < _WARM:
            seen = sweep(at, at.coloured)
        else:
            step(at, correction, limits.tol / left)
            seen = limits.tol
        cycles += 1
        left = at.imbalance() if seen <= limits.tol or cycles >= _WARM else seen
        limits.tell(at, cycles, left)
    return Run(cycles, left)


def step(at: Descent, coarse: Coarse, reduction: float, iterations: int = 200) -> bool:
    """One damped Newton step, solved to a tenth of the wanted `reduction`; False where none lowers Phi."""
    system = Laplacian(at)
    gradient = system.gradient
    tolerance = min(max(0.1 * reduction, 1e-8), 0.1)
    precondition = two_levels(system, coarse)
    direction = conjugate_gradient(system.product, -gradient, precondition, iterations, tolerance)
    largest = float(abs(direction).max()) * at.p
    if largest > _MAX_STEP:
        direction = direction * (_MAX_STEP / largest)
    start, value, slope = at.z + 0.0, system.value, float((gradient * direction).sum())
    size = 1.0
    while size > 1e-4:
        at.move_to(start + size * direction)
        trial = Laplacian.objective(at, system.level)
        if trial <= value + 1e-4 * size * slope or (-slope < 1e-10 * value and trial <= value * (1 + 1e-13)):
            return True
        size /= 2
    at.move_to(start)
    return False


def two_levels(system: Laplacian, coarse: Coarse) -> Operator:
    """Preconditioner: inverse diagonal plus inverse among group shifts."""
    among_groups = coarse.preconditioner(system.level)
    return lambda residual: residual / system.diagonal + among_groups(residual)


def conjugate_gradient(
    product: Operator, right: Array, precondition: Operator, iterations: int, tolerance: float
) -> Array:
    """Solve `product`(x) = `right` to a relative `tolerance` of the preconditioned residual."""
    x = right * 0.0
    residual = right
    direction = scaled = precondition(residual)
    rho = start = float((residual * scaled).sum())
    for _ in range(iterations):
        if rho <= tolerance**2 * start or rho <= 0.0:
            break
        image = product(direction)
        curvature = float((direction * image).sum())
        if not curvature > 0.0:
            break
        alpha = rho / curvature
        x = x + alpha * direction
        residual = residual - alpha * image
        scaled = precondition(residual)
        rho, previous = float((residual * scaled).sum()), rho
        direction = scaled + (rho / previous) * direction
    return x
