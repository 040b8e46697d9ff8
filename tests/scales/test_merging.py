"""Labels that are merged while the graph is walked: the same rescalings, fewer labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphnorm.alignment.normal import normalise
from graphnorm.api.sources import open_model
from graphnorm.ir import Graph, Node
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.scales.walk import Walk
from graphnorm.util.typing import Floats
from tests.alignment.test_normal_forms import FAST
from tests.api.test_canonicalize import network
from tests.support.networks import NETWORKS
from tools.validation.network import log_scales


def merge_after_each_node(monkeypatch: pytest.MonkeyPatch) -> None:
    visit = Walk._visit

    def merging(self: Walk, node: Node) -> None:
        visit(self, node)
        self._merge()

    monkeypatch.setattr(Walk, "_visit", merging)


def rescalings(graph: RescalingGraph) -> Floats:
    """Log-scale of each weight entry, a column per independent variable."""
    found = log_scales(graph)
    return np.concatenate([np.asarray(found[name]) for name in sorted(graph.network.weights)])


def same_rescalings(plain: RescalingGraph, merged: RescalingGraph) -> None:
    assert plain.dimension == merged.dimension
    one, two = rescalings(plain), rescalings(merged)
    rank = np.linalg.matrix_rank(one) if one.size else 0
    assert rank == plain.dimension
    assert rank == (np.linalg.matrix_rank(np.hstack([one, two])) if one.size else 0)


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_the_same_rescalings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, arguments = network(name)
    written = open_model(model.eval(), arguments).network
    forms: list[Graph] = [written, normalise(written).graph]
    plain = [build(graph) for graph in forms]
    merge_after_each_node(monkeypatch)
    for before, graph in zip(plain, forms, strict=True):
        same_rescalings(before, build(graph))


class Elementary(nn.Module):
    """An attention behind a norm in elementary operators: only its epsilon pins the scale of a position."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.gain = nn.Parameter(torch.rand(8) + 0.5)
        self.embed, self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token, self.embed(x)], 1)
        x = x - x.mean(2, keepdim=True)
        x = x / (x * x).mean(2, keepdim=True).add(1e-5).sqrt() * self.gain
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        return torch.softmax(scores, -1) @ self.value(x)


def test_positions_do_not_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    written = open_model(Elementary(), torch.randn(1, 40, 8)).network
    plain = build(written)
    merge_after_each_node(monkeypatch)
    merged = build(written)
    same_rescalings(plain, merged)
    assert merged.dimension == 8 + 8  # queries with keys, and the gain with what reads it
    counts = [graph.scales.constraints.count for graph in (plain, merged)]
    assert counts[1] < counts[0] / 2
