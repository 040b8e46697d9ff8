"""Wrong rules in the registries that analyses use, for as long as a test lasts."""

from __future__ import annotations

from typing import TypeVar

import pytest

from graphnorm.ops.rules import Cell, Rules

T = TypeVar("T")


def plant(patch: pytest.MonkeyPatch, rules: Rules[T], operator: str, rule: T) -> None:
    """Another rule for an operator."""
    patch.setitem(rules._named, operator, Cell(rule, "", None))


def uproot(patch: pytest.MonkeyPatch, rules: Rules[T], operator: str) -> None:
    """No rule for an operator."""
    patch.setitem(rules._named, operator, Cell(None, "uprooted", None))
