"""Equivalent blocks (Stock et al. 2019, section on skip connections): the paper's approximation.

A group between two layers only is the inside of a branch.  Balanced, the two layers in series have equal
masses, the geometric mean of what they have now.  So where a branch meets a group that several branches
share, its layer counts with its mass in that equivalent block, times sqrt(other layer / this layer); branches
in parallel add up.  Then the insides are balanced.  At the optimum the factor is 1: the fixed point is the
solver's; only the path differs.
"""

from __future__ import annotations

import math

from graphnorm.solver.arrays import Array
from graphnorm.solver.cyclic import update
from graphnorm.solver.descent import Descent
from graphnorm.solver.groups import Group
from graphnorm.solver.method import Limits, Run


def paper_blocks(at: Descent, limits: Limits) -> Run:
    """Cycles of: groups shared by branches, by equivalent blocks; then the insides of branches."""
    inner = [group for group in at.groups if len(group.parts) == 2]
    inside = {id(part.block): group for group in inner for part in group.parts}
    outer = [group for group in at.groups if len(group.parts) != 2]
    cycles, left = 0, at.imbalance()
    while left > limits.tol and cycles < limits.max_cycles:
        for group in outer:
            weights = [_equivalent(at, inside.get(id(part.block)), id(part.block)) for part in group.parts]
            update(at, group, *at.meeting(group, weights)[:2])
        for group in inner:
            update(at, group, *at.meeting(group)[:2])
        cycles += 1
        left = at.imbalance()
        limits.tell(at, cycles, left)
    return Run(cycles, left)


def _equivalent(at: Descent, group: Group | None, block: int) -> Array | float:
    """sqrt(mass of the other layer / mass of this one) around the inside of a branch."""
    if group is None:
        return 1.0
    logs = {}
    for part in group.parts:
        logs[id(part.block)] = math.log(max(float(part.block.total()), 1e-300)) + float(at.level(part.block))
    if len(logs) != 2:
        return 1.0
    other = next(value for key, value in logs.items() if key != block)
    return math.exp(0.5 * (other - logs[block]))
