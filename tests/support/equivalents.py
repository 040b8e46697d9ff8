"""Copies of a model that are the same function: rescaled at random, hidden channels permuted at random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphnorm import ir
from graphnorm.permutation.symmetry import symmetry
from graphnorm.rescaling.graph import build
from graphnorm.weights.coefficients import rescale


def equivalent_weights(
    network: ir.Graph, seed: int = 0, spread: float = 1.0, permute: bool = True
) -> dict[str, ir.Array]:
    """All weights, permuted, then rescaled by coefficients from exp(-spread) to exp(spread)."""
    generator = np.random.default_rng(seed)
    weights = dict(network.weights)
    if permute:
        allowed = symmetry(network)
        orders = {factor: generator.permutation(size) for factor, size in allowed.sizes.items()}
        weights = {k: np.asarray(v, order="C") for k, v in allowed.apply(orders, weights).items()}
    graph = build(replace(network, weights=weights))
    z = generator.uniform(-spread, spread, graph.solution.count)
    return {**weights, **rescale(graph, z).weights}
