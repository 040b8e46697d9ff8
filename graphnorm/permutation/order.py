"""A canonical order of hidden channels: by a number that no rescaling and no permutation changes.

Of balanced weights (the minimum of the l_2 norm over all rescalings) each channel's entries are summed, signs
kept, tensor by tensor, each tensor in units of its root mean square and with a weight of its own.  The sums
of different channels differ by about their own size, so rounding rarely changes their order.  Channels that
are in order already, up to rounding, stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphnorm.permutation.matching import occurrences, rows
from graphnorm.permutation.symmetry import Permutation, Symmetry
from graphnorm.util.typing import Floats, Integers

_ROUNDING = 1e-6  # of the keys' spread: smaller differences are ties
_GOLDEN = 0.6180339887498949  # multiples modulo 1 are far apart: distinct weights of tensors


def canonical_order(allowed: Symmetry, weights: Mapping[str, Floats]) -> Permutation:
    """The permutation that puts every factor's channels in order; only those that move.

    Args:
        allowed: what may be permuted.
        weights: balanced weights, float64.
    """
    found: Permutation = {}
    places = occurrences(allowed)
    for factor in allowed.sizes:
        key = np.zeros(allowed.sizes[factor])
        for position, place in enumerate(places[factor]):
            table = rows(weights, place)
            size = np.sqrt(np.mean(table**2)) * np.sqrt(table.shape[1])
            if size > 0:
                key += (1 + (position * _GOLDEN) % 1) * table.sum(axis=1) / size
        order = _sorted(key)
        if order is not None:
            found[factor] = order
    return found


def _sorted(key: Floats) -> Integers | None:
    spread = float(key.std())
    if (np.diff(key) >= -_ROUNDING * spread).all():
        return None
    return np.argsort(key, kind="stable")
