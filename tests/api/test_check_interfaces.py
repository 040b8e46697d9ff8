"""Names, order and number of inputs and outputs: what callers of two models would notice."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn

import graphnorm
from graphnorm.api.check_report import CheckReport
from graphnorm.api.interfaces import open_pair
from graphnorm.errors import InputError
from tests.support.onnx_pairs import model, node, normal, value, verdict


def check(a: Any, b: Any, inputs: Any = None) -> CheckReport:
    return graphnorm.check(a, b, inputs, seconds=0.2)


def built(declared: list[str], read: list[str], shapes: dict[str, list[int]] | None = None) -> ModelProto:
    """x W - v, of inputs `declared` in this order; `read` are those that stand for x and v."""
    nodes = [node("MatMul", [read[0], "W"], ["h"]), node("Sub", ["h", read[1]], ["y"])]
    sizes = shapes or {name: [2, 4] for name in declared}
    inputs = [value(name, sizes[name]) for name in declared]
    return model(nodes, inputs, [value("y", [2, 4])], {"W": normal(0, 4, 4)})


def test_names_decide_where_they_agree() -> None:
    a = built(["x", "v"], ["x", "v"])
    report = check(a, built(["v", "x"], ["x", "v"]))
    assert report.verdict == "proved"  # the order of declaration is another one: not identical
    assert any("another order" in remark for remark in report.remarks)
    assert report.to_dict()["remarks"] == list(report.remarks)
    assert verdict(a, built(["v", "x"], ["v", "x"])) == "differs"
    assert verdict(a, built(["x", "v"], ["v", "x"])) == "differs"
    assert verdict(a, built(["x", "v"], ["x", "v"])) == "identical"


def test_positions_decide_where_names_do_not_agree() -> None:
    a = built(["x", "v"], ["x", "v"])
    report = check(a, built(["p", "q"], ["p", "q"]))
    assert report.verdict == "proved"
    assert any("'p' for A's 'x', 'q' for A's 'v'" in remark for remark in report.remarks)
    assert verdict(a, built(["q", "p"], ["p", "q"])) == "differs"


def test_examples_go_by_the_names_of_the_first() -> None:
    sizes = {"x": [2, 4], "v": [4]}
    a, b = built(["x", "v"], ["x", "v"], sizes), built(["v", "x"], ["x", "v"], sizes)
    given = (normal(1, 2, 4), normal(2, 4))
    for example in (given, dict(zip(["x", "v"], given, strict=True)), None):
        assert check(a, b, example).verdict == "proved"
    pair = open_pair(a, b, given)
    assert pair.second.example is not None
    assert [array.shape for array in pair.second.example] == [(2, 4), (4,)]


def several(names: list[str], declared: list[str]) -> ModelProto:
    nodes = [node(op, ["x"], [name]) for op, name in zip(["Relu", "Neg", "Exp"], names, strict=True)]
    return model(nodes, [value("x", [3])], [value(name, [3]) for name in declared])


def test_outputs_go_by_name() -> None:
    a = several(["p", "q", "r"], ["p", "q", "r"])
    report = check(a, several(["p", "q", "r"], ["r", "p", "q"]))
    assert report.verdict == "proved"
    assert any("outputs in another order" in remark for remark in report.remarks)
    assert verdict(a, several(["q", "r", "p"], ["q", "r", "p"])) == "differs"
    renamed = check(a, several(["1", "2", "3"], ["1", "2", "3"]))
    assert renamed.verdict == "proved"
    assert any("'3' for A's 'r'" in remark for remark in renamed.remarks)


@pytest.mark.parametrize("more", [["mask"], ["mask", "state"]])
@pytest.mark.parametrize("first", [False, True], ids=["last", "first"])
def test_an_input_that_nobody_uses_is_said(more: list[str], first: bool) -> None:
    a = built(["x", "v"], ["x", "v"])
    b = built([*more, "x", "v"] if first else ["x", "v", *more], ["x", "v"])
    for pair, who in (((a, b), "B"), ((b, a), "A")):
        for example in (None, (normal(0, 2, 4),) * len(pair[0].graph.input)):
            report = check(*pair, example)
            assert report.verdict == "proved"
            assert any(f"only {who} takes the input 'mask'" in remark for remark in report.remarks)


def test_a_name_that_the_other_model_has_for_something_else() -> None:
    a, b = built(["x", "v"], ["x", "v"]), built(["x", "v", "h"], ["x", "v"])
    b.graph.node[0].output[0] = b.graph.node[1].input[0] = "inner"
    assert verdict(a, b) == "proved"
    assert verdict(b, a) == "proved"


def test_an_input_that_is_used_and_missing_is_refused() -> None:
    a = built(["x", "v"], ["x", "v"])
    nodes = [node("MatMul", ["x", "W"], ["y"])]
    b = model(nodes, [value("x", [2, 4])], [value("y", [2, 4])], {"W": normal(0, 4, 4)})
    with pytest.raises(InputError, match=r"A takes 2 inputs \(x, v\), B takes 1 inputs \(x\)"):
        check(a, b)


def test_a_weight_that_callers_may_override_is_said() -> None:
    a, b = built(["x", "v"], ["x", "v"]), built(["x", "v"], ["x", "v"])
    a.graph.input.append(value("W", [4, 4]))
    report = check(a, b)
    assert report.verdict == "proved"
    assert any("callers of A, not of B, may give other values for 'W'" in remark for remark in report.remarks)
    assert verdict(a, a) == "identical"
    a.ir_version = 3  # there, all initializers had to be inputs
    assert not check(a, b).remarks


class Minus(nn.Module):
    """Two inputs that do not commute."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        return self.w(x) - v


