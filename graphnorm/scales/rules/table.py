"""Every rule, assembled in one place."""

from __future__ import annotations

from graphnorm.ops.rules import Rules
from graphnorm.scales.registry import Registry
from graphnorm.scales.rules import (
    attention,
    contraction,
    control,
    convolution,
    einsum,
    elementwise,
    expression_products,
    expressions,
    fixed,
    indexing,
    movement,
    normalisation,
    recurrent,
    reduction,
    routing,
    sampling,
)

_FAMILIES = (
    movement, indexing, routing, elementwise, reduction, sampling, contraction, convolution, einsum,
    attention, recurrent, normalisation, control, fixed,
)  # fmt: skip
_BACKWARD = (expressions, expression_products)  # register how demands travel through weight expressions


def default_registry() -> Registry:
    """All rules that graphnorm ships."""
    registry: Registry = Rules("scales")
    for family in _FAMILIES:
        registry.include(family.RULES)
    return registry
