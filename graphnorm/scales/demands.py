"""Demands: the scale that a consumer needs of a weight.

It is a log-scale ``sum_t c_t * x[labels_t]`` of a region of the weight; `backward` carries it to the weight
through the expression in between.  Two demands on the same entries of one weight must agree, see `reconcile`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from graphnorm.ir import Array
from graphnorm.scales.constraints import Term


class Role(StrEnum):
    """How the consumer uses a weight."""

    WEIGHT = "weight"
    """It is multiplied: the objective counts it."""
    BIAS = "bias"
    """It is added; it is rescaled with its channel."""
    FIXED = "fixed"
    """It keeps its value."""
    FACTOR = "factor"
    """Of an entrywise product with another weight; `roles` says whether it counts."""


@dataclass(frozen=True, slots=True)
class Step:
    """A data movement on the way from a weight to its consumer; equal keys move alike.

    `cut` are the axes of the result along which entries were picked (slices, gathers).
    """

    key: str
    apply: Callable[[Array], Array]
    cut: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """The log-scale that a consumer needs of (a region of) a weight.

    Attributes:
        weight: name of the weight.
        path: movements from the weight to the region that `terms` describe.
        terms: the demanded log-scale, label arrays broadcastable to the region's shape.
        role: what the weight does at its consumer.
        node: index of the consuming node.
        reason: why the weight may not move, where it is ``fixed``.
    """

    weight: str
    path: tuple[Step, ...]
    terms: tuple[Term, ...]
    role: Role
    node: int
    reason: str = ""

    def region(self, array: Array) -> Array:
        """The part of `array` (of the weight's shape) that the demand describes."""
        for step in self.path:
            array = step.apply(array)
        return array
