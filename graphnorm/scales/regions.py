"""Disjoint regions of weights: a weight that several consumers read counts once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from graphnorm.ir import Array
from graphnorm.scales.demands import Demand


def each_entry_once(
    weights: Mapping[str, Array], demands: Sequence[Demand]
) -> Iterator[tuple[Demand, Array]]:
    """Each demand with the entries that it describes; entries that an earlier demand describes are 0."""
    count = Counter(item.weight for item in demands)
    seen: dict[str, npt.NDArray[np.bool_]] = {}
    for item in demands:
        weight = weights[item.weight]
        region = item.region(weight)
        if count[item.weight] > 1 or any(step.key.startswith("Gather") for step in item.path):
            known = seen.setdefault(item.weight, np.zeros(weight.size, dtype=bool))
            entries = item.region(np.arange(weight.size).reshape(weight.shape))
            fresh = _first(entries) & ~known[entries]
            known[entries] = True
            region = region if fresh.all() else np.where(fresh, region, np.zeros((), dtype=region.dtype))
        yield item, region


def _first(entries: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """First position of each number."""
    found = np.zeros(entries.size, dtype=bool)
    found[np.unique(entries, return_index=True)[1]] = True
    return found.reshape(entries.shape)
