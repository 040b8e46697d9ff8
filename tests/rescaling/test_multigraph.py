"""The rescaling graph as a networkx graph, and the picture of energies."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.cli.models.demo import small_onnx
from graphnorm.errors import InputError
from graphnorm.pictures.energy import energy_figure
from graphnorm.rescaling import multigraph as drawing
from graphnorm.rescaling.graph import RescalingGraph


def mlp() -> RescalingGraph:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    return graphnorm.trace(model, torch.randn(2, 4))


def test_groups_of_an_mlp() -> None:
    drawn = mlp().to_networkx()
    assert isinstance(drawn, nx.MultiDiGraph)
    assert dict(drawn.nodes(data="size")) == {0: 1, 1: 6}
    edges = {(a, b, d["weight"], d["role"], d["entries"]) for a, b, d in drawn.edges(data=True)}
    assert edges == {
        (0, 1, "0.weight", "weight", 24),
        (0, 1, "0.bias", "bias", 6),
        (1, 0, "2.weight", "weight", 18),
    }
    assert nx.is_strongly_connected(drawn)


def test_neurons_predict_the_coefficients() -> None:
    graph = mlp()
    drawn = graph.to_networkx("neuron")
    assert drawn.number_of_nodes() == graph.solution.count + 1
    assert drawn.number_of_edges() == 24 + 6 + 18
    z = np.random.default_rng(0).standard_normal(graph.solution.count)
    x = np.concatenate([[0.0], z])
    scales = graph.log_scales(z)
    expected = {
        demand.weight: np.broadcast_to(
            graph.demand_scale(demand, scales), graph.network.weights[demand.weight].shape
        ).ravel()
        for demand in graph.demands
    }
    for start, to, data in drawn.edges(data=True):
        assert x[to] - x[start] == pytest.approx(expected[data["weight"]][data["index"]])
        assert sum(c * x[node] for node, c in data["coefficients"]) == pytest.approx(x[to] - x[start])


def test_entries_add_up_on_grouped_and_flattened_weights() -> None:
    graph = graphnorm.trace(small_onnx())
    drawn = graph.to_networkx("group")
    entries: dict[str, int] = {}
    for _, _, data in drawn.edges(data=True):
        entries[data["weight"]] = entries.get(data["weight"], 0) + data["entries"]
    moved = {demand.weight for demand in graph.movable()}
    assert entries == {name: graph.network.weights[name].size for name in moved}
    loops = [data for a, b, data in drawn.edges(data=True) if data["weight"] == "depthwise.weight"]
    assert len(loops) == 1


def test_products_carry_all_coefficients() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(4, 4, bias=False) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(self.q(x) @ self.k(x).mT, dim=-1) @ self.v(x)

    drawn = graphnorm.trace(Attention(), torch.randn(1, 3, 4)).to_networkx()
    ends = {data["weight"]: (a, b) for a, b, data in drawn.edges(data=True)}
    assert sorted([ends["q.weight"], ends["k.weight"]]) == [(0, 1), (1, 0)]


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = mlp()
    with pytest.raises(InputError, match="level must be one of group, neuron, got 'layer'"):
        graph.to_networkx("layer")
    monkeypatch.setattr(drawing, "EDGE_LIMIT", 10)
    with pytest.raises(InputError, match=r"48 weight entries are too many edges.*level='group'"):
        graph.to_networkx("neuron")


def test_energy_picture_has_labelled_axes() -> None:
    figure = energy_figure({"a": (1e6, 10.0), "b": (1e-3, 10.0), "dead": (0.0, 0.0)}, "net", p=1.5)
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert "layer index" in axes.get_xlabel()
    assert "1.5" in axes.get_ylabel()
    assert [str(line.get_label()).split()[0] for line in axes.lines] == ["before", "after"]
    with pytest.raises(InputError, match="no layer has a non-zero weight"):
        energy_figure({}, "net")
