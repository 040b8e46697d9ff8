"""The options of a canonicalisation: keyword arguments of `graphnorm.canonicalize`, and of its command."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from graphnorm.errors import InputError


class Mode(StrEnum):
    """How coefficients are chosen."""

    OPTIMAL = "optimal"
    """At the minimum."""
    EXACT = "exact"
    """Powers of two near it, so that outputs stay the same bits."""

    @classmethod
    def given(cls, name: str) -> Mode:
        """The mode of that name.

        Raises:
            InputError: there is none.
        """
        if name not in list(cls):
            raise InputError(f"mode must be one of {', '.join(cls)}, got {name!r}")
        return cls(name)


REPORTED = ("p", "c", "biases", "mode", "tol", "gap")
"""Options that decide which weights come out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `graphnorm.canonicalize` is asked to do; its documentation says what each option means.

    Raises:
        InputError: an option has no meaning, or two exclude each other.
    """

    inputs_as_weights: bool = False
    p: float = 2.0
    c: float = 1.0
    biases: bool = False
    mode: Mode = Mode.OPTIMAL
    tol: float = 1e-8
    gap: float | None = None
    max_cycles: int = 1000
    method: str = "auto"
    memory: int | None = None
    verify: bool = True
    inplace: bool = False
    rewrite_clips: bool = False
    permute: bool = False
    device: str = "auto"

    @property
    def exact(self) -> bool:
        """Whether coefficients are powers of two."""
        return self.mode is Mode.EXACT

    def reported(self) -> dict[str, Any]:
        """What a report says of them."""
        return {name: getattr(self, name) for name in REPORTED}

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __post_init__(self) -> None:
        if not self.p > 0:
            raise InputError(f"p must be a positive number or inf, got {self.p}")
        if not (math.isfinite(self.c) and self.c > 0):
            raise InputError(f"c must be a positive number, got {self.c}")
        if not self.tol > 0:
            raise InputError(f"tol must be positive, got {self.tol}")
        if self.gap is not None and not self.gap > 0:
            raise InputError(f"gap must be positive, got {self.gap}")
        if self.gap is not None and not math.isfinite(self.p):
            raise InputError("gap needs a finite p: the largest weight has no unique minimum to be near")
        if self.memory is not None and self.memory < 0:
            raise InputError(f"memory must be a number of bytes, got {self.memory}")
        if self.method != "auto":
            from graphnorm.solver.solve import METHODS  # so that the command line's defaults need no SciPy

            if self.method not in METHODS:
                raise InputError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.permute and self.exact:
            raise InputError(
                "permute=True changes the order of sums, so outputs cannot stay bit-identical; "
                "leave out mode='exact'"
            )
        if self.inplace and self.rewrite_clips:
            raise InputError("rewrite_clips=True gives a new model, result.model; leave out inplace=True")
