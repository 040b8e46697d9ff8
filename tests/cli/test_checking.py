"""``graphnorm check`` from the command line: exit codes, and what it writes."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import graphnorm
from graphnorm.api.sources import open_model
from graphnorm.cli.commands import app
from graphnorm.emission.onnx_file import rescale_onnx
from graphnorm.emission.torch_module import rescale_torch
from graphnorm.verification.onnx.providers import pick_provider
from graphnorm.verification.torch.places import pick_device
from tests.api.test_canonicalize import exported, small_cnn
from tests.support.equivalents import equivalent_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.onnx; moved.onnx, rescaled and permuted; wrong.onnx, one weight off; leaky.onnx, other operators."""
    found = tmp_path_factory.mktemp("check")
    model, example = small_cnn()
    with torch.no_grad():
        for layer in (model[0], model[2], model[5]):
            layer.bias.abs_().add_(0.5)  # a unit that never wakes would make the verdict "not exercised"
    proto = exported(model, example)
    onnx.save(proto, found / "a.onnx")
    loaded = onnx_ir.from_proto(proto)
    onnx_ir.save(rescale_onnx(loaded, equivalent_weights(open_model(loaded).network)), found / "moved.onnx")
    wrong = copy.deepcopy(model)
    with torch.no_grad():
        flat = wrong[8].weight.view(-1)
        flat[flat.abs().argmax()] *= 1 + 1e-3
    onnx.save(exported(wrong, example), found / "wrong.onnx")
    same = nn.Sequential(*(nn.LeakyReLU(0.0) if isinstance(part, nn.ReLU) else part for part in model))
    onnx.save(exported(same, example), found / "leaky.onnx")
    return found


def run(folder: Path, other: str, *options: str) -> Result:
    arguments = ["check", str(folder / "a.onnx"), str(folder / other), "--seconds", "2", *options]
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    ("other", "verdict", "code", "strict"),
    [("a.onnx", "identical", 0, 0), ("moved.onnx", "proved", 0, 0), ("leaky.onnx", "agrees", 0, 1),
     ("wrong.onnx", "differs", 1, 1)],
)  # fmt: skip
def test_exit_codes(folder: Path, tmp_path: Path, other: str, verdict: str, code: int, strict: int) -> None:
    path = tmp_path / "r.json"
    found = run(folder, other, "--json", str(path))
    report = json.loads(path.read_text())
    assert (report["verification"]["verdict"], found.exit_code) == (verdict, code)
    assert run(folder, other, "--require-proof").exit_code == strict


def test_permutations_can_be_left_out(folder: Path) -> None:
    found = run(folder, "moved.onnx", "--no-permutations", "--require-proof")
    assert found.exit_code == 1
    assert "agrees" in found.output


def test_a_counterexample_is_an_input(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    assert run(folder, "wrong.onnx", "--counterexample", str(path)).exit_code == 1
    assert list(np.load(path)) == ["input"]
    again = run(folder, "wrong.onnx", "--input", str(path), "--seconds", "0")
    assert again.exit_code == 1
    assert "1 inputs (1 given)" in again.output


def test_no_counterexample_is_written_where_there_is_none(folder: Path, tmp_path: Path) -> None:
    assert run(folder, "moved.onnx", "--counterexample", str(tmp_path / "out.npz")).exit_code == 0
    assert not list(tmp_path.iterdir())


def test_page_stands_alone(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    run(folder, "wrong.onnx", "--html", str(path))
    text = path.read_text()
    assert text.count("<svg") == 2
    assert not re.search(r"(src|href)\s*=|@import|url\(", text)
    assert "differs" in text


def test_the_report_names_what_ran(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    run(folder, "moved.onnx", "--json", str(path))
    measured = json.loads(path.read_text())["verification"]["measurement"]
    assert [text.split()[-1] for text in measured["runtimes"]] == ["CPUExecutionProvider"] * 2
    assert measured["anchor"]


def test_destinations_are_checked_first(folder: Path, tmp_path: Path) -> None:
    for option, name in (("--html", "x.txt"), ("--counterexample", "x.txt"), ("--html", "no/x.html")):
        assert run(folder, "moved.onnx", option, str(tmp_path / name)).exit_code == 2


class TestDevices:
    def test_providers_have_short_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        offered = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr("onnxruntime.get_available_providers", lambda: offered)
        assert pick_provider("auto") == "CPUExecutionProvider"
        assert pick_provider("openvino") == "OpenVINOExecutionProvider"
        with pytest.raises(graphnorm.InputError, match="onnxruntime offers OpenVINO"):
            pick_provider("cuda")

    def test_what_torch_lacks_is_an_error(self) -> None:
        with pytest.raises(graphnorm.InputError, match="torch cannot use it"):
            pick_device("openvino")

    def test_nothing_falls_back(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A provider that is offered and does not start is an error, not another provider."""
        offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr("onnxruntime.get_available_providers", lambda: offered)
        found = run(folder, "moved.onnx", "--device", "cuda")
        assert found.exit_code != 0
        assert "CUDAExecutionProvider" in str(found.exception) + found.output

    @pytest.mark.gpu
    def test_torch_runs_on_cuda(self) -> None:
        model, example = small_cnn()
        source = open_model(model, example)
        other = rescale_torch(model, equivalent_weights(source.network))
        report = graphnorm.check(model, other, example, device="cuda")
        assert report.verdict == "proved"
        assert report.verification.measurement is not None
        assert all(text.endswith("on cuda") for text in report.verification.measurement.runtimes)
