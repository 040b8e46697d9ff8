"""The table of operators, and questions to it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from graphnorm.errors import RuleError
from graphnorm.ops import functions, layers, movement, others, pointwise, reductions
from graphnorm.ops.traits import NONE, Operator, Trait

_FAMILIES = (
    movement.ROWS, pointwise.ROWS, reductions.ROWS, layers.ROWS, functions.ROWS, others.ROWS,
)  # fmt: skip


def assembled(*families: Mapping[str, Operator]) -> Mapping[str, Operator]:
    """One table of several.

    Raises:
        RuleError: an operator has two rows.
    """
    found: dict[str, Operator] = {}
    for rows in families:
        if twice := found.keys() & rows.keys():
            raise RuleError(f"operators with two rows: {', '.join(sorted(twice))}")
        found.update(rows)
    return MappingProxyType(found)


TABLE = assembled(*_FAMILIES)
"""Name -> row, family by family."""


@cache
def having(traits: Trait, without: Trait = NONE) -> frozenset[str]:
    """Operators with all of some traits, and with none of others.

    >>> sorted(having(Trait.CHANNELS_FIRST | Trait.CONTRACTS, without=Trait.RECURRENT))
    ['Conv', 'ConvTranspose', 'DeformConv']
    """
    return frozenset(row.name for row in TABLE.values() if row.has(traits) and not row.has_any(without))


def has(operator: str, traits: Trait) -> bool:
    """Whether an operator has all of some traits; one that is not in the table has none."""
    row = TABLE.get(operator)
    return row is not None and row.has(traits)


def title(operator: str, weighted: bool = False) -> str:
    """What people call an operator; `weighted`: where it multiplies by a weight."""
    row = TABLE.get(operator)
    if row is None:
        return operator.rpartition("::")[2]
    return row.layer if weighted else row.title
