"""The rule registry: operator name -> the rule that says which rescalings it commutes with.

A rule's signature is data, printed as documentation.  Letters are log-scales: ``x -> x`` passes the
operand's scale on, ``x, x -> x`` needs equal scales, ``x, y -> x + y`` adds them (a product of
tensors), ``x -> 2 x`` doubles them, ``0`` is pinned.  In contractions letters index axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from graphnorm.errors import RuleError
from graphnorm.ir import Node
from graphnorm.scales.context import Context

Apply = Callable[[Context, Node], None]


@dataclass(frozen=True, slots=True)
class Rule:
    """How the scales of an operator's operands, parameters and results must relate.

    Attributes:
        operators: the ONNX operators of the family.
        signature: the relation, as text.
        apply: reads operand labels, states constraints and demands, sets result labels.
        family: heading in the operator table.
        reason: what `inspect` prints for constraints that this rule states.
    """

    operators: tuple[str, ...]
    signature: str
    apply: Apply
    family: str
    reason: str


class Registry:
    """Rules by operator; a second rule for one operator is an error."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules: dict[str, Rule] = {}
        for rule in rules:
            self.add(rule)

    def add(self, rule: Rule) -> None:
        """Register `rule` for each of its operators.

        Raises:
            RuleError: an operator has a rule already.
        """
        for operator in rule.operators:
            if operator in self._rules:
                raise RuleError(f"operator {operator!r} has a second rule ({rule.signature!r})")
            self._rules[operator] = rule

    def get(self, operator: str) -> Rule | None:
        return self._rules.get(operator)

    def replaced(self, rule: Rule) -> Registry:
        """A copy in which `rule` stands for its operators (used to test the testers)."""
        kept = Registry()
        kept._rules = {**self._rules, **dict.fromkeys(rule.operators, rule)}
        return kept

    def __iter__(self) -> Iterator[Rule]:
        return iter(dict.fromkeys(self._rules.values()))

    def __contains__(self, operator: str) -> bool:
        return operator in self._rules
