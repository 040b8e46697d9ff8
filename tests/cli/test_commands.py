"""The command line: exit codes, messages, JSON, and that failures leave no file."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner, Result

from graphnorm.cli.commands import app
from graphnorm.cli.models.demo import small_onnx
from graphnorm.weights.coefficients import Rescaled, rescale

MODELS = """
import torch
from torch import nn

example_inputs = torch.ones(2, 4)


def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def lost():
    model = mlp()
    model[0].weight.data[0, 0] = float("nan")
    return model


class Keyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, ids):
        return self.head(self.table(ids).relu())


def number():
    return 3


def fails():
    raise KeyError("no luck")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a module of torch models, and a small ONNX file."""
    (tmp_path / "cli_zoo.py").write_text(MODELS)
    (tmp_path / "bare_zoo.py").write_text(MODELS.replace("example_inputs", "_unused"))
    onnx.save(tiny_onnx(), tmp_path / "a.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("cli_zoo", "bare_zoo"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def tiny_onnx(scale: float = 1.0, opset: int = 17, batch: str | int = "N") -> onnx.ModelProto:
    random = np.random.default_rng(0)
    first = random.standard_normal((6, 4)).astype(np.float32)
    second = random.standard_normal((3, 6)).astype(np.float32)
    second[1, 2] *= scale
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1"], ["h"], "first", transB=1),
            helper.make_node("Relu", ["h"], ["r"], "act"),
            helper.make_node("Gemm", ["r", "w2"], ["y"], "second", transB=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(first, "w1"), numpy_helper.from_array(second, "w2")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != "__pycache__"}


def refused(folder: Path, *arguments: object) -> str:
    """Run a command that must exit 2 with one line and leave the folder as it was; returns the line."""
    before = files(folder)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""
    assert files(folder) == before
    return result.stderr


def off_by_one_percent(*arguments: Any, **keywords: Any) -> Rescaled:
    done = rescale(*arguments, **keywords)
    name, array = next(iter(done.weights.items()))
    wrong = array.copy()
    wrong.flat[wrong.size // 2] *= 1.01
    return replace(done, weights={**done.weights, name: wrong})


class TestCanonicalize:
    def test_onnx_to_file_with_report(self, folder: Path) -> None:
        result = run("canonicalize", "a.onnx", "-o", "b.onnx", "--json", "r.json")
        assert result.exit_code == 0, result.stderr
        assert "proved" in result.stdout
        report = json.loads(Path("r.json").read_text())
        assert report["dimension"] == 6
        assert report["objective"]["after"] < report["objective"]["before"]
        assert report["solver"]["imbalance"] <= 1e-8
        assert report["solver"]["cycles"] >= 1
        assert {pin["op"] for pin in report["pins"]} == {"network output"}
        assert report["degenerate"] == []
        assert report["verification"]["verdict"] == "proved"
        assert report["verification"]["rmse_ratio"] <= 3
        assert report["seconds"].keys() == {"trace", "solve", "apply", "verify"}
        assert report["output"] == "b.onnx"
        onnx.checker.check_model("b.onnx")
        assert run("check", "a.onnx", "b.onnx").exit_code == 0

    def test_json_on_stdout_has_stdout_to_itself(self, folder: Path) -> None:
        result = run("canonicalize", "a.onnx", "-o", "b.onnx", "--json", "-", "--mode", "exact")
        assert result.exit_code == 0
        assert json.loads(result.stdout)["verification"]["measurement"]["bit_identical"] is True
        assert "dimension" in result.stderr

    def test_solver_options(self, folder: Path) -> None:
        options = ("--method", "newton", "--gap", 1e-13, "--memory", 0.001)
        result = run("canonicalize", "a.onnx", "-o", "b.onnx", "--json", "r.json", *options)
        assert result.exit_code == 0, result.stderr
        assert "(certified)" in result.stdout
        solver = json.loads(Path("r.json").read_text())["solver"]
        assert solver["method"] == "newton"
        assert solver["gap"] <= 1e-13
        largest = run("canonicalize", "a.onnx", "-o", "c.onnx", "--p", "inf", "--mode", "exact")
        assert largest.exit_code == 0, largest.stderr
        assert "largest |w|" in largest.stdout
        assert "cost of exactness" in largest.stdout
        wrong = run("canonicalize", "a.onnx", "-o", "d.onnx", "--method", "magic")
        assert wrong.exit_code == 2
        assert "method must be one of auto" in wrong.stderr

    def test_module_to_safetensors_and_pt2(self, folder: Path) -> None:
        for name in ("m.safetensors", "m.pt2"):
            result = run("canonicalize", "cli_zoo:mlp", "-o", name, "--p", 1)
            assert result.exit_code == 0, result.stderr
            assert "(seed 0)" in result.stdout
        same = run("check", "cli_zoo:mlp", "cli_zoo:mlp", "--weights-b", "m.safetensors", "--json", "-")
        assert same.exit_code == 0, same.stderr
        assert json.loads(same.stdout)["verification"]["verdict"] == "proved"
        assert run("check", "cli_zoo:mlp", "m.pt2").exit_code == 0
        assert run("canonicalize", "m.pt2", "-o", "n.pt2").exit_code == 0

    def test_weights_are_loaded(self, folder: Path) -> None:
        run("canonicalize", "cli_zoo:mlp", "-o", "m.safetensors")
        again = run(
            "canonicalize", "cli_zoo:mlp", "--weights", "m.safetensors", "-o", "n.safetensors", "--json", "-"
        )
        report = json.loads(again.stdout)
        assert report["weights"] == "m.safetensors"
        assert report["objective"]["after"] == pytest.approx(report["objective"]["before"], rel=1e-6)
        compared = ("fingerprint", "cli_zoo:mlp", "--compare", "cli_zoo:mlp", "--json", "-")
        same = run(*compared, "--other-weights", "m.safetensors")
        assert same.exit_code == 0, same.stderr
        assert len(json.loads(same.stdout)["fingerprints"]) == 2
        alone = run("fingerprint", "cli_zoo:mlp", "--other-weights", "m.safetensors")
        assert alone.exit_code == 2
        assert "--compare OTHER" in alone.stderr

    def test_real_inputs_from_a_file(self, folder: Path) -> None:
        np.save("x.npy", np.ones((3, 4), np.float32))
        result = run("canonicalize", "a.onnx", "-o", "b.onnx", "--input", "x.npy", "--json", "-")
        assert json.loads(result.stdout)["verification"]["measurement"]["inputs"] == 5

    def test_keyword_input_with_a_type(self, folder: Path) -> None:
        result = run("canonicalize", "bare_zoo:Keyword", "-o", "k.pt2", "--input", "ids:1x3:int64")
        assert result.exit_code == 0, result.stderr

    def test_force_replaces(self, folder: Path) -> None:
        Path("b.onnx").write_bytes(b"old")
        assert run("canonicalize", "a.onnx", "-o", "b.onnx", "--force").exit_code == 0
        assert Path("b.onnx").read_bytes() != b"old"

    def test_certificate_replaces_nothing_unasked(self, folder: Path) -> None:
        Path("c.safetensors").write_bytes(b"another's weights")
        arguments = ("canonicalize", "a.onnx", "-o", "b.onnx", "--certificate", "c.json")
        refused = run(*arguments)
        assert refused.exit_code == 2
        assert "c.safetensors: exists already" in refused.stderr
        assert not Path("b.onnx").exists()
        assert run(*arguments, "--force").exit_code == 0
        assert run("verify-certificate", "a.onnx", "b.onnx", "c.json").exit_code == 0

    def test_weights_are_as_readable_as_other_files(self, folder: Path) -> None:
        Path("other").touch()
        assert run("canonicalize", "cli_zoo:mlp", "-o", "m.safetensors").exit_code == 0
        assert Path("m.safetensors").stat().st_mode == Path("other").stat().st_mode

    def test_equal_fingerprints_are_said_to_be(self, folder: Path) -> None:
        assert "same" in run("fingerprint", "a.onnx", "--compare", "a.onnx").stdout

    def test_planted_error_exits_1_and_writes_nothing(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("graphnorm.weights.fitting.rescale", off_by_one_percent)
        for model, out in (("a.onnx", "b.onnx"), ("cli_zoo:mlp", "b.safetensors")):
            before = files(folder)
            result = run("canonicalize", model, "-o", out, "--json", "r.json")
            assert result.exit_code == 1, result.output
            assert "not the same function" in result.stderr
            assert files(folder) == before
        unverified = run("canonicalize", "a.onnx", "-o", "b.onnx", "--no-verify")
        assert unverified.exit_code == 0
        assert "not verified" in unverified.stdout
        assert run("check", "a.onnx", "b.onnx").exit_code == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["gone.onnx", "-o", "b.onnx"], "gone.onnx: no such file"),
            (["gone", "-o", "b.onnx"], "no such file, and no name of a model"),
            (["gone.pt", "-o", "b.pt2"], "gone.pt: no such file"),
            (["a.onnx", "-o", "b.pt2"], "onnx models are written to .onnx files"),
            (["cli_zoo:mlp", "-o", "b.onnx"], "torch models are written to .pt2 or .safetensors"),
            (["a.onnx", "-o", "no/such/b.onnx"], "its folder does not exist; create no/such"),
            (["a.onnx", "-o", "a.onnx", "--force"], "is one of the input files"),
            (["cli_zoo:mlp", "-o", "b.safetensors", "--certificate", "b.json"], "is another output"),
            (["a.onnx", "-o", "b.onnx", "--json", "r.json", "--certificate", "r.json"], "is another output"),
            (["a.onnx", "-o", "b.onnx", "--json", "a.onnx"], "name a .json file"),
            (["a.onnx", "-o", "b.onnx", "--json", "no/r.json"], "its folder does not exist"),
            (["a.onnx", "-o", "b.onnx", "--input", "1xx3"], "expected [NAME:]SIZES"),
            (["a.onnx", "-o", "b.onnx", "--input", "0x4"], "every size must be at least 1"),
            (["a.onnx", "-o", "b.onnx", "--input", "1x4:float31"], "unknown type 'float31'"),
            (["a.onnx", "-o", "b.onnx", "--input", "1x4:int64"], "states the type"),
            (["a.onnx", "-o", "b.onnx", "--input", "z:1x4"], "no such input; it takes x"),
            (["a.onnx", "-o", "b.onnx", "--input", "1x7"], "x"),
            (["a.onnx", "-o", "b.onnx", "--input", "gone.npz"], "gone.npz: no such file"),
            (["a.onnx", "-o", "b.onnx", "--input", "gone.npz", "--input", "1x4"], "one file with all"),
            (["a.onnx", "-o", "b.onnx", "--weights", "w.safetensors"], "holds its own weights"),
            (["a.onnx", "-o", "b.onnx", "--train"], "the option is for modules by name"),
            (["a.onnx", "-o", "b.onnx", "--p", "-1"], "p must be a positive number"),
            (["a.onnx", "-o", "b.onnx", "--c", "0"], "c must be a positive number"),
            (["a.onnx", "-o", "b.onnx", "--memory", "nan"], "must be a number of megabytes"),
            (["a.onnx", "-o", "b.onnx", "--memory", "inf"], "must be a number of megabytes"),
            (["a.onnx", "-o", "b.onnx", "--device", "cuda"], "--device"),
            (["cli_zoo:mpl", "-o", "b.pt2"], "did you mean mlp"),
            (["gone_zoo:mlp", "-o", "b.pt2"], "cannot be imported"),
            (["cli_zoo:number", "-o", "b.pt2"], "returned int, expected a torch module"),
            (["cli_zoo:MODELS_", "-o", "b.pt2"], "has no 'MODELS_'"),
            (["cli_zoo:fails", "-o", "b.pt2"], "KeyError: 'no luck'"),
            (["bare_zoo:mlp", "-o", "b.pt2"], "give --input"),
            (["bare_zoo:mlp", "-o", "b.pt2", "--input", "2x5"], "cannot trace Sequential"),
            (["cli_zoo:Branching", "-o", "b.pt2"], "torch.export cannot trace Branching"),
            (["cli_zoo:lost", "-o", "b.pt2"], "'0.weight' holds NaN"),
            (["cli_zoo:mlp", "-o", "b.pt2", "--weights", "w.pt"], "only .safetensors files are read"),
            (["cli_zoo:mlp", "-o", "b.pt2", "--weights", "w.safetensors"], "w.safetensors: no such file"),
        ],
    )
    def test_bad_arguments(self, folder: Path, arguments: list[str], message: str) -> None:
        assert message in refused(folder, "canonicalize", *arguments)

    def test_bad_files(self, folder: Path) -> None:
        Path("cut.onnx").write_bytes(Path("a.onnx").read_bytes()[:100])
        Path("noise.onnx").write_bytes(b"not a model at all")
        Path("empty.onnx").write_bytes(b"")
        Path("m.pt").write_bytes(pickle.dumps({"a": 1}))
        torch.save({"a": torch.ones(1)}, "n.pth")
        Path("cut.pt2").write_bytes(b"PK\x03\x04 cut")
        onnx.save(tiny_onnx(opset=99), "new.onnx")
        bad = tiny_onnx()
        bad.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((6, 4), np.nan, np.float32), "w1"))
        onnx.save(bad, "nan.onnx")
        for name, message in (
            ("cut.onnx", "cut.onnx"),
            ("noise.onnx", "not an ONNX model"),
            ("empty.onnx", "is empty"),
            ("m.pt", "never"),
            ("n.pth", "never"),
            ("cut.pt2", "damaged or truncated"),
            ("new.onnx", "opset 99"),
            ("nan.onnx", "w1"),
        ):
            out = "b.onnx" if name.endswith(".onnx") else "b.pt2"
            for command in (["canonicalize", name, "-o", out], ["inspect", name]):
                assert message in refused(folder, *command), name

    def test_external_data(self, folder: Path) -> None:
        onnx.save(tiny_onnx(), "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0)
        Path("e.data").unlink()
        assert "e.data" in refused(folder, "canonicalize", "e.onnx", "-o", "b.onnx")

    def test_existing_output(self, folder: Path) -> None:
        Path("b.onnx").write_bytes(b"old")
        assert "exists already; give --force" in refused(folder, "canonicalize", "a.onnx", "-o", "b.onnx")
        assert Path("b.onnx").read_bytes() == b"old"

    def test_weights_that_do_not_fit(self, folder: Path) -> None:
        state = {"0.weight": torch.ones(6, 4), "0.bias": torch.ones(6), "9.bias": torch.ones(1)}
        safetensors.torch.save_file(state, "part.safetensors")
        said = refused(folder, "inspect", "cli_zoo:mlp", "--weights", "part.safetensors")
        assert "lacks 2.bias, 2.weight and has unexpected 9.bias" in said
        safetensors.torch.save_file({**state, "0.weight": torch.ones(5, 4)}, "size.safetensors")
        assert "size mismatch for 0.weight" in refused(
            folder, "inspect", "cli_zoo:mlp", "--weights", "size.safetensors"
        )
        Path("bad.safetensors").write_bytes(b"nothing")
        assert "damaged" in refused(folder, "inspect", "cli_zoo:mlp", "--weights", "bad.safetensors")

    def test_arrays_that_are_pickles_are_not_read(self, folder: Path) -> None:
        np.save("o.npy", np.array([{}], dtype=object), allow_pickle=True)
        assert "cannot be read as NumPy arrays" in refused(folder, "inspect", "a.onnx", "--input", "o.npy")

    def test_usage_errors_exit_2(self, folder: Path) -> None:
        for arguments in (["canonicalize", "a.onnx"], ["nothing"], ["canonicalize", "--mode", "best"]):
            assert run(*arguments).exit_code == 2

    def test_defect_is_no_verdict(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> None:
            raise IndexError("off by one")

        monkeypatch.setattr("graphnorm.api.canonicalize.build", broken)
        result = run("canonicalize", "a.onnx", "-o", "b.onnx")
        assert result.exit_code == 3
        assert "defect of graphnorm" in result.stderr


class TestCheck:
    def test_verdicts(self, folder: Path) -> None:
        onnx.save(tiny_onnx(scale=1.01), "c.onnx")
        same = run("check", "a.onnx", "a.onnx", "--json", "-")
        assert (same.exit_code, json.loads(same.stdout)["verification"]["verdict"]) == (0, "identical")
        other = run("check", "a.onnx", "c.onnx", "--json", "r.json")
        assert other.exit_code == 1
        assert json.loads(Path("r.json").read_text())["verification"]["verdict"] == "differs"
        assert "differs" in other.stdout

    def test_other_inputs(self, folder: Path) -> None:
        onnx.save(small_onnx(), "s.onnx")
        assert "takes" in refused(folder, "check", "a.onnx", "s.onnx")


class TestInspect:
    def test_table_and_json(self, folder: Path) -> None:
        result = run("inspect", "a.onnx", "--json", "r.json")
        assert result.exit_code == 0
        assert "6 independent rescalings" in result.stdout
        report = json.loads(Path("r.json").read_text())
        assert report["dimension"] == 6
        assert [layer["name"] for layer in report["layers"]] == ["w1", "w2"]

    def test_why(self, folder: Path) -> None:
        result = run("inspect", "a.onnx", "--why", "w2")
        assert "pinned" in result.stdout
        assert "network output" in result.stdout
        assert "close names: first" in refused(folder, "inspect", "a.onnx", "--why", "frist")


def test_console_script_answers_without_heavy_imports() -> None:
    code = (
        "import sys; from graphnorm.cli import app; from graphnorm.cli.models import inputs, spec;"
        "print([m for m in ('torch', 'onnx', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    done = subprocess.run(
        [sys.executable, "-m", "graphnorm", "--help"], capture_output=True, text=True, check=True
    )
    assert "canonicalize" in done.stdout


def test_demo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import graphnorm.cli.models.demo as models

    whole = models.resnet18c
    monkeypatch.setattr(models, "resnet18c", lambda: whole(width=4))
    result = run("demo", "--out", "shown")
    assert result.exit_code == 0, result.stderr
    names = {"resnet18c.png", "cnn.png", "cnn.onnx", "cnn.canonical.onnx", "report.json"}
    assert files(folder / "shown") == names
    report = json.loads(Path("shown/report.json").read_text())
    for model in ("resnet18c", "cnn"):
        assert report[model]["verification"]["verdict"] == "proved"
        assert report[model]["objective"]["after"] < 1e-2 * report[model]["objective"]["before"]
    assert Path("shown/cnn.png").read_bytes().startswith(b"\x89PNG")
    assert run("check", "shown/cnn.onnx", "shown/cnn.canonical.onnx").exit_code == 0


def test_demo_into_a_file_is_refused(folder: Path) -> None:
    assert "is a file; name a folder" in refused(folder, "demo", "--out", "a.onnx")
