"""Coefficients recovered from two sets of weights, by least squares on the logarithms of their ratios."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

from graphnorm import ir
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.scales.labels import align, varying_axes
from graphnorm.util.typing import Floats

_EXACT = (
    1e-14  # relative: below the rounding of all formats but float64, whose last digits a second pass adds
)
_TRUST = 0.75  # between 1/2, which lets the rounding of coarse formats through, and 1, which is hard to solve
_STEPS = 5000  # of LSQR: chains of layers take about as many as they are long


def recover(graph: RescalingGraph, other: Mapping[str, ir.Array]) -> Floats:
    """Least-squares label log-scales that turn the graph's weights into `other`.

    One equation log(b / a) = scale for each row and column (or expert) of a weight, at its largest entry.

    Raises:
        ValueError: a pair of weights has different shapes, signs or zeros.
    """
    forms: list[sp.csr_array] = []
    targets: list[Floats] = []
    read = {demand.weight for demand in graph.demands if demand.terms}
    finest = min((_rounding(graph.network.weights[name]) for name in read), default=1.0)
    for demand in graph.demands:
        if not demand.terms:
            continue
        old = demand.region(graph.network.weights[demand.weight]).astype(np.float64)
        given = other[demand.weight]
        if given.shape != graph.network.weights[demand.weight].shape:
            raise ValueError(f"weight {demand.weight!r} has another shape")
        new = demand.region(given).astype(np.float64)
        smallest = ir.float_format(given.dtype).smallest_normal
        precision = np.minimum(np.abs(old), np.abs(new)) / smallest  # below 1: digits lost to underflow
        same_sign = np.sign(old) == np.sign(new)
        if (~same_sign & (precision >= 1)).any():
            raise ValueError(f"weight {demand.weight!r} has entries of another sign")
        sides = [varying_axes(align(labels, old.ndim)) for _, labels in demand.terms]
        chosen = _largest_entries(np.where(same_sign, old, 0.0), sides)
        if len(chosen):
            trust = np.minimum(precision.ravel()[chosen], 1.0) * _confidence(given, finest)
            row = sp.csr_array((len(chosen), graph.solution.basis.shape[1]))
            for c, labels in demand.terms:
                spread = np.broadcast_to(align(labels, old.ndim), old.shape).ravel()
                row = row + c * graph.solution.basis[spread[chosen]]
            forms.append(sp.csr_array(row.multiply(trust[:, None])))
            targets.append(trust * np.log(new.ravel()[chosen] / old.ravel()[chosen]))
    z = np.zeros(graph.solution.count)
    if forms:
        matrix = sp.csr_array(sp.vstack(forms))
        wanted = np.concatenate(targets)
        for _ in range(2):  # the second time on the residual, for the last digits of float64 weights
            z = (
                z
                + scipy.sparse.linalg.lsmr(
                    matrix, wanted - matrix @ z, atol=_EXACT, btol=_EXACT, maxiter=_STEPS
                )[0]
            )
    return graph.log_scales(z)


def _rounding(weight: ir.Array) -> float:
    return float(ir.float_format(weight.dtype).eps)


def _confidence(weight: ir.Array, finest: float) -> float:
    """Weight in the least squares: a coarse format's rounding e must not reach weights that round by f.

    The power 1/2 of f / e would let an error of f through; the power 1 is ill-conditioned.
    """
    return float((finest / _rounding(weight)) ** _TRUST)


def _largest_entries(values: Floats, sides: Iterable[frozenset[int]]) -> np.ndarray:
    """Flat indices of the largest |entry| at each index of each set of axes."""
    magnitude = np.abs(values)
    index = np.arange(values.size).reshape(values.shape)
    found = [np.empty(0, dtype=np.int64)]
    for side in set(sides):
        front = sorted(side)
        order = [*front, *(axis for axis in range(values.ndim) if axis not in side)]
        rows = math.prod(values.shape[axis] for axis in front)
        flat, positions = (array.transpose(order).reshape(rows, -1) for array in (magnitude, index))
        if flat.shape[1]:
            best = flat.argmax(axis=1)
            each = np.arange(rows)
            found.append(positions[each, best][flat[each, best] > 0])
    return np.unique(np.concatenate(found))
