"""Layer by layer: every hidden activation must be the old one times its coefficient.

Used to name the first layer at which a rescaled model parts from the original.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphnorm import ir
from graphnorm.graph import Floats, RescalingGraph
from graphnorm.scales.labels import FREE

_TOLERANCE = 3e2  # in epsilons of a channel's root mean square: a wrong layer is off by far more


def first_difference(
    graph: RescalingGraph, old: Mapping[str, ir.Array], new: Mapping[str, ir.Array], x: Floats
) -> str:
    """Name the first node whose result in `new` is not that in `old` times exp(scale); empty if none.

    Args:
        graph: the analysed original.
        old: values of the original by name (as many as are known).
        new: values of the rescaled model.
        x: label log-scales.
    """
    for node in graph.network.nodes:
        for name in node.outputs:
            labels = graph.scales.labels.get(name)
            if labels is None or name not in old or name not in new:
                continue
            if old[name].dtype.name not in ir.FLOAT_TYPES:
                continue
            scale = np.where(labels == FREE, 0.0, x[np.maximum(labels, 0)])
            expected = old[name].astype(np.float64) * np.exp(scale)
            off = new[name].astype(np.float64) - expected
            within = tuple(axis for axis, size in enumerate(labels.shape) if size == 1)  # channel by channel
            allowed = _TOLERANCE * ir.float_format(old[name].dtype).eps * _rms(expected, within)
            if (_rms(off, within) > allowed).any():
                return f"{node.op} {node.label}" + (f" ({node.source})" if node.source else "")
    return ""


def _rms(values: Floats, axes: tuple[int, ...]) -> Floats:
    finite = np.where(np.isfinite(values), values, 0.0)
    return np.asarray(np.sqrt(np.mean(finite**2, axis=axes)))
