"""The registry in which every analysis keeps its rules: operator -> rule, or why there is none.

A rule is given to operators by name, or to all that have some traits.  A name wins over traits, and more
traits win over fewer.  A second rule for a name is an error, and so are a name that the table of operators
does not know, and an operator with rules for two sets of traits of which neither holds the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from graphnorm.errors import RuleError
from graphnorm.ops.table import TABLE, having
from graphnorm.ops.traits import Trait

T = TypeVar("T")
F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Cell(Generic[T]):
    """What an analysis knows of an operator.

    Attributes:
        rule: the rule; None if there is none, and `reason` says why.
        reason: why there is no rule.
        by: the traits that it is registered for; None if by the operator's name.
    """

    rule: T | None
    reason: str
    by: Trait | None


class Rules(Generic[T]):
    """Operator -> rule of type T."""

    def __init__(self, analysis: str) -> None:
        """`analysis` names the registry in errors."""
        self.analysis = analysis
        self._named: dict[str, Cell[T]] = {}
        self._by_trait: dict[Trait, Cell[T]] = {}
        self._resolved: dict[str, Cell[T] | None] = {}

    def add(self, rule: T, *operators: str) -> None:
        """Register a rule for operators by name.

        Raises:
            RuleError: an operator is not in the table, or is registered already.
        """
        self._name(Cell(rule, "", None), operators)

    def rule(self, *operators: str) -> Callable[[F], F]:
        """The same as a decorator."""

        def register(function: F) -> F:
            self.add(function, *operators)  # type: ignore[arg-type]  # the caller's rules are of one type
            return function

        return register

    def for_trait(self, traits: Trait, rule: T) -> None:
        """Register a rule for all operators that have all of these traits.

        Raises:
            RuleError: no operator has them, or these traits have a rule already.
        """
        self._spread(Cell(rule, "", traits))

    def none(self, reason: str, *operators: str) -> None:
        """Say why operators have no rule.

        Raises:
            RuleError: an operator is not in the table, or is registered already.
        """
        self._name(Cell(None, reason, None), operators)

    def none_for_trait(self, traits: Trait, reason: str) -> None:
        """Say why operators that have all of these traits have no rule.

        Raises:
            RuleError: as `for_trait`.
        """
        self._spread(Cell(None, reason, traits))

    def explain(self, reasons: Mapping[Trait | str, str]) -> None:
        """Say why operators have no rule, by traits or names.

        Raises:
            RuleError: as `none` and `none_for_trait`.
        """
        for of, reason in reasons.items():
            if isinstance(of, Trait):
                self.none_for_trait(of, reason)
            else:
                self.none(reason, of)

    def include(self, other: Rules[T]) -> None:
        """Take over another registry's entries.

        Raises:
            RuleError: an operator is registered in both.
        """
        for operator, cell in other._named.items():
            self._name(cell, [operator])
        for cell in other._by_trait.values():
            self._spread(cell)

    def cell(self, operator: str) -> Cell[T] | None:
        """Rule or reason; None if neither is registered.

        Raises:
            RuleError: two sets of traits give it different rules, and neither holds the other.
        """
        if operator in self._named:
            return self._named[operator]
        if operator not in self._resolved:
            self._resolved[operator] = self._of_traits(operator)
        return self._resolved[operator]

    def get(self, operator: str) -> T | None:
        """The rule of an operator, None without one; operators outside the table have none."""
        cell = self.cell(operator)
        return None if cell is None else cell.rule

    def __getitem__(self, operator: str) -> T:
        rule = self.get(operator)
        if rule is None:
            raise RuleError(f"{self.analysis}: no rule for {operator!r}")
        return rule

    def __contains__(self, operator: str) -> bool:
        return self.get(operator) is not None

    def __iter__(self) -> Iterator[str]:
        """Operators that have a rule: by name, as they were registered, then by trait, as in the table."""
        yield from (op for op, cell in self._named.items() if cell.rule is not None)
        yield from (op for op in TABLE if op not in self._named and op in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def replaced(self, rule: T, *operators: str) -> Rules[T]:
        """A copy in which `rule` stands for operators, known ones or not (used to test the testers)."""
        kept = self._copy()
        kept._named.update(dict.fromkeys(operators, Cell(rule, "", None)))
        return kept

    def without(self, *operators: str) -> Rules[T]:
        """A copy in which nothing is said of some operators (used to test the testers)."""
        kept = self._copy()
        for operator in operators:
            kept._named.pop(operator, None)
        kept._resolved = dict.fromkeys(operators)
        return kept

    def _copy(self) -> Rules[T]:
        kept: Rules[T] = Rules(self.analysis)
        kept._named, kept._by_trait = dict(self._named), dict(self._by_trait)
        return kept

    def _name(self, cell: Cell[T], operators: Iterable[str]) -> None:
        for operator in operators:
            if operator not in TABLE:
                raise RuleError(f"{self.analysis}: {operator!r} is not in the table of operators")
            if operator in self._named:
                raise RuleError(f"{self.analysis}: operator {operator!r} has a second rule")
            self._named[operator] = cell

    def _spread(self, cell: Cell[T]) -> None:
        traits = cell.by
        assert traits is not None
        if not having(traits):
            raise RuleError(f"{self.analysis}: no operator is {said(traits)}")
        if traits in self._by_trait:
            raise RuleError(f"{self.analysis}: operators that are {said(traits)} have a second rule")
        self._by_trait[traits] = cell
        self._resolved.clear()

    def _of_traits(self, operator: str) -> Cell[T] | None:
        """The cell of most traits."""
        row = TABLE.get(operator)
        fitting = [] if row is None else [traits for traits in self._by_trait if row.has(traits)]
        most = [one for one in fitting if all(other in one for other in fitting)]
        if fitting and not most:
            raise RuleError(
                f"{self.analysis}: {operator!r} has several rules by trait "
                f"({'; '.join(map(said, fitting))}); register its own"
            )
        return self._by_trait[most[0]] if most else None


def said(traits: Trait) -> str:
    """Traits as text: ``pointwise, unary``; without any, ``any``."""
    return ", ".join(str(trait.name).lower().replace("_", " ") for trait in traits) or "any"
