"""Inputs on which models are run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from graphnorm import ir

_DENSITY = 0.05  # of sparse inputs


def battery(
    network: ir.Graph,
    example: Sequence[ir.Array] | None,
    draws: int = 1,
    seed: int = 0,
    wide: bool = False,
) -> list[tuple[str, list[ir.Array]]]:
    """Inputs to try: the example, `draws` of normal, large and small ones, and zeros.

    Wide: uniform and sparse ones too.
    """
    generator = np.random.default_rng(seed)
    found: list[tuple[str, list[ir.Array]]] = []
    if example is not None:
        found.append(("given", list(example)))
    each = [("normal", 1.0), ("large", 30.0), ("small", 1e-2)]
    each += [("uniform", 1.0), ("sparse", 1.0)] if wide else []
    kinds = each * draws + [("zero", 0.0)]
    for name, size in kinds:
        found.append(
            (name, [_draw(network, i, example, name, size, generator) for i in range(len(network.inputs))])
        )
    return found


def _draw(
    network: ir.Graph,
    index: int,
    example: Sequence[ir.Array] | None,
    kind: str,
    size: float,
    generator: np.random.Generator,
) -> ir.Array:
    value = network.values[network.inputs[index]]
    shape = value.shape or ()
    if example is not None:
        shape = example[index].shape
    if value.is_float:
        return (size * _entries(kind, shape, generator)).astype(_dtype(value.dtype))
    if example is not None:  # integers may be token ids, lengths, masks: keep their range
        low, high = int(example[index].min()), int(example[index].max())
        return generator.integers(low, high + 1, shape).astype(example[index].dtype)
    return generator.integers(0, 2, shape).astype(_dtype(value.dtype))


def _entries(kind: str, shape: Sequence[int], generator: np.random.Generator) -> ir.Array:
    if kind == "uniform":
        return generator.uniform(0, 1, shape)
    normal = generator.standard_normal(shape)
    return np.where(generator.uniform(size=shape) < _DENSITY, normal, 0.0) if kind == "sparse" else normal


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))
