"""The normal form of a network around every operator computes what the network computes; planted errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphnorm.alignment import arithmetic, elementwise, layers, leaves, movement
from graphnorm.alignment.lowering import LOWERINGS
from graphnorm.alignment.terms import Term
from tests.support.planting import plant, uproot
from tests.support.validating import quiet
from tools.validation.families import GENERATORS
from tools.validation.judge import Verdict
from tools.validation.normal_form import differs, main, validate

Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def numbers() -> Iterator[None]:
    with quiet():
        yield


def found(operators: Sequence[str], count: int, seed: int = 0) -> list[Verdict]:
    verdicts = [validate(op, seed, index) for op in operators for index in range(count)]
    return [verdict for verdict in verdicts if verdict.is_finding]


@pytest.mark.parametrize("op", sorted(GENERATORS))
def test_normal_forms_compute_what_networks_compute(op: str) -> None:
    findings = found([op], 6)
    assert not findings, "\n".join(verdict.text for verdict in findings)


def replaced(module: object, name: str, wrong: Callable[..., Any]) -> Plant:
    """Plant `wrong(right, ...)` in place of a function."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = getattr(module, name)
        patch.setattr(module, name, lambda *given, **named: wrong(right, *given, **named))

    return plant


def attribute(name: str, value: Callable[[Any], Any]) -> Callable[..., Any]:
    """A lowering that reads another attribute than the node's."""

    def wrong(right: Any, b: Any, node: Any, operands: Any, results: Any) -> Any:
        changed = {**node.attributes, name: value(node.attributes.get(name))}
        return right(b, replace(node, attributes=changed), operands, results)

    return wrong


def lowering(op: str, wrong: Callable[..., Any]) -> Plant:
    def planted(patch: pytest.MonkeyPatch) -> None:
        right = LOWERINGS[op]
        plant(
            patch, LOWERINGS, op, lambda b, node, operands, results: wrong(right, b, node, operands, results)
        )

    return planted


def cubic(right: Any, term: Term, factor: float) -> Any:
    """A wrong constant in the polynomial of GELU's tanh."""
    return right(term, 0.04472 if factor == 0.044715 else factor)


def first_operand(right: Any, b: Any, node: Any, operands: Any, results: Any) -> Any:
    return right(b, node, [operands[0], *operands[:1], *operands[2:]], results)


PLANTED: dict[str, tuple[str, Plant]] = {
    "a constant of tanh GELU": ("Gelu", replaced(elementwise, "scale", cubic)),
    "Swish without alpha": ("Swish", lowering("Swish", attribute("alpha", lambda value: 1.0))),
    "slope of HardSigmoid": ("HardSigmoid", lowering("HardSigmoid", attribute("alpha", lambda value: 0.2))),
    "HardSwish's third": ("HardSwish", replaced(elementwise, "_hard_sigmoid",
                          lambda right, b, x, slope, shift: right(b, x, 1 / 6, 0.49))),
    "beta of Gemm": ("Gemm", lowering("Gemm", attribute("beta", lambda value: 0.5))),
    "Sub as Add": ("Sub", replaced(elementwise, "scale", lambda right, term, factor: term)),
    "Mean as Sum": ("Mean", replaced(elementwise, "scale", lambda right, term, factor: term)),
    "both operands of Greater": ("Greater", lowering("Greater", first_operand)),
    "LayerNormalization's epsilon": ("LayerNormalization", lowering(
        "LayerNormalization", attribute("epsilon", lambda value: 1e-5))),
    "groups of GroupNormalization": ("GroupNormalization", lowering(
        "GroupNormalization", attribute("num_groups", lambda value: 1))),
    "scale of attention": ("Attention", lowering("Attention", attribute("scale", lambda value: 0.7))),
    "attention without its mask": ("Attention", lowering(
        "Attention", attribute("is_causal", lambda value: 0))),
    "BatchNormalization's variance": ("BatchNormalization", replaced(
        leaves, "power", lambda right, leaf, exponent: right(leaf, -1.0))),
    "a window's padding": ("Conv", replaced(layers, "window", lambda right, *given: {
        **right(*given), "pads": right(*given)["pads"][::-1]})),
    "windows that hang over": ("AveragePool", replaced(layers, "_overhangs", lambda right, *given: False)),
    "padding in a mean": ("AveragePool", lowering("AveragePool", attribute(
        "count_include_pad", lambda value: 0))),
    "the first entry of Slice": ("Slice", replaced(movement, "cut", lambda right, b, term, region: right(
        b, term, [slice(p.start - 1, p.stop - 1, 1) if p.start and p.step == 1 else p for p in region]))),
    "order of axes": ("Transpose", lowering("Transpose", attribute(
        "perm", lambda value: value and [value[-1], *value[:-1]]))),
    "a mean's count": ("ReduceMean", replaced(elementwise, "reduce", lambda right, b, op, x, axes: right(
        b, "ReduceSum", x, axes))),
    "a bias pushed through a gain": ("Add", replaced(leaves, "multiply",
                                     lambda right, first, second: first)),
    "a factor under a square root": ("Sqrt", replaced(
        arithmetic, "unary", lambda right, b, op, x, *rest: right(b, op, x.times(4.0), *rest))),
    "a guard taken away": ("Where", lowering(
        "Where", lambda right, b, node, operands, results: [operands[2]])),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_lowering_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, plant = PLANTED[name]
    plant(monkeypatch)
    assert any(validate(op, 0, index).kind in {"unsound", "crash"} for index in range(40))


def test_equal_spellings_that_stay_apart_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    uproot(monkeypatch, LOWERINGS, "Greater")
    assert {verdict.kind for verdict in found(["Greater"], 4)} == {"missing"}
    monkeypatch.setattr("graphnorm.alignment.matching.COMMUTATIVE", frozenset())
    assert {verdict.kind for verdict in found(["Mul"], 8)} == {"missing"}


def test_a_lowering_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any) -> Any:
        raise ValueError("planted")

    plant(monkeypatch, LOWERINGS, "Relu", broken)
    (verdict,) = found(["Relu"], 1)
    assert verdict.kind == "crash"
    assert "planted" in verdict.text


def test_differences_are_of_shape_of_type_and_of_size() -> None:
    one = np.array([1.0, 2e9])
    assert not differs([one], [one * (1 + 1e-12)])
    assert "result 0 is 2000000040" in differs([one], [one * (1 + 2e-8)])
    assert "(1, 2)" in differs([one], [one[None]])
    assert "int64" in differs([one], [one.astype(np.int64)])
    assert "at [1]" in differs([np.array([1, 2])], [np.array([1, 3])])
    assert not differs([np.array([np.nan, np.inf])], [np.array([np.nan, np.inf])])
    assert differs([np.array([np.inf])], [np.array([-np.inf])])


def test_the_command_line_lists_what_stays(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--op", "Relu", "--cases", "2"]) == 0
    said = capsys.readouterr().out
    assert "0 findings in 2 cases of 1 operators: 2 ok" in said
    assert "operators stay as they are: AffineGrid," in said
