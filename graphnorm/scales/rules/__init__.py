"""The operator vocabulary: every rule, assembled in one place."""

from __future__ import annotations

from graphnorm.scales.registry import Registry
from graphnorm.scales.rules import (
    contraction,
    control,
    elementwise,
    expressions,
    movement,
    normalisation,
    reduction,
)

_FAMILIES = (movement, elementwise, reduction, contraction, normalisation, control)
_BACKWARD = expressions  # registers how demands travel through weight expressions


def default_registry() -> Registry:
    """All rules that graphnorm ships."""
    return Registry(rule for family in _FAMILIES for rule in family.RULES)
