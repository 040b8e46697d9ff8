"""Dead code: nodes and optional results that are never read.

Runtimes leave such nodes out.  Masks of old Dropouts, statistics of norms and heads that were left over in
the file say nothing about the function, so nothing that they read is pinned for their sake.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from onnx import defs

from graphnorm.frontends.onnx.steps import Step

_OPTIONAL = defs.OpSchema.FormalParameterOption.Optional


def live(steps: Sequence[Step], outputs: Iterable[str]) -> tuple[Step, ...]:
    """The steps that `outputs` depend on, in order; optional results that are not read lose their names."""
    read = set(outputs)
    kept: list[Step] = []
    for step in reversed(steps):
        results = [name for name in step.results if name]
        if results and read.isdisjoint(results):
            continue
        spare = frozenset(_optional(step)) - read
        kept.append(replace(step, unread=spare) if spare else step)
        read.update(step.operands, step.captured)
    return tuple(reversed(kept))


def _optional(step: Step) -> list[str]:
    """The results that a node may leave out: an `If` any of them, others what their schema says."""
    if step.is_standard and step.node.op_type == "If":
        return [name for name in step.results if name]
    declared = step.schema.outputs if step.schema is not None else []
    return [
        name for name, out in zip(step.results, declared, strict=False) if name and out.option == _OPTIONAL
    ]
