"""The operator vocabulary: every rule, assembled in one place."""

from __future__ import annotations

from graphnorm.scales.registry import Registry
from graphnorm.scales.rules import (
    attention,
    contraction,
    control,
    einsum,
    elementwise,
    expression_products,
    expressions,
    movement,
    normalisation,
    recurrent,
    reduction,
)

_FAMILIES = (movement, elementwise, reduction, contraction, einsum, attention, normalisation, recurrent, control)
_BACKWARD = (expressions, expression_products)  # register how demands travel through weight expressions


def default_registry() -> Registry:
    """All rules that graphnorm ships."""
    return Registry(rule for family in _FAMILIES for rule in family.RULES)
