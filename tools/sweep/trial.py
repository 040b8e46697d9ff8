"""One model traced and canonicalised: what surfaced, and which defects were reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import graphnorm
from graphnorm.util.defects import DEFECTS

SAID = "a defect in graphnorm"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one trial ended.

    Attributes:
        case: what was tried, in words.
        kind: ``done``, ``refused`` (a `GraphNormError`), ``reported`` (a remark about a defect of a rule or
            lowering, which pinned the operator), or ``raised`` (any other exception).
        text: the sentence or exception.
    """

    case: str
    kind: str
    text: str = ""

    @property
    def is_finding(self) -> bool:
        return self.kind in {"reported", "raised"}


def attempt(case: str, canonicalize: Callable[[], Any]) -> Outcome:
    """Run and judge; what ends a run (MemoryError, KeyboardInterrupt) passes through."""
    try:
        remarks = canonicalize().report.remarks
    except graphnorm.GraphNormError as error:
        text = str(error)
        return Outcome(case, "reported" if SAID in text else "refused", text)
    except (*DEFECTS, NotImplementedError, RecursionError) as error:
        return Outcome(case, "raised", f"{type(error).__name__}: {error}".splitlines()[0])
    said = [remark for remark in remarks if SAID in remark]
    return Outcome(case, "reported", said[0]) if said else Outcome(case, "done")
