"""Which weights the objective counts: those that are multiplied; what is added follows its channel.

A weight that is multiplied by data counts, and so does each of two weights that meet in a matrix product or
a convolution, whatever their product is for.  Of an entrywise product of two weights that is added to
activations (a running mean times a gain) a factor counts only if it can move while no activation does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from graphnorm.scales.demands import Demand, Role
from graphnorm.scales.labels import PINNED, Labels

COUNTED = (Role.FACTOR, Role.WEIGHT)
_ORDER = (Role.FIXED, Role.BIAS, *COUNTED)


def strongest(roles: Iterable[Role]) -> Role:
    """The role of a weight that has several."""
    return max(roles, key=_ORDER.index)


def settled(
    demands: Sequence[Demand], activations: Iterable[Labels], basis: sp.csr_array
) -> tuple[Demand, ...]:
    """Every ``factor`` as ``weight`` or as ``bias``.

    Args:
        demands: the log-scale of each region of a weight.
        activations: labels of the values that depend on the network's inputs.
        basis: labels in terms of independent variables.
    """
    if all(item.role != Role.FACTOR for item in demands):
        return tuple(demands)
    found = [np.unique(labels) for labels in activations]
    seen = np.zeros(basis.shape[1], dtype=bool)
    seen[_variables(basis, np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *found])))] = True
    return tuple(
        replace(item, role=_role(item, seen, basis)) if item.role == Role.FACTOR else item for item in demands
    )


def _role(item: Demand, seen: Labels, basis: sp.csr_array) -> Role:
    follows = all(seen[_variables(basis, labels)].all() for _, labels in item.terms)
    return Role.BIAS if follows else Role.WEIGHT


def _variables(basis: sp.csr_array, labels: Labels) -> Labels:
    """The variables that occur in labels."""
    return np.unique(basis[np.unique(labels[labels > PINNED])].indices)
