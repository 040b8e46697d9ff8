"""No lowering and no rule for permutations fails on what the validating tool makes of any operator.

A failure inside one is caught, and its operator is kept or frozen: nothing else would show it.
"""

from __future__ import annotations

import numpy as np
import pytest

from graphnorm import ir
from graphnorm.alignment.normal import normalise
from graphnorm.permutation.symmetry import symmetry
from tools.validation.families import GENERATORS
from tools.validation.judge import make_case, stream
from tools.validation.network import minimal
from tools.validation.truth import Operator

CASES = 6


def networks(op: str) -> list[ir.Graph]:
    found = []
    for index in range(CASES):
        case = make_case(op, 0, index)
        operator = Operator(case)
        operands = operator.draw(stream(op, 0, index, 1))
        found.append(minimal(case, operands, operator.run(operands)))
    return found


@pytest.mark.parametrize("op", sorted(GENERATORS))
def test_of_operators(op: str) -> None:
    with np.errstate(all="ignore"):
        for graph in networks(op):
            assert symmetry(graph).defects == ()
            assert normalise(graph).defects == ()
            assert normalise(graph, numbers=True).defects == ()
