"""A runtime's exception as one sentence: what failed, on which inputs, why."""

from __future__ import annotations

from collections.abc import Mapping

from graphnorm import ir
from graphnorm.errors import RunError

ADVICE = "; give example inputs that the model takes"
_LONGEST = 300  # characters quoted of a runtime's message


def run_error(what: str, inputs: Mapping[str, ir.Array], why: str) -> RunError:
    """The error to raise where `what` failed on `inputs`."""
    return RunError(f"{what} fails on {described(inputs)}: {why}{ADVICE}")


def described(inputs: Mapping[str, ir.Array]) -> str:
    """Names, types and shapes of inputs: ``x float32(1, 4), ids int64(2,)``."""
    return ", ".join(f"{name} {a.dtype}{a.shape}" for name, a in inputs.items()) or "no inputs"


def shortened(text: str, longest: int = _LONGEST) -> str:
    """At most so many characters of a text."""
    return text if len(text) <= longest else text[:longest] + "..."


def reason(error: BaseException, lines: int = 1, longest: int = _LONGEST) -> str:
    """The first lines of what an exception says, after its class where that says more."""
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = shortened(" ".join(said[:lines]), longest)
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({first})" if first else "there is not enough memory"
    if not first or isinstance(error, LookupError | AssertionError):  # a KeyError's text is the key alone
        return f"{type(error).__name__}: {first}" if first else type(error).__name__
    return first


def is_refusal(error: RunError) -> bool:
    """Whether the model refuses the input; not where the machine's memory is too small."""
    cause = error.__cause__
    return not isinstance(cause, MemoryError) and "out of memory" not in str(cause).lower()
