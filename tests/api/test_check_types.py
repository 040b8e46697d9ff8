"""Types, shapes and numbers of tensors: what counts as the same, and what never does."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto
from torch import Tensor, nn

import graphnorm
from graphnorm.alignment.matching import match
from graphnorm.api.verdicts import CERTAIN
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.proof.pairing import pair_normal
from tests.support.onnx_pairs import model, node, value, verdict

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def rows(kind: Any, op: str, other: int | None, spelled: bool = False) -> ModelProto:
    """Rows of an integer table in integer arithmetic, as floats; `spelled` in other words."""
    start = [node("Identity", ["ids"], ["at"])] if spelled else []
    operands = ["g", "g" if other is None else "k"]
    nodes = [
        *start,
        node("Gather", ["T", "at" if spelled else "ids"], ["g"]),
        node(op, operands, ["m"]),
        node("Cast", ["m"], ["y"], to=FLOAT),
    ]
    held = {"T": np.array([3, 5, 7, 90], kind)} | ({} if other is None else {"k": np.array(other, kind)})
    return model(nodes, [value("ids", [4], INT64)], [value("y", [4])], held)


@pytest.mark.parametrize("spelled", [False, True], ids=["as written", "normal form"])
@pytest.mark.parametrize(
    ("kinds", "op", "other"),
    [
        ((np.int64, np.int16), "Mul", 90),
        ((np.int32, np.uint8), "Mul", None),
        ((np.int32, np.uint32), "Sub", 8),
        ((np.int64, np.int8), "Add", 100),
        ((np.int64, np.int32), "Pow", 5),
    ],
)
def test_integers_of_another_width_are_another_arithmetic(
    kinds: tuple[Any, Any], op: str, other: int | None, spelled: bool
) -> None:
    a, b = rows(kinds[0], op, other), rows(kinds[1], op, other, spelled)
    pair, found = pair_normal(read_onnx(a), read_onnx(b))
    assert pair is None
    assert found.failure
    assert match(read_onnx(a), read_onnx(b)).failure


def test_the_same_type_in_other_words_is_proved() -> None:
    a, b = rows(np.int32, "Mul", 7), rows(np.int32, "Mul", 7, spelled=True)
    assert verdict(a, b, (np.arange(4),)) == "proved"


@pytest.mark.parametrize("op", ["Gather", "GatherElements"])
def test_an_index_may_be_stored_in_another_type(op: str) -> None:
    def built(kind: Any, spelled: bool) -> ModelProto:
        index = np.array([[2, 0, 1]], kind)
        nodes = [node("Relu", ["x"], ["h"]), node(op, ["h", "i"], ["s" if spelled else "y"], axis=1)]
        nodes += [node("Identity", ["s"], ["y"])] if spelled else []
        return model(nodes, [value("x", [1, 3])], [value("y", None)], {"i": index})

    assert verdict(built(np.int64, False), built(np.int32, True)) == "proved"
    wrong = built(np.int32, True)
    wrong.graph.initializer[0].int32_data[:] = []
    wrong.graph.initializer[0].raw_data = np.array([[2, 1, 1]], np.int32).tobytes()
    assert verdict(built(np.int64, False), wrong) == "differs"


def test_outputs_of_another_type_differ() -> None:
    def built(kind: int) -> ModelProto:
        nodes = [node("Relu", ["x"], ["h"]), node("Cast", ["h"], ["y"], to=kind)]
        return model(nodes, [value("x", [4])], [value("y", [4], kind)])

    assert verdict(built(FLOAT), built(TensorProto.DOUBLE)) == "differs"
    found = match(read_onnx(built(FLOAT)), read_onnx(built(TensorProto.DOUBLE)))
    assert "output 'y' is float32 in A and float64 in B" in found.failure


class Net(nn.Module):
    """A hidden layer whose results are returned in several ways."""

    def __init__(self, classes: int = 3, form: str = "one") -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 6), nn.LayerNorm(6)
        self.last, self.form = nn.Linear(6, classes), form

    def forward(self, x: Tensor) -> Any:
        hidden = self.norm(self.first(x)).tanh()
        y = self.last(hidden)
        return {"one": y, "two": (y, hidden), "named": {"y": y, "z": x}, "deeper": y[None]}[self.form]


def nets(**other: Any) -> tuple[Net, Net, tuple[Tensor]]:
    torch.manual_seed(0)
    a, b = Net().eval(), Net(**other).eval()
    return a, b, (torch.randn(2, 4),)


@pytest.mark.parametrize("other", [{"form": "two"}, {"form": "named"}, {"form": "deeper"}, {"classes": 4}])
def test_other_outputs_differ(other: dict[str, Any]) -> None:
    a, b, inputs = nets(**other)
    state = {name: t for name, t in a.state_dict().items() if t.shape == b.state_dict()[name].shape}
    b.load_state_dict(state, strict=False)
    assert graphnorm.check(a, b, inputs, seconds=0.2).verdict == "differs"
    assert graphnorm.check(b, a, inputs, seconds=0.2).verdict == "differs"


@pytest.mark.parametrize(
    "zeros", [["first.bias"], ["norm.bias", "last.bias"], ["norm.weight"], ["last.weight"]]
)
@pytest.mark.parametrize("swapped", [False, True])
def test_a_tensor_that_is_zero_in_one_model_only(zeros: list[str], swapped: bool) -> None:
    a, _, inputs = nets()
    b = copy.deepcopy(a)
    with torch.no_grad():
        for name in zeros:
            a.get_parameter(name).zero_()
        for parameter in b.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    pair = (b, a) if swapped else (a, b)
    assert graphnorm.check(*pair, inputs, seconds=0.2).verdict == "differs"


def test_zeros_on_both_sides_are_no_hindrance() -> None:
    a, _, inputs = nets()
    a.norm = nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        a.first.bias.zero_()
    b = copy.deepcopy(a)
    order = torch.tensor([2, 0, 1, 5, 4, 3])
    with torch.no_grad():
        b.first.weight.copy_(a.first.weight[order])
        b.last.weight.copy_(a.last.weight[:, order])
    report = graphnorm.check(a, b, inputs, seconds=0.2)
    assert report.verdict in CERTAIN
    assert report.permuted == 1
