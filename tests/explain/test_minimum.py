"""Reasons for a missing minimum, against the definition label by label."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.explain.minimum import DEAD, NO_WAY_IN, NO_WAY_OUT, NO_WAY_THROUGH, MissingMinimum
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.rescaling.objective import build_problem
from graphnorm.solver.problem import flows


class Branches(nn.Module):
    """A product of two branches and a residual trunk: labels of several variables and of both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(4, 6)
        self.gate = nn.Linear(6, 6)
        self.up = nn.Linear(6, 6)
        self.back = nn.Linear(6, 6)
        self.wide = nn.Linear(6, 8)
        self.query, self.key = nn.Linear(8, 5), nn.Linear(8, 5)
        self.value = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.enter(x))
        x = x + self.back(torch.relu(self.gate(x)) * self.up(x))
        x = torch.relu(self.wide(x))
        return torch.softmax(self.query(x) @ self.key(x).mT, -1) @ self.value(x)


def without_minimum(seed: int) -> RescalingGraph:
    """`Branches` with a third of its matrices' rows and columns set to 0 at random."""
    torch.manual_seed(seed)
    model = Branches()
    with torch.no_grad():
        for matrix in (w for w in model.parameters() if w.ndim == 2):
            matrix[torch.rand(matrix.shape[0]) < 0.35] = 0
            matrix[:, torch.rand(matrix.shape[1]) < 0.35] = 0
    return graphnorm.trace(model, torch.randn(3, 4))


def expected(graph: RescalingGraph, labels: list[int]) -> list[tuple[str, int]]:
    """The definition, one label at a time: reasons in the order in which they are met, and how often."""
    problem = build_problem(graph)
    rising, falling = flows(problem, np.zeros(problem.count))
    degenerate = set(MissingMinimum(graph).variables.tolist())
    found: Counter[str] = Counter()
    for label in labels:
        row = graph.solution.basis[[label]]
        if not row.nnz or not set(row.indices.tolist()) <= degenerate:
            continue
        grows, shrinks = rising[row.indices[0]] > 0, falling[row.indices[0]] > 0
        if row.data[0] < 0:
            grows, shrinks = shrinks, grows
        found[
            {(0, 0): DEAD, (0, 1): NO_WAY_IN, (1, 0): NO_WAY_OUT, (1, 1): NO_WAY_THROUGH}[grows, shrinks]
        ] += 1
    return list(found.items())


@pytest.mark.parametrize("seed", range(6))
def test_reasons_are_those_of_the_definition(seed: int) -> None:
    graph = without_minimum(seed)
    missing = MissingMinimum(graph)
    everything = np.random.default_rng(seed).permutation(graph.solution.basis.shape[0])
    assert list(missing.reasons(everything).items()) == expected(graph, everything.tolist())
    for part in np.array_split(everything, 40):
        assert list(missing.reasons(part).items()) == expected(graph, part.tolist())


def test_the_networks_have_every_kind_of_label() -> None:
    """Otherwise the comparison above would say little."""
    seen: set[str] = set()
    signs: set[float] = set()
    longest = 0
    for seed in range(6):
        graph = without_minimum(seed)
        basis, variables = graph.solution.basis, MissingMinimum(graph).variables
        seen |= {reason for reason, _ in expected(graph, list(range(basis.shape[0])))}
        for label in range(basis.shape[0]):
            row = basis[[label]]
            if row.nnz and np.isin(row.indices, variables).all():
                signs.add(float(np.sign(row.data[0])))
                longest = max(longest, row.nnz)
    assert seen == {DEAD, NO_WAY_IN, NO_WAY_OUT, NO_WAY_THROUGH}
    assert signs == {1.0, -1.0}
    assert longest > 1


def test_no_labels_and_no_degenerate_variables() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert MissingMinimum(without_minimum(0)).reasons(nothing) == {}
    torch.manual_seed(0)
    sound = graphnorm.trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), torch.randn(1, 2))
    assert MissingMinimum(sound).reasons(np.arange(sound.solution.basis.shape[0])) == {}
