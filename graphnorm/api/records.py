"""The facts of which reports are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from graphnorm.solver.solve import Solution


class Record:
    """Facts with names; ``record["name"]`` is ``record.name``, as in the JSON form."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # every record is a dataclass


@dataclass(frozen=True, slots=True)
class Objective(Record):
    """Sum of |w|^p over the weights that can move (the largest |w| for p = inf)."""

    before: float
    after: float


@dataclass(frozen=True, slots=True)
class SolverRun(Record):
    """How the minimum was found.

    Attributes:
        method: name of the method.
        cycles: sweeps over all channel groups, Newton steps included.
        imbalance: max |log(in / out)| over all neurons.
        gap: certified bound of (objective - minimum) / objective; None: not certified.
        converged: whether it stopped at the tolerance.
        status: why it stopped.
        message: the same in words.
        optimum: the objective without rounding to powers of two.
        exact_cost: what rounding adds, as a fraction of the optimum (exact mode).
        limited_channels: channels held at 1, as their weights would leave the float format.
    """

    method: str
    cycles: int
    imbalance: float
    gap: float | None
    converged: bool
    status: str
    message: str
    optimum: float
    exact_cost: float | None
    limited_channels: int


def solver_run(solution: Solution, method: str, exact_at: float | None, limited: int) -> SolverRun:
    """The record of a solution; `exact_at` is the objective after rounding to powers of two."""
    exact = exact_at is not None and solution.after
    return SolverRun(
        method=method,
        cycles=solution.cycles,
        imbalance=solution.imbalance,
        gap=solution.gap,
        converged=solution.converged,
        status=solution.status.name.lower(),
        message=solution.status.message,
        optimum=solution.after,
        exact_cost=exact_at / solution.after - 1 if exact_at is not None and exact else None,
        limited_channels=limited,
    )


@dataclass(frozen=True, slots=True)
class ClipRun(Record):
    """Which clips were rewritten, and why the others were left."""

    rewritten: Sequence[str]
    left: Sequence[str]
