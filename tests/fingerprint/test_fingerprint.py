"""Fingerprints: path-norms against sums over all paths, invariance, what they tell apart."""

from __future__ import annotations

import copy
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typer.testing import CliRunner

from graphnorm.api.sources import open_model
from graphnorm.cli.commands import app
from graphnorm.emission.torch_module import rescale_torch
from graphnorm.fingerprint.compute import Fingerprint, differences, fingerprint_of
from tests.api.test_canonicalize import exported, network, small_cnn
from tests.api.test_check_differences import tied
from tests.support.equivalents import equivalent_weights


def brute_force(layers: list[tuple[Tensor, Tensor]], p: float) -> float:
    """l_p norm over all paths of an MLP: from each input and each bias to each output."""
    total = 0.0
    for first in range(len(layers)):
        sizes = [layer[0].shape[0] for layer in layers[first:]]
        starts: list[tuple[Tensor, int]] = [(layers[first][1], 1)]
        if first == 0:
            starts += [(layers[0][0][:, i], 1) for i in range(layers[0][0].shape[1])]
        for vector, _ in starts:
            for path in itertools.product(*(range(n) for n in sizes)):
                value = float(vector[path[0]])
                for depth, (i, j) in enumerate(itertools.pairwise(path)):
                    value *= float(layers[first + depth + 1][0][j, i])
                total += abs(value) ** p
    return float(total ** (1 / p))


@pytest.mark.parametrize("p", [1, 2, 4])
def test_path_norm_of_an_mlp_is_the_sum_over_all_paths(p: int) -> None:
    torch.manual_seed(0)
    linear = [nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(3, 2)]
    model = nn.Sequential(linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2]).double()
    found = fingerprint_of(model, torch.randn(1, 3, dtype=torch.float64)).path_norms[f"l{p}"]
    expected = brute_force([(layer.weight.detach(), layer.bias.detach()) for layer in linear], p)
    assert found == pytest.approx(expected, rel=1e-10)


class Skipped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(3, 3, bias=False), nn.Linear(3, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + F.relu(self.inner(x)))


def test_skip_connections_are_paths() -> None:
    model = Skipped()
    inner, out = (layer.weight.detach().double().abs() for layer in (model.inner, model.out))
    found = fingerprint_of(model, torch.randn(1, 3)).path_norms["l1"]
    assert found == pytest.approx(float((out @ (torch.eye(3) + inner) @ torch.ones(3, 1).double()).sum()))


def test_max_pool_adds_and_mean_divides() -> None:
    model: Any = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.MaxPool2d(2), nn.AvgPool2d(2))
    with torch.no_grad():
        model[0].weight.fill_(-3.0)
    found = fingerprint_of(model, torch.randn(1, 1, 4, 4)).path_norms
    # 16 entries, each one path: of |w| / 4 and of |w|^2 / 16.
    assert found["l1"] == pytest.approx(16 * 3 / 4)
    assert found["l2"] == pytest.approx(math.sqrt(16 * 9 / 16))


def test_frozen_batch_norm_is_folded() -> None:
    model: Any = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, eps=0.0)).eval()
    with torch.no_grad():
        model[1].running_var.fill_(4.0)
        model[0].bias.zero_()
    found = fingerprint_of(model, torch.randn(1, 1, 2, 2)).path_norms["l1"]
    assert found == pytest.approx(float(4 * model[0].weight.detach().abs().sum() / 2), rel=1e-6)


@pytest.mark.parametrize(
    "name", ["mlp", "residual_projection", "densenet", "transformer", "batch_norm_eval", "unet", "grouped"]
)
def test_equivalent_copies_have_the_same(name: str) -> None:
    model, arguments = network(name)
    weights = equivalent_weights(open_model(model.eval(), arguments).network, 3, 2.0)
    one, two = (fingerprint_of(m, arguments) for m in (model, rescale_torch(model, weights)))
    assert differences(one, two) == []
    assert one.id == two.id


def test_torch_and_onnx_have_the_same() -> None:
    model, example = tied()
    one, two = fingerprint_of(model, example), fingerprint_of(exported(model, example))
    assert differences(one, two) == []
    assert one.id == two.id


def changed(change: Any) -> list[str]:
    model, example = small_cnn()
    other: Any = copy.deepcopy(model)
    with torch.no_grad():
        change(other)
    return differences(fingerprint_of(model, example), fingerprint_of(other, example))


def test_another_weight_is_told_apart() -> None:
    def change(model: Any) -> None:
        flat = model[8].weight.view(-1)
        flat[flat.abs().argmax()] *= 1.01

    assert any("balanced mass" in line for line in changed(change))


def test_another_graph_is_told_apart() -> None:
    assert "the graphs differ" in changed(lambda model: setattr(model, "1", nn.GELU()))


def test_sizes_are_told_apart() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    found = [fingerprint_of(model, torch.randn(1, 1, n, n)) for n in (4, 5)]
    assert any("input sizes" in line for line in differences(*found))


def test_differences_name_numbers() -> None:
    one = Fingerprint("i", "g", {"l1": 1.0, "l2": None}, (2.0, 1.0), ((1,),))
    two = Fingerprint("i", "g", {"l1": 1.1, "l2": 3.0}, (2.0,), ((1,),))
    assert len(differences(one, two)) == 3
    assert differences(one, one) == []


def test_command_line(tmp_path: Path) -> None:
    model, example = small_cnn()
    onnx.save(exported(model, example), tmp_path / "a.onnx")
    with torch.no_grad():
        model[0].bias[0] += 1
    onnx.save(exported(model, example), tmp_path / "b.onnx")
    one, two = str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")
    runner = CliRunner()
    assert runner.invoke(app, ["fingerprint", one, "--compare", one]).exit_code == 0
    found = runner.invoke(app, ["fingerprint", one, "--compare", two, "--json", str(tmp_path / "r.json")])
    assert found.exit_code == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["differences"]
    assert [item["model"] for item in report["fingerprints"]] == [one, two]
    assert np.isfinite(report["fingerprints"][0]["path_norms"]["l1"])


def test_a_missing_path_norm_has_its_reason() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.last(self.first(x).relu().sqrt())
            return found

    found = fingerprint_of(Root(), torch.randn(1, 3))
    assert set(found.path_norms.values()) == {None}
    assert all(reason.startswith("Sqrt ") for reason in found.missing.values())
    assert found.missing.keys() == found.path_norms.keys()
