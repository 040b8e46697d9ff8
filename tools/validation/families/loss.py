"""Cases of losses."""

from __future__ import annotations

from tools.validation.case import Case, positive
from tools.validation.maker import Maker, cases


@cases("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def classified(m: Maker) -> Case:
    labels = m.discrete((3,), lambda rng, size: rng.integers(0, 2, size))
    weight = [m.real((2,), positive)] if m.chance() else []
    return m.case(m.real((3, 2)), labels, *weight, reduction=m.choose(["none", "mean", "sum"]))
