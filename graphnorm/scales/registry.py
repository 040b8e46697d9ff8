"""The rule registry: operator name -> the rule that says which rescalings commute with it.

A rule's signature is data, printed as documentation.  Letters are log-scales: ``x -> x`` passes the
operand's scale on, ``x, x -> x`` needs equal scales, ``x, y -> x + y`` adds them (a product of
tensors), ``x -> 2 x`` doubles them, ``0`` is pinned.  In contractions letters index axes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from graphnorm.ir import Node
from graphnorm.ops.rules import Rules
from graphnorm.scales.context import Context

Apply = Callable[[Context, Node], None]


@dataclass(frozen=True, slots=True)
class Rule:
    """How the scales of an operator's operands, parameters and results must relate.

    Attributes:
        signature: the relation, as text.
        apply: reads operand labels, states constraints and demands, sets result labels.
        reason: what `inspect` prints for constraints that this rule states.
    """

    signature: str
    apply: Apply
    reason: str

    @property
    def fixes(self) -> bool:
        """Whether the operator pins everything that it touches."""
        return self.signature == "0 -> 0"


Registry: TypeAlias = Rules[Rule]
