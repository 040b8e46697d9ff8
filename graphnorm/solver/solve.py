"""Solve: choose precision and method, set degenerate variables aside, descend, certify."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from graphnorm.solver.arrays import arrays_for
from graphnorm.solver.auto import auto
from graphnorm.solver.bounds import bounds
from graphnorm.solver.coarse import coarse
from graphnorm.solver.cyclic import cyclic
from graphnorm.solver.descent import Descent
from graphnorm.solver.gap import relative_gap
from graphnorm.solver.masses import Streamed
from graphnorm.solver.method import Limits, Method, Run, Watch
from graphnorm.solver.newton import newton
from graphnorm.solver.paper_blocks import paper_blocks
from graphnorm.solver.problem import Block, Bools, Floats, Integers, Problem

METHODS: Mapping[str, Method] = {
    "auto": auto,
    "coarse": coarse,
    "newton": newton,
    "cyclic": cyclic,
    "paper_blocks": paper_blocks,
}
_FLOAT32_TOLERANCE = 5e-7  # sums of float32 masses carry no more
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
        z: log-scales of the variables; degenerate and irrelevant ones are 0.
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
        if not np.isfinite(problem.p):
            from graphnorm.solver.max_norm import solve_max

            return solve_max(problem, tol, max_cycles, frozen, watch)
        limits = Limits(tol, max_cycles, watch)
        dtype = np.dtype(np.float32 if tol >= _FLOAT32_TOLERANCE and gap is None else np.float64)
        solution = _solve(problem, limits, METHODS[method], frozen, memory, device, dtype, gap, certify)
        if not solution.converged and dtype == np.float32:
            dtype = np.dtype(np.float64)
            solution = _solve(problem, limits, METHODS[method], frozen, memory, device, dtype, gap, certify)
        return solution


def _solve(
    problem: Problem, limits: Limits, method: Method, frozen: Bools | None, memory: int | None, device: str,
    dtype: np.dtype[np.floating], wanted: float | None, certify: bool,
) -> Solution:  # fmt: skip
    arrays = arrays_for(device)
    problem, exact = hold(problem, dtype, memory), problem
    held = np.zeros(problem.count, dtype=bool) if frozen is None else frozen
    active = touched(problem) & ~held
    start = arrays.zeros(problem.count)
    at = Descent(problem, active, arrays, start)
    before = at.objective()
    finite = bounds(at).finite
    degenerate = np.flatnonzero(active & ~finite)
    fixed = 0.0  # of blocks in which only degenerate variables move
    if len(degenerate):
        at = Descent(problem, active & finite, arrays, start)
        fixed = before - at.objective()
    run = method(at, limits)
    found: float | None = None
    if wanted is not None or certify:
        run, found = _certified(at, exact if dtype == np.float32 else None, run, limits, method, wanted)
    z = np.array(arrays.host(at.z))
    after = at.objective() + fixed
    status = _status(run, limits, z, after, found, wanted)
    return Solution(z, run.cycles, run.imbalance, before, after, status, degenerate, found)


def touched(problem: Problem) -> Bools:
    """Variables that some block depends on."""
    found = np.zeros(problem.count, dtype=bool)
    for block in problem.blocks:
        found[block.rows.indices] = True
        found[block.columns.indices] = True
    return found


def hold(problem: Problem, dtype: np.dtype[np.floating], memory: int | None) -> Problem:
    """Masses in memory, the largest blocks last: those beyond `memory` bytes stay streamed."""
    size = {id(b): int(np.prod(b.mass.shape)) * dtype.itemsize for b in problem.blocks}
    chosen, total = set(), 0
    for block in sorted(problem.blocks, key=lambda b: size[id(b)]):
        total += size[id(block)]
        if isinstance(block.mass, Streamed) and (memory is None or total <= memory):
            chosen.add(id(block))

    def made(block: Block) -> Block:
        return replace(block, mass=block.mass.held(dtype)) if id(block) in chosen else block

    with ThreadPoolExecutor(_threads()) as pool:
        return replace(problem, blocks=tuple(pool.map(made, problem.blocks)))


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))


def _certified(
    at: Descent, exact: Problem | None, run: Run, limits: Limits, method: Method, wanted: float | None
) -> tuple[Run, float]:
    """The gap; with `wanted`, after as many more cycles as it takes."""
    for _ in range(_TIGHTER):
        precise, fast = at, None
        if exact is not None:
            active = np.asarray(at.arrays.host(at.active))
            precise, fast = Descent(exact, active, at.arrays, at.z), at
        found = relative_gap(precise, fast)
        if wanted is None or found <= wanted or run.imbalance > limits.tol or run.cycles >= limits.max_cycles:
            break
        limits = replace(limits, tol=min(limits.tol, run.imbalance) / 10)
        more = method(at, replace(limits, max_cycles=limits.max_cycles - run.cycles))
        run = Run(run.cycles + more.cycles, more.imbalance)
    return run, found


def _status(
    run: Run, limits: Limits, z: Floats, after: float, gap: float | None, wanted: float | None
) -> Status:
    if not (np.isfinite(z).all() and np.isfinite(after)):
        return Status.OUT_OF_RANGE
    if run.imbalance <= limits.tol and (wanted is None or (gap is not None and gap <= wanted)):
        return Status.CONVERGED
    if run.cycles >= limits.max_cycles:
        return Status.CYCLE_LIMIT
    return Status.ROUNDING if np.isfinite(run.imbalance) else Status.OUT_OF_RANGE