@pytest.mark.parametrize("declared", [["x", "v"], ["v", "x"]])
@pytest.mark.parametrize("torch_first", [True, False])
def test_a_signature_goes_by_name_too(declared: list[str], torch_first: bool) -> None:
    torch.manual_seed(0)
    module = Minus().eval()
    right, wrong = built(declared, ["x", "v"]), built(declared, ["v", "x"])
    for file in (right, wrong):
        held = onnx.numpy_helper.from_array(module.w.weight.detach().numpy().T.copy(), "W")
        file.graph.initializer[0].CopyFrom(held)
    given = (torch.randn(2, 4), torch.randn(2, 4))
    for file, expected in ((right, "proved"), (wrong, "differs")):
        a, b = (module, file) if torch_first else (file, module)
        assert check(a, b, given).verdict == expected


class Padded(nn.Module):
    """The same with an input that does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Minus()

    def forward(self, x: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return self.inner.w(x) - v


def test_programs_that_leave_an_input_unused() -> None:
    torch.manual_seed(0)
    padded = Padded().eval()
    program = torch.export.export(padded, (torch.randn(2, 4), torch.randn(2, 4), torch.ones(2)), strict=False)
    file = built(["mask", "x", "v"], ["x", "v"], {"mask": [2], "x": [2, 4], "v": [2, 4]})
    held = onnx.numpy_helper.from_array(padded.inner.w.weight.detach().numpy().T.copy(), "W")
    file.graph.initializer[0].CopyFrom(held)
    assert check(program, file).verdict == "proved"
    del file.graph.input[0]
    report = check(program, file)
    assert report.verdict == "proved"
    assert any("only A takes the input 'mask'" in remark for remark in report.remarks)


class Named(nn.Module):
    """Results by key, in this order; each `parts` entry is a function of the hidden value."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.Linear(4, 4)
        self.parts = parts

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.w(x)
        return {name: part(h) for name, part in self.parts.items()}


@pytest.mark.parametrize("program", [False, True])
def test_results_of_modules_go_by_key(program: bool) -> None:
    x = torch.randn(2, 4)
    positive, negative = torch.relu, torch.neg

    def made(**parts: Any) -> Any:
        module = Named(**parts).eval()
        return torch.export.export(module, (x,), strict=False) if program else module

    a = made(a=positive, b=negative)
    assert check(a, made(a=positive, b=negative), x).verdict == "identical"
    swapped = check(a, made(b=negative, a=positive), x)
    assert swapped.verdict == "proved"
    assert any("matched by key" in remark for remark in swapped.remarks)
    assert check(a, made(b=positive, a=negative), x).verdict == "differs"
    assert check(a, made(a=negative, b=positive), x).verdict == "differs"
    renamed = check(a, made(a=positive, c=negative), x)
    assert renamed.verdict == "proved"
    assert any("matched by position" in remark for remark in renamed.remarks)


def test_a_difference_behind_another_order_of_keys_is_found_by_the_search() -> None:
    """Gradients and nearby models take the results in the same order, too."""
    a, b = (
        Named(a=torch.tanh, b=torch.relu).eval(),
        Named(b=torch.relu, a=lambda h: torch.tanh(h * 1.01)).eval(),
    )
    assert check(a, b, torch.randn(2, 4)).verdict == "differs"
    a, b = Named(a=torch.tanh, b=torch.relu).eval(), Named(b=lambda h: h.clamp(min=0), a=torch.tanh).eval()
    with torch.no_grad():
        b.w.weight.copy_(a.w.weight)
    assert check(a, b, torch.randn(2, 4)).verdict == "proved"
