"""Layer by layer: every hidden activation must be the old one times its coefficient.

Used to name the first layer at which a rescaled model differs from the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphnorm import ir
from graphnorm.ops.table import having
from graphnorm.ops.traits import Trait
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.scales.labels import FREE
from graphnorm.util.typing import Floats

_PASS_FACTORS = having(Trait.POINTWISE | Trait.UNARY | Trait.HOMOGENEOUS) | having(Trait.COPIES)
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

    A layer with weights may multiply its channels by factors that a later one undoes; one without passes the
    factors of its operand on, or none where its operands have none.

    Args:
        network: the original.
        counterparts: value of the original -> value of the other model.
        runs: hidden values of both models by their own names, on several inputs.
    """
    found: list[LayerDistance] = []
    weighted = {*network.weights}
    equal = {*network.inputs, *network.constants}
    origin: dict[str, str] = {}  # value without a counterpart -> the one whose factors it has
    for node in network.nodes:
        operands = [name for name in node.inputs if name]
        if operands and weighted.union(network.constants).issuperset(operands):
            weighted.update(name for name in node.outputs if name)
            continue
        plain = equal.issuperset(operands)  # then it has no weights either
        passed = (
            origin.get(operands[0], operands[0]) if len(operands) == 1 and node.op in _PASS_FACTORS else ""
        )
        for name in node.outputs:
            pairs = _pairs(name, counterparts, runs)
            if not pairs:
                equal.update([name] if plain else [])
                origin.update({name: passed} if passed else {})
                continue
            allowed = _TOLERANCE * ir.float_format(pairs[0][0].dtype).eps
            wide = [(one.astype(np.float64), two.astype(np.float64)) for one, two in pairs]
            off = max(_apart(one, two) for one, two in wide)
            if off <= allowed:
                equal.add(name)
            elif not plain:
                before = _pairs(passed, counterparts, runs)
                off = _off_passed(wide, before) if before else _off_factors(wide)
            label = f"{node.op} {node.label}" + (f" ({node.source})" if node.source else "")
            found.append(LayerDistance(label, off, not off <= allowed))
    return found


def _pairs(
    name: str,
    counterparts: Mapping[str, str],
    runs: Sequence[tuple[Mapping[str, ir.Array], Mapping[str, ir.Array]]],
) -> list[tuple[ir.Array, ir.Array]]:
    """A value and its counterpart on each input, where both are floats of one shape."""
    other = counterparts.get(name, "")
    pairs = [(old[name], new[other]) for old, new in runs if name in old and other in new]
    fits = all(one.dtype.name in ir.FLOAT_TYPES and one.shape == two.shape and one.ndim for one, two in pairs)
    return pairs if fits else []


def _axes(rank: int) -> set[int]:
    """The axes along which factors are looked for."""
    return {axis for axis in (1, rank - 1) if axis < rank}


def _apart(one: Floats, two: Floats) -> float:
    """Relative RMSE of two arrays as they are."""
    if np.array_equal(one, two, equal_nan=True):
        return 0.0
    with np.errstate(all="ignore"):
        off = np.sqrt(np.mean((two - one) ** 2)) / np.sqrt(np.mean(one**2))
    return float(np.nan_to_num(off, nan=np.inf))


def _off_passed(pairs: Sequence[tuple[Floats, Floats]], before: Sequence[tuple[ir.Array, ir.Array]]) -> float:
    """Relative RMSE of B's results and A's times the factors that B's operand has."""
    wide = [(one.astype(np.float64), two.astype(np.float64)) for one, two in before]
    if wide[0][0].shape != pairs[0][0].shape:
        return _off_factors(pairs)
    axis = min(_axes(wide[0][0].ndim), key=lambda axis: _off_multiple(wide, axis))
    factor = _factors(*_by_index(wide, axis))
    shape = [-1 if i == axis else 1 for i in range(wide[0][0].ndim)]
    return max(_apart(one * factor.reshape(shape), two) for one, two in pairs)


def _off_factors(pairs: Sequence[tuple[Floats, Floats]]) -> float:
    """Largest relative RMSE of a channel, after the best factors along one axis."""
    return min(_off_multiple(pairs, axis) for axis in _axes(pairs[0][0].ndim))


def _by_index(pairs: Sequence[tuple[Floats, Floats]], axis: int) -> tuple[Floats, Floats]:
    """Both sides of all pairs as matrices, a row for each index along `axis`."""
    one, two = (
        np.concatenate([np.moveaxis(pair[i], axis, 0).reshape(pair[i].shape[axis], -1) for pair in pairs], 1)
        for i in (0, 1)
    )
    return one, two


def _factors(one: Floats, two: Floats) -> Floats:
    """The best positive factor of each row."""
    with np.errstate(all="ignore"):
        factor = np.maximum((one * two).sum(1), 0.0) / (one * one).sum(1)
    return np.asarray(np.nan_to_num(factor, nan=0.0, posinf=0.0))


def _off_multiple(pairs: Sequence[tuple[Floats, Floats]], axis: int) -> float:
    """Largest relative RMSE along `axis` after the best positive factor of each index."""
    one, two = _by_index(pairs, axis)
    factor = _factors(one, two)[:, None]
    with np.errstate(all="ignore"):
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
