"""Open sizes: what is computed from them must be computed alike, and other sizes are tried."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from typer.testing import CliRunner

import graphnorm
from graphnorm.api.check_report import CheckReport
from graphnorm.api.resizing import repeated
from graphnorm.api.verdicts import CERTAIN, Verdict
from graphnorm.cli.commands import app
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.proof.pairing import pair_weights
from tests.support.onnx_pairs import model, node, normal, value, verdict

TRACED = 16
LENGTH = node("Shape", ["x"], ["n"], start=1, end=2)


def check(a: Any, b: Any, inputs: Any = None, **options: Any) -> CheckReport:
    return graphnorm.check(a, b, inputs, seconds=0.2, **options)


def sequence(nodes: Sequence[NodeProto], held: dict[str, Any], output: Sequence[Any] | None) -> ModelProto:
    return model(
        nodes, [value("x", [1, "length", 4])], [value("y", output)], {"one": [1], "zero": [0]} | held
    )


def tail(name: str) -> tuple[list[NodeProto], dict[str, Any]]:
    """Nodes that read the length n."""
    if name == "causal mask":
        nodes = [
            node("Concat", ["n", "n"], ["s"], axis=0),
            node("ConstantOfShape", ["s"], ["f"], value=onnx.numpy_helper.from_array(np.ones(1, np.float32))),
            node("Trilu", ["f"], ["t"], upper=0),
            node("MatMul", ["t", "x"], ["y"]),
        ]
        return nodes, {}
    if name == "positions":
        scalar = [node("Squeeze", ["n"], ["m"]), node("Range", ["begin", "m", "step"], ["r"])]
        nodes = [*scalar, node("Gather", ["P", "r"], ["p"]), node("Add", ["x", "p"], ["y"])]
        return nodes, {"begin": 0, "step": 1, "P": normal(1, 64, 4)}
    if name == "repeated":
        nodes = [node("Concat", ["one", "n", "one"], ["s"], axis=0), node("Tile", ["row", "s"], ["t"])]
        return [*nodes, node("Concat", ["x", "t"], ["y"], axis=1)], {"row": normal(2, 1, 1, 4)}
    if name == "halves":
        nodes = [node("Div", ["n", "two"], ["h"]), node("Slice", ["x", "h", "n", "one"], ["y"])]
        return nodes, {"two": [2]}
    nodes = [node("Sub", ["n", "one"], ["e"]), node("Concat", ["zero", "one"], ["both"], axis=0)]
    nodes += [node("Concat", ["e", "one"], ["pads"], axis=0)] if name == "padded" else []
    return [*nodes, node("Gather", ["x", "e"], ["y"], axis=1)], {}


TAILS = ["causal mask", "positions", "repeated", "halves", "last"]


@pytest.mark.parametrize("name", TAILS)
def test_a_size_that_one_model_holds_is_found(name: str) -> None:
    nodes, held = tail(name)
    a = sequence([LENGTH, *nodes], held, None)
    b = sequence(nodes, {**held, "n": [TRACED]}, None)
    report = check(a, b)
    assert report.verdict == "differs"
    assert "x 1x" in report.verification.failure
    assert verdict(a, a) == "identical"
    assert pair_weights(read_onnx(a), read_onnx(b))[0] is None  # certificates rest on this


def hidden(index: Sequence[NodeProto], held: dict[str, Any], gain: float = 1.0, spelled: bool = False) -> Any:
    """x -> Relu(x A) -> the entries at i -> B; rescaled by `gain`, and `spelled` in other words."""
    nodes = [
        node("MatMul", ["x", "A"], ["h0"]),
        node("Relu", ["h0"], ["h"]),
        *index,
        *([node("Identity", ["h"], ["h1"])] if spelled else []),
        node("Gather", ["h1" if spelled else "h", "i"], ["g"], axis=1),
        node("MatMul", ["g", "B"], ["y"]),
    ]
    weights = {"A": normal(3, 4, 4) * np.float32(gain), "B": normal(4, 4, 4) / np.float32(gain)}
    return sequence(nodes, held | weights, None)


SIZES = node("Shape", ["x"], ["s"])
PICK = node("Gather", ["s", "one"], ["n"])
LAST = [LENGTH, node("Sub", ["n", "one"], ["i"])]
LAST_BY_ADDING = [SIZES, PICK, node("Add", ["n", "less"], ["i"])]
CAPPED = [*LAST, node("Min", ["i", "cap"], ["j"])]


def test_sums_and_products_that_agree_at_several_sizes_are_proved() -> None:
    a, b = hidden(LAST, {}), hidden(LAST_BY_ADDING, {"less": [-1]}, gain=4.0, spelled=True)
    report = check(a, b)
    assert report.verdict == "proved"
    assert [dict(each)["x"][1] for each in report.sizes] == [16, 33, 17]
    assert report.structure is not None
    assert not report.structure.sized


def test_what_might_part_them_at_another_size_is_proved_at_these_sizes() -> None:
    capped = [LENGTH, node("Sub", ["n", "one"], ["j"]), node("Min", ["j", "cap"], ["i"])]
    a, b = hidden(LAST, {}), hidden(capped, {"cap": [500]}, gain=2.0)
    report = check(a, b)
    assert report.verdict == Verdict.SIZED
    assert not report.certain
    assert report.equivalent
    assert any("x 1x16x4" in remark and "Min" in remark for remark in report.remarks)
    assert report.to_dict()["sizes"][0] == {"x": [1, 16, 4]}
    assert verdict(b, hidden(capped, {"cap": [500]}, gain=8.0)) == "proved"  # the same computation
    assert verdict(a, hidden(capped, {"cap": [20]}, gain=2.0)) == "differs"


def test_a_proof_at_fixed_sizes_is_asked_for(tmp_path: Path) -> None:
    capped = [LENGTH, node("Sub", ["n", "one"], ["j"]), node("Min", ["j", "cap"], ["i"])]
    onnx.save(hidden(LAST, {}), tmp_path / "a.onnx")
    onnx.save(hidden(capped, {"cap": [500]}), tmp_path / "b.onnx")
    command = ["check", str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), "--seconds", "0.2"]
    command += ["--json", str(tmp_path / "r.json")]
    for more, code in (([], 0), (["--require-proof"], 1), (["--require-proof", "--fixed-sizes"], 0)):
        assert CliRunner().invoke(app, [*command, *more]).exit_code == code
    assert json.loads((tmp_path / "r.json").read_text())["verification"]["verdict"] == Verdict.SIZED


def windows(shape: list[Any], **attributes: Any) -> ModelProto:
    nodes = [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[3, 3], **attributes)]
    return model(nodes, [value("x", [1, 2, *shape])], [value("y", None)])


def test_padding_that_fits_the_traced_size_only() -> None:
    kept = {"auto_pad": "SAME_UPPER"}
    pads = {"pads": [0, 0, 1, 1]}  # of 224 and 2 more: 75 windows
    assert verdict(windows(["h", "w"], **kept), windows(["h", "w"], **pads)) == "differs"
    assert verdict(windows([224, 224], **kept), windows([224, 224], **pads)) == "proved"
    assert verdict(windows(["h", "w"], **kept), windows(["h", "w"], **kept)) == "identical"


@pytest.mark.parametrize("target", [[1, -1], [1, 8]])
def test_a_model_that_does_not_run_at_a_size_it_leaves_open(target: list[int]) -> None:
    def flat(shape: list[int]) -> ModelProto:
        return model(
            [node("Reshape", ["x", "s"], ["y"])], [value("x", ["n", 8])], [value("y", None)], {"s": shape}
        )

    a, b = flat([-1, 8]), flat(target)
    report = check(a, b)
    assert report.verdict == "differs"
    assert report.counterexample is not None
    assert verdict(a, flat([0, -1])) == "proved"
    assert verdict(b, b) == "identical"


def test_a_size_that_one_model_fixes() -> None:
    def relu(size: Any) -> ModelProto:
        return model([node("Relu", ["x"], ["y"])], [value("x", [size, 6])], [value("y", None)])

    for a, b in ((relu("n"), relu(5)), (relu(5), relu("n"))):
        report = check(a, b)
        assert report.verdict == Verdict.SIZED
        assert any("open" in remark and "takes 5 only" in remark for remark in report.remarks)
    assert verdict(relu("n"), relu("batch")) == "identical"


def test_images_of_other_sizes_are_not_larger() -> None:
    """All that is computed from them has to be held at once."""
    net = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> net (float[N, 3, H, W] x) => (float[N, 3, H, W] y)'
        " { a = Abs(x) y = Relu(a) }"
    )
    other = onnx.parser.parse_model(onnx.printer.to_text(net).replace("Relu (a)", "Max (a, a)"))
    first, *others = graphnorm.check(net, other, seconds=0.5).sizes
    assert others
    assert all(np.prod(sizes["x"]) <= np.prod(first["x"]) * 3 for sizes in others)


def test_sizes_that_must_be_the_same() -> None:
    def summed(sizes: tuple[str, str], op: str) -> ModelProto:
        inputs = [value(name, [size, 4]) for name, size in zip("xz", sizes, strict=True)]
        return model([node(op, ["x", "z"], ["h"]), node("Relu", ["h"], ["y"])], inputs, [value("y", None)])

    one, two = ("n", "n"), ("n", "m")  # the second says that they may differ, and they may not
    report = check(summed(one, "Add"), summed(two, "Add"))
    assert report.verdict in CERTAIN
    assert verdict(summed(two, "Add"), summed(two, "Sub")) == "differs"


def test_examples_of_another_size_repeat_their_entries() -> None:
    array = np.arange(6).reshape(2, 3)
    assert repeated(array, (3, 2)).tolist() == [[0, 1], [3, 4], [0, 1]]
    assert repeated(np.array(3.0), ()).tolist() == 3.0


class Last(nn.Module):
    """The last entry of a sequence, or the one at a fixed place."""

    def __init__(self, place: int | None = None) -> None:
        super().__init__()
        self.a, self.b, self.place = nn.Linear(4, 6), nn.Linear(6, 3), place

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.a(x).relu()
        return self.b(hidden[:, x.shape[1] - 1 if self.place is None else self.place])


def lasts(*places: int | None) -> list[Last]:
    torch.manual_seed(0)
    found = [Last(place).eval() for place in places]
    for module in found:
        module.load_state_dict(found[0].state_dict())
    return found


def program(module: nn.Module, form: Callable[[Dim], Any] | None = None) -> ExportedProgram:
    length = Dim("length", min=8, max=64)
    return torch.export.export(module, (torch.randn(2, 8, 4),), dynamic_shapes=({1: length},), strict=False)


def test_programs_with_open_sizes() -> None:
    right, wrong = lasts(None, 7)
    a, b = program(right), program(wrong)
    assert check(a, program(right)).verdict == "identical"
    report = check(a, b)
    assert report.verdict == "differs"
    assert "x 2x17x4" in report.verification.failure
    given = (torch.randn(2, 8, 4),)
    assert check(a, wrong, given).verdict == "differs"
    assert check(wrong, a, given).verdict == "differs"
    assert (
        check(right, wrong, given).verdict in CERTAIN
    )  # a module is traced at one size, which is the question


def test_expressions_of_programs_decide() -> None:
    class Cut(nn.Module):
        def __init__(self, spelled: bool) -> None:
            super().__init__()
            self.spelled = spelled

        def forward(self, x: Tensor) -> Tensor:
            n = x.shape[1]
            return (
                x.reshape(2, 2 * n if self.spelled else n * 2, 2).tanh() * torch.arange(2 * n)[None, :, None]
            )

    a, b = program(Cut(False)), program(Cut(True))
    assert check(a, b).verdict == "identical"  # the same polynomial


def test_a_file_against_the_module_that_it_came_from(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    x = torch.randn(1, 4)
    path = tmp_path / "m.onnx"
    torch.onnx.export(module, (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    assert check(module, str(path), (x,)).verdict == "proved"
    assert check(str(path), module, (x,)).verdict == "proved"


def test_integers_of_loops_stay_open() -> None:
    ids = [value("x", ["n"], TensorProto.INT64)]
    nodes = [node("Gather", ["W", "x"], ["y"])]
    a = model(nodes, ids, [value("y", None)], {"W": normal(6, 9, 4)})
    report = check(a, a, (np.array([1, 8, 3]),))
    assert report.verdict == "identical"
