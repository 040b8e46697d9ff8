"""Solve: choose precision and method, set degenerate variables aside, descend, certify."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from graphnorm.solver.arrays import arrays_for
from graphnorm.solver.auto import auto
from graphnorm.solver.bounds import bounded
from graphnorm.solver.coarse import coarse
from graphnorm.solver.cyclic import cyclic
from graphnorm.solver.descent import Descent
from graphnorm.solver.gap import relative_gap
from graphnorm.solver.method import Limits, Method, Run, Watch
from graphnorm.solver.newton import newton
from graphnorm.solver.paper_blocks import paper_blocks
from graphnorm.solver.problem import Block, Problem
from graphnorm.solver.streamed import Streamed
from graphnorm.util.threads import side_by_side
from graphnorm.util.typing import Bools, Floats, Integers

METHODS: Mapping[str, Method] = {
    "auto": auto,
    "coarse": coarse,
    "newton": newton,
    "cyclic": cyclic,
    "paper_blocks": paper_blocks,
}
_FLOAT32_TOLERANCE = 5e-7  # sums of float32 masses carry no more
_EXPONENTS: Mapping[float, Method] = {2.0: auto, 8.0: auto, 32.0: coarse, 128.0: coarse}  # towards p = inf
_ROUGH = Limits(1e-2, 30)  # of each: the next starts there
_SWEEPS = 200  # at p = inf, where a sweep gains little once the largest entries are balanced
_TIGHTER = 6  # times that tol may shrink tenfold to reach a wanted gap


class Status(Enum):
    """How a solve ended."""

    CONVERGED = "converged"
    CYCLE_LIMIT = "stopped at the cycle limit; allow more cycles or a larger tolerance"
    ROUNDING = "stopped where rounding hides further progress; the tolerance is too small for these weights"
    OUT_OF_RANGE = "stopped: weights differ by more than float64 can hold at this p; use a smaller p"

    @property
    def message(self) -> str:
        """One sentence for people."""
        return self.value


@dataclass(frozen=True, slots=True)
class Solution:
    """A minimiser and how it was reached.

    Attributes:
        z: log-scales of the variables; degenerate and irrelevant ones are 0, all are if `OUT_OF_RANGE`.
        cycles: sweeps over all groups, Newton steps counted too.
        imbalance: max |log(in / out)| at `z`.
        before: objective at 0.
        after: objective at `z`.
        status: why it stopped.
        degenerate: variables without a minimiser, left at 0.
        gap: certified bound of (objective - minimum) / objective at `z`; None if not asked for.
    """

    z: Floats
    cycles: int
    imbalance: float
    before: float
    after: float
    status: Status
    degenerate: Integers
    gap: float | None = None

    @property
    def converged(self) -> bool:
        """Whether the tolerance was reached."""
        return self.status is Status.CONVERGED


def solve(
    problem: Problem,
    tol: float = 1e-8,
    max_cycles: int = 1000,
    *,
    method: str = "auto",
    gap: float | None = None,
    certify: bool = False,
    frozen: Bools | None = None,
    memory: int | None = None,
    device: str = "numpy",
    watch: Watch | None = None,
) -> Solution:
    """Minimise Phi.

    Args:
        problem: masses and forms.
        tol: stop when max |log(in / out)| <= tol.
        max_cycles: at most so many cycles.
        method: a key of `METHODS`.
        gap: go on until the certified relative gap is at most this, too.
        certify: report the certified relative gap.
        frozen: variables to hold at 0.
        memory: bytes for masses; layers beyond are read again in every product.
        device: ``numpy``, or a torch device.
        watch: called after each cycle with the point, the number of cycles and the imbalance met.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        call = _Call(Limits(tol, max_cycles, watch), METHODS[method], frozen, memory, device, gap, certify)
        if not np.isfinite(problem.p):
            return _solve_max(problem, replace(call, wanted=None, certify=False))
        if tol < _FLOAT32_TOLERANCE or gap is not None:
            return _solve(problem, call, np.dtype(np.float64))
        solution = _solve(problem, call, np.dtype(np.float32))
        return solution if solution.converged else _solve(problem, call, np.dtype(np.float64))


@dataclass(frozen=True, slots=True)
class _Call:
    limits: Limits
    method: Method
    frozen: Bools | None
    memory: int | None
    device: str
    wanted: float | None
    certify: bool


def _solve(
    problem: Problem, call: _Call, dtype: np.dtype[np.floating], start: Floats | None = None
) -> Solution:
    arrays = arrays_for(call.device)
    problem, exact = hold(problem, dtype, call.memory), problem
    held = np.zeros(problem.count, dtype=bool) if call.frozen is None else call.frozen
    active = touched(problem) & ~held
    at = whole = Descent(problem, active, arrays, arrays.zeros(problem.count))
    before = at.objective()
    finite = bounded(at)
    degenerate = np.flatnonzero(active & ~finite)
    if len(degenerate):
        at = Descent(problem, active & finite, arrays, arrays.zeros(problem.count))
    if start is not None:
        at.move_to(arrays.array(start))
    run = call.method(at, call.limits)
    found: float | None = None
    if call.wanted is not None or call.certify:
        run, found = _certified(at, exact if dtype == np.float32 else None, run, call)
    z = np.array(arrays.host(at.z))
    if len(whole.blocks) > len(at.blocks):  # in the others only degenerate variables move
        whole.move_to(at.z)
        after = whole.objective()
    else:
        after = at.objective()
    status = _status(run, call, z, after, found)
    if status is Status.OUT_OF_RANGE:
        z, after = np.zeros_like(z), before
    return Solution(z, run.cycles, run.imbalance, before, after, status, degenerate, found)


