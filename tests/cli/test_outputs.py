"""No output of a command may be a file that the run reads, or another output."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import graphnorm
from graphnorm.cli.commands import app
from graphnorm.cli.outputs import (
    Output,
    certificate_output,
    check_outputs,
    file_output,
    json_output,
    model_output,
    picture_output,
)
from graphnorm.errors import InputError


def network(seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    held = [numpy_helper.from_array(rng.normal(size=(4, 4)).astype(np.float32), name) for name in "wv"]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``SUFFIX.onnx`` keeps its weights in ``data.SUFFIX``."""
    monkeypatch.chdir(tmp_path)
    for suffix in ("json", "npz", "html", "svg", "png", "dot", "safetensors"):
        onnx.save_model(
            network(0), f"{suffix}.onnx", save_as_external_data=True, location=f"data.{suffix}",
            size_threshold=0,
        )  # fmt: skip
    onnx.save_model(
        network(0), "own.onnx", save_as_external_data=True, location="out.onnx.data", size_threshold=0
    )
    onnx.save(network(0), "a.onnx")
    onnx.save(network(1), "b.onnx")
    np.savez("in.npz", x=np.ones((1, 4), np.float32))
    (tmp_path / "zoo_of_outputs.py").write_text(
        "import torch\nexample_inputs = torch.ones(1, 4)\n"
        "def net():\n    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    state = {"0.weight": torch.ones(4, 4), "0.bias": torch.ones(4)}
    safetensors.torch.save_file(state, "w.safetensors")
    return tmp_path


def listing(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


REPLACING = [
    "inspect json.onnx --json data.json",
    "fingerprint json.onnx --json data.json",
    "fingerprint a.onnx --compare json.onnx --json data.json",
    "draw svg.onnx -o data.svg",
    "draw png.onnx -o data.png",
    "draw html.onnx -o data.html",
    "draw dot.onnx -o data.dot",
    "draw json.onnx -o new.svg --json data.json",
    "check json.onnx a.onnx --json data.json",
    "check a.onnx json.onnx --json data.json",
    "check a.onnx html.onnx --html data.html",
    "check npz.onnx b.onnx --counterexample data.npz",
    "check a.onnx b.onnx --input in.npz --counterexample in.npz",
    "canonicalize json.onnx -o new.onnx --json data.json",
    "canonicalize safetensors.onnx -o new.onnx --certificate data.json",
    "canonicalize own.onnx -o out.onnx",
    "canonicalize a.onnx -o a.onnx",
    "canonicalize zoo_of_outputs:net -o w.safetensors --weights w.safetensors",
    "canonicalize zoo_of_outputs:net -o new.pt2 --weights w.safetensors --certificate w.json",
    "verify-certificate a.onnx b.onnx c.json --json c.json",
]


@pytest.mark.parametrize("force", [False, True], ids=["", "force"])
@pytest.mark.parametrize("command", REPLACING)
def test_nothing_that_is_read_is_replaced(folder: Path, command: str, force: bool) -> None:
    before = listing(folder)
    takes_force = command.startswith(("canonicalize", "draw"))
    result = CliRunner().invoke(app, command.split() + ["--force"] * (force and takes_force))
    assert listing(folder) == before
    assert result.exit_code == 2, result.output
    assert "is one of the input files, which are never changed" in result.stderr


@pytest.mark.parametrize("alias", ["link", "hard link", "detour", "linked folder", "absolute"])
def test_under_another_name_it_is_the_same_file(folder: Path, alias: str) -> None:
    (folder / "sub").mkdir()
    (folder / "here").symlink_to(".")
    if alias == "link":
        (folder / "alias.json").symlink_to("data.json")
    elif alias == "hard link":
        os.link("data.json", "alias.json")
    name = {
        "detour": "sub/../data.json",
        "linked folder": "here/data.json",
        "absolute": str(folder / "data.json"),
    }.get(alias, "alias.json")
    before = listing(folder)
    result = CliRunner().invoke(app, ["inspect", "json.onnx", "--json", name])
    assert result.exit_code == 2, result.output
    assert listing(folder) == before


def test_outputs_are_different_files(tmp_path: Path) -> None:
    model, json = model_output(tmp_path / "a.onnx", "onnx", True), json_output(str(tmp_path / "r.json"))
    certificate = certificate_output(tmp_path / "r.json", True)
    with pytest.raises(InputError, match=r"--certificate .*r\.json: is another output \(--json\)"):
        check_outputs([model, json, certificate], [])
    tensors = model_output(tmp_path / "r.safetensors", "torch", True)
    with pytest.raises(InputError, match=r"r\.safetensors, which is written too, is another output"):
        check_outputs([tensors, None, certificate], [])
    (tmp_path / "sub").mkdir()
    detour = json_output(str(tmp_path / "sub" / ".." / "r.json"))
    with pytest.raises(InputError, match="is another output"):
        check_outputs([json, detour], [])
    check_outputs([model, json, file_output("--html", tmp_path / "r.html", ".html")], [])


def test_existing_files_are_replaced_only_when_told(tmp_path: Path) -> None:
    for name in ("a.onnx", "a.svg", "c.safetensors", "r.json"):
        (tmp_path / name).touch()
    for force in (False, True):
        outputs: list[Output | None] = [
            model_output(tmp_path / "a.onnx", "onnx", force),
            picture_output(tmp_path / "a.svg", force),
            certificate_output(tmp_path / "c.json", force),
        ]
        for output in outputs:
            if force:
                check_outputs([output], [])
            else:
                with pytest.raises(InputError, match="exists already; give --force to overwrite it"):
                    check_outputs([output], [])
    check_outputs([json_output(str(tmp_path / "r.json"))], [])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: model_output(p / "a.pt2", "onnx", True), "onnx models are written to .onnx files"),
        (lambda p: model_output(p / "no" / "a.onnx", "onnx", True), "its folder does not exist; create"),
        (lambda p: json_output(str(p / "a.txt")), "name a .json file, or - for standard output"),
        (lambda p: file_output("--html", p / "a.txt", ".html"), "--html .*: name a .html file"),
        (lambda p: certificate_output(p / "a.txt", True), "--certificate .*: name a .json file"),
        (lambda p: json_output(str(p / "folder.json")), "is a folder; name a file in it"),
        (lambda p: json_output(str(p / "pipe.json")), "is a pipe or a device; name a file"),
    ],
)
def test_places_that_cannot_be_written_to(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(InputError, match=message):
        make(tmp_path)


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(InputError, match="its folder cannot be written to"):
        json_output(str(tmp_path / "r.json"))


def test_version_and_exit_codes_are_printed(folder: Path) -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == graphnorm.__version__
    assert "3 a defect" in " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
    CliRunner().invoke(app, ["canonicalize", "a.onnx", "-o", "o.onnx", "--no-verify", "--json", "r.json"])
    report = json.loads(Path("r.json").read_text())
    assert (report["file"], report["version"]) == ("a.onnx", graphnorm.__version__)


def test_inputs_are_read_from_files(folder: Path) -> None:
    os.mkfifo("pipe.npy")
    result = CliRunner().invoke(app, ["canonicalize", "a.onnx", "-o", "o.onnx", "--input", "pipe.npy"])
    assert result.exit_code == 2
    assert "pipe.npy: is not a file" in result.stderr
