"""Root mean squares without overflow or underflow of the squares."""

from __future__ import annotations

import numpy as np

from graphnorm.util.typing import Floats

_SMALL, _LARGE = 1e-280, 1e300  # of a mean square: outside, squares may have been lost


def root_mean_square(values: Floats) -> float:
    """Square root of the mean of the squares, 0 without entries."""
    if not values.size:
        return 0.0
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        mean = float(np.mean(values**2))
        if _SMALL < mean < _LARGE or np.isnan(mean):
            return float(np.sqrt(mean))
        largest = float(np.abs(values).max())
        if largest == 0.0 or np.isinf(largest):
            return largest
        return largest * float(np.sqrt(np.mean((values / largest) ** 2)))


def distance(first: Floats, second: Floats) -> float:
    """Root mean square of the difference."""
    with np.errstate(over="ignore", invalid="ignore"):
        off = root_mean_square(first - second)
        return off if np.isfinite(off) else 2 * root_mean_square(first / 2 - second / 2)
