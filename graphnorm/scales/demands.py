"""Demands: the scale that a consumer needs of a weight.

It is a log-scale ``sum_t c_t * x[labels_t]`` of a region of the weight; `backward` carries it there through
the expression between them.  Two demands on the same entries of one weight must agree, see `reconcile`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphnorm.ir import Array
from graphnorm.scales.constraints import Term


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
        role: ``weight`` (multiplicative, counted by the objective), ``bias`` (follows), ``fixed``, or
            ``factor``: of an entrywise product with another weight; `roles` says whether that counts.
        node: index of the consuming node.
        reason: why the weight may not move, where it is ``fixed``.
    """

    weight: str
    path: tuple[Step, ...]
    terms: tuple[Term, ...]
    role: str
    node: int
    reason: str = ""

    def region(self, array: Array) -> Array:
        """The part of `array` (of the weight's shape) that the demand describes."""
        for step in self.path:
            array = step.apply(array)
        return array
