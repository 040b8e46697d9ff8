"""Random compositions of layers: rules against the oracle, and outputs under random rescalings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings

from graphnorm.emission.torch_module import rescale_torch
from graphnorm.frontends.torch.read import read_torch
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.weights.coefficients import rescale
from tests.support.oracle import count_null, derivatives, draw, normalised
from tests.support.random_networks import Program, programs
from tools.validation.network import log_scales

PROFILE = settings(
    deadline=None, database=None, derandomize=True, print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip


def inputs_of(model: Program, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    return (torch.randn(model.shape, generator=generator, dtype=torch.float64),)


def claimed(graph: RescalingGraph, columns: dict[str, slice], count: int) -> torch.Tensor:
    """Log-scale of each parameter entry under each independent rescaling, in the oracle's order."""
    matrix = np.zeros((count, graph.solution.count))
    for name, scales in log_scales(graph).items():
        matrix[columns[name]] = scales
    return torch.from_numpy(matrix)


def check(model: Program) -> None:
    """Fail with the program and what is wrong with its rules."""
    generator = torch.Generator().manual_seed(0)
    model.load_state_dict(draw(model, generator))
    assume(all(torch.isfinite(model(*inputs_of(model, generator))).all() for _ in range(8)))  # 0 / 0
    graph = build(read_torch(model, inputs_of(model, generator)))
    assert not graph.scales.unknown
    columns, rows = derivatives(model, lambda g: inputs_of(model, g))
    rows = normalised(rows)
    claims = claimed(graph, columns, rows.shape[1])
    assert not claims.numel() or not len(rows) or float((rows @ claims).abs().max()) < 1e-7, (
        "claimed but false"
    )
    live = rows.norm(dim=0) > 1e-12
    knows_zeros = any(step.layer == "pad" for step in model.steps)  # not followed through every layer
    if live.any() and not knows_zeros:
        rank = int(torch.linalg.matrix_rank(claims[live], tol=1e-8)) if claims.numel() else 0
        assert rank == count_null(rows), "true but missing"
    keeps_the_function(model, graph, generator)


def keeps_the_function(model: Program, graph: RescalingGraph, generator: torch.Generator) -> None:
    z = np.random.default_rng(3).normal(scale=0.5, size=graph.solution.count)
    other = rescale_torch(model, rescale(graph, z).weights)
    for _ in range(3):
        (x,) = inputs_of(model, generator)
        with torch.no_grad():
            before, after = model(x), other(x)
        assert float((after - before).norm()) <= 1e-9 * float(before.norm()), "outputs differ"


@given(programs())
@settings(PROFILE, max_examples=40)
def test_random_networks(model: Program) -> None:
    check(model)


@pytest.mark.slow
@given(programs(most=10))
@settings(PROFILE, max_examples=1000)
def test_many_random_networks(model: Program) -> None:
    check(model)
