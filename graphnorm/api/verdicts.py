"""Verdicts on two models, and the evidence for them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from graphnorm.verification.certificate import Certificate
from graphnorm.verification.measure import Measurement


class Verdict(StrEnum):
    """What is known about two models, from the strongest to the weakest."""

    IDENTICAL = "identical"
    """The same graph, the same weights, the same interface."""
    PROVED = "proved"
    """A certificate holds, at all sizes."""
    SIZED = "proved at these sizes"
    """A certificate holds at the sizes that were traced."""
    AGREES = "agrees"
    """No input that was tried shows a difference beyond the original's own noise."""
    UNEXERCISED = "not exercised"
    """No input that was tried shows anything."""
    UNVERIFIED = "not verified"
    """Nobody asked."""
    DIFFERS = "differs"
    """An input shows a difference, or the certificate does not hold."""

    __repr__ = str.__repr__


EQUIVALENT = frozenset({Verdict.IDENTICAL, Verdict.PROVED, Verdict.SIZED, Verdict.AGREES})
CERTAIN = frozenset({Verdict.IDENTICAL, Verdict.PROVED})  # at all sizes


@dataclass(frozen=True)
class Verification:
    """Verdict and evidence.

    Attributes:
        verdict: what is known.
        certificate: the proof, if one was tried.
        measurement: the runs, if the models were run.
        remarks: what was done to the inputs that they were run on, a sentence each.
    """

    verdict: Verdict
    certificate: Certificate | None = None
    measurement: Measurement | None = None
    remarks: tuple[str, ...] = ()

    @property
    def failure(self) -> str:
        """The first difference; empty if there is none."""
        parts = [part.failure for part in (self.certificate, self.measurement) if part is not None]
        return "; ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        measured = None if self.measurement is None else asdict(self.measurement)
        return {
            "verdict": self.verdict,
            "rmse_ratio": None if self.measurement is None else self.measurement.rmse_ratio,
            "failure": self.failure,
            "certificate": None if self.certificate is None else asdict(self.certificate),
            "measurement": measured,
        }
