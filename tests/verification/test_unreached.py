"""Weights that differ and that no input reached are said: such models are not known to agree."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import nn

import graphnorm
from graphnorm import ir
from graphnorm.errors import RunError
from graphnorm.verification.unreached import of_unreached, unreached


class Gated:
    """x @ w, where a column whose gate is shut is zero; picky about a large first entry."""

    def __init__(self, weights: Mapping[str, ir.Array]) -> None:
        self.weights = weights

    def run(self, inputs: list[ir.Array]) -> list[ir.Array]:
        if self.weights["w"][0, 0] > 3:
            raise RunError("too large")
        return [(inputs[0] @ self.weights["w"]) * (self.weights["gate"] > 0)]


WEIGHTS = {"w": np.ones((2, 3)), "gate": np.array([1.0, 1.0, -9.0])}
INPUTS = [[np.ones((1, 2))], [np.array([[1.0, -2.0]])]]


def found(
    changed: Mapping[str, ir.Array], seconds: float = 60.0, base: Mapping[str, ir.Array] = WEIGHTS
) -> tuple[str, ...]:
    def build(weights: Mapping[str, ir.Array]) -> Gated:
        return Gated({**base, **weights})

    return unreached(build({}), build, base, {**base, **changed}, INPUTS, seconds)  # type: ignore[arg-type]


def test_entries_behind_a_shut_gate_are_named() -> None:
    assert found({"w": np.array([[1, 1, 2], [1, 1, 1]])}) == ("w",)
    assert found({"w": np.array([[1, 2, 2], [1, 1, 1]])}) == (
        "w",
    )  # another entry is reached, this one is not
    assert found({"gate": np.array([1.0, 1.0, -8.0])}) == ("gate",)


def test_entries_that_show_are_not() -> None:
    assert found({"w": np.array([[2, 1, 1], [1, 3, 1]])}) == ()
    assert found({}) == ()


def test_a_move_that_is_refused_shows() -> None:
    base = {**WEIGHTS, "w": np.array([[2.9, 1, 1], [1, 1, 1]])}
    assert found({"w": np.array([[2.8, 1, 1], [1, 1, 1]])}, base=base) == ()


def test_without_time_nothing_is_said() -> None:
    assert found({"gate": np.array([1.0, 1.0, -8.0])}, seconds=0.0) == ()


def test_the_sentence_names_them() -> None:
    assert "no input reached: 'a', 'b';" in of_unreached(["a", "b"])


class Sleeping(nn.Module):
    """One hidden unit never wakes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        with torch.no_grad():
            self.a.bias[3] = -3000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.b(torch.relu(self.a(x)))
        return result


def outgoing(model: Sleeping) -> None:
    model.b.weight[1, 3] += 1


def incoming(model: Sleeping) -> None:
    model.a.weight[3] *= -1


@pytest.mark.parametrize("change", [outgoing, incoming])
def test_check_does_not_agree(change: Callable[[Sleeping], None]) -> None:
    torch.manual_seed(0)
    a = Sleeping()
    b = copy.deepcopy(a)
    with torch.no_grad():
        change(b)
    report = graphnorm.check(a, b, (torch.randn(2, 4),), seconds=4)
    assert report.verdict == "not exercised"
    assert not report.equivalent
    assert "no input reached" in report.remarks[-1]
