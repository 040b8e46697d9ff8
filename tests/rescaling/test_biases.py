"""Biases in the objective, and the largest numbers before and after."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import graphnorm
from graphnorm.api.sources import open_model
from graphnorm.certificates.verify import save_certificate, verify_certificate
from graphnorm.cli.commands import app
from graphnorm.rescaling.objective import build_problem
from graphnorm.solver.problem import objective
from graphnorm.verification.onnx.runner import OnnxRunner
from graphnorm.weights.extremes import leaving_half
from tests.weights.test_underflow import mlp

RNG = np.random.default_rng(0)


def nearly_dead(dead: float = 1e-9) -> onnx.ModelProto:
    """One channel hardly reads its input: its bias is what it says."""
    first, bias = RNG.normal(size=(6, 8)).astype(np.float32), RNG.normal(size=8).astype(np.float32)
    first[:, 2] *= dead
    return mlp([first, RNG.normal(size=(8, 3)).astype(np.float32)], bias)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_the_minimum_is_stationary_and_below_its_surroundings(p: float) -> None:
    result = graphnorm.canonicalize(nearly_dead(0.1), p=p, biases=True)
    problem = build_problem(graphnorm.trace(result.model), p, biases=True)
    z = np.zeros(problem.count)
    least = objective(problem, z)
    assert least == pytest.approx(result.report.objective["after"], rel=1e-5)
    for _ in range(8):
        move = RNG.normal(size=problem.count) * 1e-2
        assert objective(problem, move) > least
        slope = (objective(problem, 1e-3 * move) - objective(problem, -1e-3 * move)) / least
        assert abs(slope) < 1e-8
    assert result.report.verification.verdict == "proved"
    assert result.report.solver["gap"] < 1e-9


def test_the_minimum_does_not_depend_on_the_start() -> None:
    a = nearly_dead(0.3)
    b = graphnorm.canonicalize(a).model
    after = [graphnorm.canonicalize(model, biases=True).report.objective["after"] for model in (a, b)]
    assert after[0] == pytest.approx(after[1], rel=1e-6)


def test_a_nearly_dead_channel_blows_its_bias_up_unless_biases_count() -> None:
    plain, counted = (graphnorm.canonicalize(nearly_dead(1e-12), biases=on).report for on in (False, True))
    assert plain.extremes["bias"][1] > 65504 > plain.extremes["bias"][0]
    assert plain.extremes["coefficient"][1] > 1e5
    assert plain.extremes["activation"][1] > 65504 > plain.extremes["activation"][0]
    for kind in ("bias", "activation"):
        assert any(f"largest {kind} was" in remark and "float16" in remark for remark in plain.remarks)
    assert counted.extremes["bias"][1] < 10
    assert not any("float16" in remark for remark in counted.remarks)
    assert counted.to_dict()["extremes"]["bias"]["after"] == counted.extremes["bias"][1]
    assert (plain.options["biases"], counted.options["biases"]) == (False, True)


def test_activations_are_those_of_the_new_model() -> None:
    """Labels say how much each grows: a run of the new model finds the same."""
    torch.manual_seed(0)
    first = nn.Linear(4, 6)
    with torch.no_grad():
        first.weight[1] *= 1e-6
        first.bias.fill_(1.0)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.randn(3, 4)
    result = graphnorm.canonicalize(model, x)
    seen: list[float] = []
    with torch.no_grad():
        for module in result.model:
            x = module(x)
            seen.append(float(x.abs().max()))
    assert result.report.extremes["activation"][1] == pytest.approx(max(seen), rel=1e-4)


def test_what_was_outside_before_is_no_news() -> None:
    assert leaving_half({"bias": (7e4, 9e4), "weight": (1.0, 6e4), "coefficient": (1.0, 1e9)}) == []
    assert len(leaving_half({"bias": (7e3, 9e4), "weight": (1.0, 7e4)})) == 2


@pytest.mark.parametrize("claimed", [True, False])
def test_certificates_say_whether_biases_count(claimed: bool, tmp_path: Path) -> None:
    onnx.save(nearly_dead(0.1), tmp_path / "a.onnx")
    result = graphnorm.canonicalize(tmp_path / "a.onnx", biases=True)
    onnx.save(onnx_ir.to_proto(result.model), tmp_path / "b.onnx")
    save_certificate(result, tmp_path / "c.json")
    claims = json.loads((tmp_path / "c.json").read_text())
    assert claims["biases"] is True
    (tmp_path / "c.json").write_text(json.dumps({**claims, "biases": claimed}))
    found = verify_certificate(tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "c.json")
    assert found.valid is claimed
    assert claimed or "objective before" in found.failure


@pytest.mark.parametrize("size", [None, 0.05])
def test_biases_are_rounded_anew_and_not_moved(size: float | None) -> None:
    """The noise of rounding is that of all weights; nearby models differ in their matrices."""
    source = open_model(nearly_dead())
    moved = source.runner(source.model, "cpu").nearby(0, size)
    assert isinstance(moved, OnnxRunner)
    held = {name: value.const_value for name, value in moved._model.graph.initializers.items()}
    arrays = {name: tensor.numpy() for name, tensor in held.items() if tensor is not None}
    same = {name: np.array_equal(arrays[name], old) for name, old in source.network.weights.items()}
    assert same == {"W0": False, "W1": False, "bias": size is not None}


@pytest.mark.parametrize("seed", [3, 17, 29])
def test_half_precision_with_biases_is_not_refused(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.exp(rng.normal(size=(6, 8)))
    arrays = [(rng.normal(size=(6, 8)) * rows).astype(np.float16), rng.normal(size=(8, 3)).astype(np.float16)]
    model = mlp(arrays, (3 * rng.normal(size=8)).astype(np.float16))
    assert graphnorm.canonicalize(model).report.verification.verdict == "proved"


def test_command_line(tmp_path: Path) -> None:
    onnx.save(nearly_dead(), tmp_path / "a.onnx")
    arguments = ["canonicalize", str(tmp_path / "a.onnx"), "-o", str(tmp_path / "b.onnx"), "--biases"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    assert "largest bias" in found.output
