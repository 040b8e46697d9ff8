"""Layer by layer: every hidden activation must be the old one times its coefficient.

Used to name the first layer at which a rescaled model parts from the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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


@dataclass(frozen=True, slots=True)
class LayerDistance:
    """How far a layer's result is from its counterpart, up to positive factors along one axis.

    Attributes:
        layer: operator, name and source of the original's node.
        distance: largest relative RMSE of a channel.
        parted: whether that is beyond rounding.
    """

    layer: str
    distance: float
    parted: bool


def layer_distances(
    network: ir.Graph,
    counterparts: Mapping[str, str],
    runs: Sequence[tuple[Mapping[str, ir.Array], Mapping[str, ir.Array]]],
) -> list[LayerDistance]:
    """Compare hidden values layer by layer, in the network's order.

    Args:
        network: the original.
        counterparts: value of the original -> value of the other model.
        runs: hidden values of both models by their own names, on several inputs.
    """
    found: list[LayerDistance] = []
    for node in network.nodes:
        for name in node.outputs:
            other = counterparts.get(name, "")
            pairs = [(old[name], new[other]) for old, new in runs if name in old and other in new]
            if not pairs or pairs[0][0].dtype.name not in ir.FLOAT_TYPES:
                continue
            if any(one.shape != two.shape or one.ndim == 0 for one, two in pairs):
                continue
            wide = [(one.astype(np.float64), two.astype(np.float64)) for one, two in pairs]
            label = f"{node.op} {node.label}" + (f" ({node.source})" if node.source else "")
            off = min(
                _off_multiple(wide, axis) for axis in {1, wide[0][0].ndim - 1} if axis < wide[0][0].ndim
            )
            allowed = _TOLERANCE * ir.float_format(pairs[0][0].dtype).eps
            found.append(LayerDistance(label, off, not off <= allowed))
    return found


def _off_multiple(pairs: Sequence[tuple[Floats, Floats]], axis: int) -> float:
    """Largest relative RMSE along `axis` after the best positive factor of each index."""
    one, two = (
        np.concatenate([np.moveaxis(pair[i], axis, 0).reshape(pair[i].shape[axis], -1) for pair in pairs], 1)
        for i in (0, 1)
    )
    with np.errstate(all="ignore"):
        factor = np.maximum((one * two).sum(1), 0.0) / (one * one).sum(1)
        factor = np.nan_to_num(factor, nan=0.0, posinf=0.0)[:, None]
        off = np.sqrt(np.mean((two - factor * one) ** 2, axis=1)) / np.sqrt(np.mean(two**2, axis=1))
    return float(np.where((two == factor * one).all(axis=1), 0.0, off).max(initial=0.0))


def inexact_variables(graph: RescalingGraph, old: Mapping[str, ir.Array], x: Floats) -> npt.NDArray[np.int64]:
    """Variables whose power-of-two coefficients take some activation into or out of the subnormal range.

    There it has fewer bits, so it is rounded differently before and after.

    Args:
        graph: the analysed original.
        old: values of the original by name.
        x: label log-scales, integer multiples of log 2.
    """
    hit: list[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    for name, value in old.items():
        labels = graph.scales.labels.get(name)
        if labels is None or value.dtype.name not in ir.FLOAT_TYPES or (labels <= 0).all():
            continue
        factor = np.exp2(np.rint(np.where(labels == FREE, 0.0, x[np.maximum(labels, 0)]) / np.log(2.0)))
        with np.errstate(over="ignore", under="ignore"):
            wanted = value.astype(np.float64) * factor
            smaller = np.minimum(np.abs(value.astype(np.float64)), np.abs(wanted))
            subnormal = (smaller < ir.float_format(value.dtype).smallest_normal) & (wanted != 0)
            lost = subnormal & (factor != 1) & np.isfinite(wanted)
        if lost.any():
            hit.append(np.unique(np.broadcast_to(labels, value.shape)[lost]))
    labels_hit = np.unique(np.concatenate(hit))
    return np.unique(graph.solution.basis[labels_hit[labels_hit > 0]].indices).astype(np.int64)


def _rms(values: Floats, axes: tuple[int, ...]) -> Floats:
    finite = np.where(np.isfinite(values), values, 0.0)
    return np.asarray(np.sqrt(np.mean(finite**2, axis=axes)))
