"""Generators of cases, one module a family; importing this package registers all of them."""

from __future__ import annotations

from tools.validation.families import (
    contraction,
    elementwise,
    functions,
    loss,
    movement,
    normalisation,
    placement,
    pool,
    quantisation,
    recurrent,
    reduction,
    sampling,
)
from tools.validation.maker import GENERATORS

__all__ = ["FAMILIES", "GENERATORS"]

FAMILIES = (
    contraction, elementwise, functions, loss, movement, normalisation, placement, pool, quantisation,
    recurrent, reduction, sampling,
)  # fmt: skip
