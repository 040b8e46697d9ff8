"""How much a model file may ask for.

A file of a few hundred bytes can describe a tensor of 2^40 entries, functions that double thirty times or a
loop of 2^60 trips.  Such a model is refused before anything of that size is made.  The limits grow with the
model and with the shapes that the caller gives; `limits` changes them for a while.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from graphnorm.errors import InputError


@dataclass(frozen=True, slots=True)
class Limits:
    """What an ONNX model may ask for at the sizes that it is read with.

    Attributes:
        entries: of one tensor that is computed or given; more if the model's own tensors, or inputs whose
            shape the caller gives, are large.
        nodes: after functions are put in place of their calls; more if the file holds many itself.
        steps: nodes that one loop runs, over all its iterations.
    """

    entries: float = 2.0**25
    nodes: float = 50_000.0
    steps: float = 100_000.0


WAY_OUT = "raise the limit with graphnorm.limits (command line: graphnorm --no-limits ...) if it is meant"
_DEFAULT = Limits()
_current: ContextVar[Limits] = ContextVar("limits", default=_DEFAULT)


def current() -> Limits:
    """The limits in force."""
    return _current.get()


@contextmanager
def limits(
    entries: float | None = None, nodes: float | None = None, steps: float | None = None
) -> Iterator[Limits]:
    """Other limits within a ``with`` block; infinity is none.

    Args:
        entries: of one tensor; None leaves this limit as it is.
        nodes: after functions are put in place of their calls, likewise.
        steps: nodes that one loop runs over all its iterations, likewise.

    Yields:
        The limits in force.

    >>> with limits(entries=1e12) as found:
    ...     found.entries
    1000000000000.0
    """
    given = {"entries": entries, "nodes": nodes, "steps": steps}
    changed = replace(current(), **{name: value for name, value in given.items() if value is not None})
    token = _current.set(changed)
    try:
        yield changed
    finally:
        _current.reset(token)


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn an allocation beyond the machine's memory into an error message; also a decorator.

    Raises:
        InputError: Python or NumPy could not get the memory that they asked for.
    """
    try:
        yield
    except MemoryError as error:
        why = f" ({error})" if str(error) else ""
        raise InputError(
            f"there is not enough memory for this model{why}; give smaller inputs, or use a larger machine"
        ) from error
