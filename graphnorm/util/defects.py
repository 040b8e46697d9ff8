"""Defects of one lowering or one rule: its operator is pinned and the defect reported, the run goes on.

A lowering or rule that fails on an unforeseen case raises an arbitrary Python exception.  The places that
call them catch `DEFECTS` and treat the operator as one without a lowering or rule; what was stated before the
exception stays, since equations and demands only remove freedom.
"""

from __future__ import annotations

import traceback
from pathlib import Path

DEFECTS = (
    ArithmeticError,  # ZeroDivisionError, OverflowError
    AssertionError,
    AttributeError,
    LookupError,  # IndexError, KeyError
    NameError,
    RuntimeError,  # also what torch's own functions raise
    TypeError,
    ValueError,
)


def defect(what: str, op: str, where: str, error: Exception, then: str = "pinned") -> str:
    """The sentence about a defect.

    Args:
        what: the part of graphnorm that failed: ``lowering``, ``rule``...
        op: the operator.
        where: the layer or node.
        error: what was raised.
        then: how the operator was treated.
    """
    text = (str(error).splitlines() or [""])[0]
    raised = f"{type(error).__name__}: {text}" if text else type(error).__name__
    for frame in traceback.extract_tb(error.__traceback__)[-1:]:
        raised += f", {Path(frame.filename).name}:{frame.lineno}"
    return f"{op} {where} is {then}: a defect in graphnorm's {what} of {op} ({raised}); please report it"
