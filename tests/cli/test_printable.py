"""Names of models cannot steer a terminal, break a page or flood a screen, wherever they are shown."""

from __future__ import annotations

import json
import unicodedata
import xml.dom.minidom
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from graphnorm.cli.commands import app
from graphnorm.pictures.page import embedded
from graphnorm.util.printable import printable, shortened

HOSTILE = {
    "colour": "\x1b[31m",
    "title": "\x1b]0;owned\x07",
    "C1": "\x9b2J",
    "delete": "\x7f\x08",
    "bidi": "\u202e\u2066",
    "line separator": "\u2028\u2029",
    "invisible": "\u200b\ufeff",
    "carriage return": "ok\rverdict",
    "markup": "[red]</g>&<script>",
}


def steering(text: str) -> list[str]:
    return [c for c in text if c not in "\n\t" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]


@pytest.fixture(params=HOSTILE)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a.onnx", "b.onnx")):
        onnx.save(network(HOSTILE[request.param], seed), name)
    return tmp_path


def network(mark: str, seed: int = 0) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("MatMul", ["x", f"w{mark}"], [f"h{mark}"], name=f"first{mark}"),
        helper.make_node("Relu", [f"h{mark}"], [f"r{mark}"], name=f"relu{mark}"),
        helper.make_node("MatMul", [f"r{mark}", f"v{mark}"], ["y"], name=f"second{mark}"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    held = [numpy_helper.from_array(rng.normal(size=(4, 4)).astype(np.float32), n + mark) for n in "wv"]
    graph = helper.make_graph(nodes, f"net{mark}", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("inspect a.onnx --all", 0),
        ("inspect a.onnx --why w", 2),
        ("inspect a.onnx --why first", 2),
        ("canonicalize a.onnx -o o.onnx --no-verify", 0),
        ("fingerprint a.onnx --json -", 0),
        ("draw a.onnx -o p.svg", 0),
        ("draw a.onnx -o p.html", 0),
        ("draw a.onnx -o p.dot", 0),
        ("draw a.onnx -o p.png", 0),
        ("check a.onnx b.onnx --seconds 0.1 --html p.html", 1),
    ],
)
def test_nothing_steers_what_it_is_shown_on(folder: Path, command: str, code: int) -> None:
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code in {code, 0}, result.output
    assert not steering(result.stdout + result.stderr)
    for path in folder.glob("p.*"):
        if path.suffix != ".png":
            assert not steering(path.read_text(encoding="utf-8"))
        if path.suffix == ".svg":
            xml.dom.minidom.parse(str(path))


def test_every_character_is_judged() -> None:
    everything = "".join(map(chr, range(0x3000))) + "\ud800\U000e0001中é😀"
    assert not steering(printable(everything))
    shown = "größe\t中文 – ×\n😀"
    assert printable(shown) == shown


def test_long_names_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(network(50_000 * "n"), "a.onnx")
    for command in ("inspect a.onnx --all", "inspect a.onnx --why w"):
        result = CliRunner().invoke(app, command.split())
        assert len(result.output) < 20_000
    assert shortened("a " * 1000) == "a " * 1000


def test_data_of_a_page_are_shown_too() -> None:
    text = embedded({"a\x1b": ["\u202e<", 1, None], "b": ("\x7f",)})
    assert not steering(text)
    assert json.loads(text) == {"a\\x1b": ["\\u202e<", 1, None], "b": ["\\x7f"]}
