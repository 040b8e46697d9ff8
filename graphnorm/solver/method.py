"""What every method of the solver takes and returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphnorm.solver.descent import Descent

Watch = Callable[[Descent, int, float], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop.

    Attributes:
        tol: largest |log(in / out)| to reach.
        max_cycles: at most so many cycles, Newton steps counted too.
        watch: called after each cycle with the point, the number of cycles and the imbalance met.
    """

    tol: float
    max_cycles: int
    watch: Watch | None = None

    def tell(self, at: Descent, cycles: int, seen: float) -> None:
        """Report a cycle."""
        if self.watch is not None:
            self.watch(at, cycles, seen)


@dataclass(frozen=True, slots=True)
class Run:
    """How a method ended: cycles used, and the imbalance at the point where it stopped."""

    cycles: int
    imbalance: float


Method = Callable[[Descent, Limits], Run]
