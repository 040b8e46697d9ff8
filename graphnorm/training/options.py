"""Options of ENorm."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphnorm.errors import InputError
from graphnorm.training.schedule import ORDERS


@dataclass(frozen=True)
class Options:
    """Options of ENorm.

    Attributes:
        p: exponent of the norm, > 0.
        c: asymmetry of ENorm-c, > 0; 1 is symmetric.
        cycles: sweeps over the network at each step.
        every: rescale at every so many calls of ``step()``.
        order: ``layers`` (the paper's: one channel group after the other) or ``colours`` (groups that share
            no weight at once: fewer, larger operations, the same fixed point).
        max_coefficient: bound on the coefficient of a variable in one step, > 1; None: no bound.
        compile: fuse the passes over memory, after some seconds at the first step.  On the CPU, where Numba
            is installed (``pip install graphnorm[fast]``) and p = 2, weights and momenta come from memory
            once; otherwise by ``torch.compile``, best with ``order="colours"``.
        exact: round coefficients to powers of two, with which products of floats are exact; always so for
            bfloat16 weights, which would lose more to rounding than a training step changes.
    """

    p: float = 2.0
    c: float = 1.0
    cycles: int = 1
    every: int = 1
    order: str = "layers"
    max_coefficient: float | None = None
    compile: bool = False
    exact: bool = False

    def check(self) -> None:
        """Raises InputError for a value out of range."""
        for name in ("p", "c"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a positive number, got {value}")
        for name in ("cycles", "every"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a positive integer, got {value!r}")
        if self.order not in ORDERS:
            raise InputError(f"order must be one of {', '.join(ORDERS)}, got {self.order!r}")
        if self.max_coefficient is not None and not self.max_coefficient > 1:
            raise InputError(f"max_coefficient must be above 1, got {self.max_coefficient}")
