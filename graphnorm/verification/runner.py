"""The interface that a measurement needs of a model: runs, and runs that show its noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from graphnorm import ir

OWN_RUN = "the original's own run"


class Runnable(Protocol):
    """A model that can be run."""

    def run(self, inputs: Sequence[ir.Array]) -> list[ir.Array]:
        """Outputs for `inputs`, in order."""


class Anchor(Runnable, Protocol):
    """A reference model; its runs may raise `RunError`."""

    def shaken(self, inputs: Sequence[ir.Array], unit: float, seed: int) -> list[ir.Array]:
        """Outputs where every float operand is moved at random by up to `unit`, relative."""


class Runner(Runnable, Protocol):
    """A model whose noise can be measured too."""

    device: str
    runtime: str  # what runs it, and where
    tiny: float  # difference that never counts, in float epsilons of the outputs' root mean square

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know of how it runs, a sentence each."""

    def reference(self) -> Reference:
        """What this model's own noise is measured against."""

    def nearby(self, seed: int, size: float | None) -> Runner:
        """A model with matrices and kernels moved at random by up to `size` (None: all, by half an ulp)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a model's noise is measured against.

    Attributes:
        anchor: a run of the same model in more precision; None if there is none.
        name: name of the reference.
        variants: other runs of the same function, whose distance from the reference is noise too; the first
            is the reference where the float64 run is not used.
        fallback: what that one is.
        remark: what a reader should know about the reference; empty if nothing.
    """

    anchor: Anchor | None
    name: str
    variants: tuple[Runnable, ...] = ()
    fallback: str = OWN_RUN
    remark: str = ""