def _solve_max(problem: Problem, call: _Call) -> Solution:
    """P = inf: balance at growing exponents, then the largest entries themselves."""
    problem = hold(problem, np.dtype(np.float64), None)
    z, cycles, most = np.zeros(problem.count), 0, call.limits.max_cycles
    for q, method in _EXPONENTS.items():
        limits = replace(_ROUGH, max_cycles=min(_ROUGH.max_cycles, most - cycles), watch=call.limits.watch)
        stage = replace(call, limits=limits, method=method, device="numpy")
        found = _solve(raised(problem, z, q), stage, np.dtype(np.float64))
        if np.isfinite(found.z).all():  # powers of entries far below the largest may be out of range
            z = z + found.z
        cycles += found.cycles
    last = replace(call.limits, max_cycles=min(_SWEEPS, most - cycles))
    final = _solve(
        problem, replace(call, limits=last, method=cyclic, device="numpy"), np.dtype(np.float64), z
    )
    return replace(final, cycles=cycles + final.cycles)


def raised(problem: Problem, z: Floats, q: float) -> Problem:
    """The problem at `z` as the origin, for exponent `q`; masses of the largest entry become 1."""
    scaled = [
        block.mass.held(np.float64).scaled(np.exp(block.rows @ z), np.exp(block.columns @ z))
        for block in problem.blocks
    ]
    top = max((mass.largest() for mass in scaled), default=0.0)
    unit = top if top > 0 else 1.0
    blocks = [
        replace(block, mass=mass.power(q, unit)) for block, mass in zip(problem.blocks, scaled, strict=True)
    ]
    return replace(problem, blocks=tuple(blocks), p=q)


def certified_gap(problem: Problem, z: Floats) -> float:
    """Bound of (Phi - Phi*) / Phi at `z` over all variables that have a minimiser; inf if there is none."""
    if not np.isfinite(problem.p):
        return np.inf
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        held, arrays = hold(problem, np.dtype(np.float64), None), arrays_for("numpy")
        active = touched(held)
        finite = bounded(Descent(held, active, arrays, arrays.zeros(held.count)))
        return float(relative_gap(Descent(held, active & finite, arrays, z)))


def touched(problem: Problem) -> Bools:
    """Variables that some block depends on."""
    found = np.zeros(problem.count, dtype=bool)
    for block in problem.blocks:
        found[block.rows.indices] = True
        found[block.columns.indices] = True
    return found


def hold(problem: Problem, dtype: np.dtype[np.floating], memory: int | None) -> Problem:
    """Layers' masses in memory, the largest last: those beyond `memory` bytes stay streamed."""
    streamed = [b for b in problem.blocks if isinstance(b.mass, Streamed)]
    size = {id(b): int(np.prod(b.mass.shape)) * dtype.itemsize for b in streamed}
    chosen, total = set(), 0
    for block in sorted(streamed, key=lambda b: size[id(b)]):
        total += size[id(block)]
        if memory is None or total <= memory:
            chosen.add(id(block))

    def made(block: Block) -> Block:
        return replace(block, mass=block.mass.held(dtype)) if id(block) in chosen else block

    return replace(problem, blocks=tuple(side_by_side(made, problem.blocks)))


def _certified(at: Descent, exact: Problem | None, run: Run, call: _Call) -> tuple[Run, float]:
    """The gap; after as many more cycles as a wanted gap takes."""
    limits, wanted = call.limits, call.wanted
    for _ in range(_TIGHTER):
        precise, fast = at, None
        if exact is not None:
            active = np.asarray(at.arrays.host(at.active))
            precise, fast = Descent(exact, active, at.arrays, at.z), at
        found = relative_gap(precise, fast)
        if wanted is None or found <= wanted or run.imbalance > limits.tol or run.cycles >= limits.max_cycles:
            break
        limits = replace(limits, tol=min(limits.tol, run.imbalance) / 10)
        more = call.method(at, replace(limits, max_cycles=limits.max_cycles - run.cycles))
        run = Run(run.cycles + more.cycles, more.imbalance)
    return run, found


def _status(run: Run, call: _Call, z: Floats, after: float, gap: float | None) -> Status:
    if not (np.isfinite(z).all() and np.isfinite(after)):
        return Status.OUT_OF_RANGE
    if run.imbalance <= call.limits.tol and (call.wanted is None or (gap is not None and gap <= call.wanted)):
        return Status.CONVERGED
    if run.cycles >= call.limits.max_cycles:
        return Status.CYCLE_LIMIT
    return Status.ROUNDING if np.isfinite(run.imbalance) else Status.OUT_OF_RANGE
