"""The validating tool itself: cases, what it takes for true, and its command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.rescaling.graph import build
from graphnorm.scales.registry import Registry
from tests.support.validating import REGISTRY, WITH_CASES, homogeneous, planted, quiet
from tools.validate_rules import main
from tools.validation.judge import make_case, stream
from tools.validation.maker import Maker, cases
from tools.validation.network import minimal
from tools.validation.report import to_onnx
from tools.validation.truth import Operator, group, passes, rank

# Whose results are whole numbers, or entries of tables.
WITHOUT_DIGITS = {
    "Ceil", "DynamicQuantizeLinear", "EyeLike", "Floor", "Hardmax", "Round", "Sign",
}  # fmt: skip


@pytest.fixture(autouse=True)
def numbers() -> Iterator[None]:
    with quiet():
        yield


@pytest.mark.parametrize("op", [op for op in WITH_CASES if op not in WITHOUT_DIGITS])
def test_operators_are_evaluated_in_float64(op: str) -> None:
    rng = np.random.default_rng(0)
    digits = 0
    for index in range(4):
        operator = Operator(make_case(op, 0, index))
        for y in operator.run(operator.draw(rng)):
            if y.dtype.kind == "f":
                assert y.dtype == np.float64
                finite = y[np.isfinite(y) & (y != 0)]
                digits += int((finite.astype(np.float32) != finite).sum())
            else:
                digits += 1  # an integer
    assert digits


@pytest.mark.parametrize(
    ("op", "free"),
    [
        ("Relu", "all"),
        ("Tanh", "none"),
        ("Floor", "none"),
        ("Sign", "all"),
        ("Neg", "all"),
        ("Softplus", "none"),
    ],
)
def test_truth_of_elementwise_operators(op: str, free: str) -> None:
    for index in range(3):
        operator = Operator(make_case(op, 5, index))
        (operand,) = operator.case.operands
        zeros = 0 if operand.value is None else int(np.sum(operand.value == 0))  # are free in any case
        expected = operator.size if free == "all" else zeros
        assert rank(group(operator, stream(op, 5, index))) == expected


@pytest.mark.parametrize("index", [0, 2, 4])
def test_truth_sees_what_only_finite_scales_show(index: int) -> None:
    """A comparison has no derivative; its group is found among structured candidates."""
    case = make_case("ArgMax", 2, index)
    operator = Operator(case)
    along = case.operands[0].gain_shape[case.attributes["axis"]]
    assert case.kinds == ("data",)
    assert rank(group(operator, stream("ArgMax", 2, index))) == operator.size // along


def test_a_scale_that_depends_on_the_input_does_not_pass() -> None:
    operator = Operator(make_case("Exp", 0, 0))
    rng = np.random.default_rng(0)
    assert passes(operator, np.zeros(operator.size), None, rng, 4, 1e-12)
    assert not passes(operator, np.ones(operator.size), None, rng, 4, 1e-6)


def test_a_second_generator_for_an_operator_is_an_error() -> None:
    with pytest.raises(ValueError, match="Relu has two generators"):
        cases("Relu")(lambda m: m.case(m.real((1,))))


def test_a_case_is_the_same_wherever_it_is_drawn() -> None:
    assert str(make_case("Conv", 3, 4)) == str(make_case("Conv", 3, 4)) != str(make_case("Conv", 3, 5))
    maker = Maker("Relu", np.random.default_rng(0))
    assert maker.shape(2, 2) == Maker("Relu", np.random.default_rng(0)).shape(2, 2)


# The command line.


def run(*arguments: str, registry: Registry = REGISTRY) -> int:
    return main(list(arguments), registry)


def test_command_line_without_findings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert run("--op", "Relu", "Bernoulli", "--cases", "2", "--json", str(report)) == 0
    written = json.loads(report.read_text())
    assert (written["cases"], written["operators"], written["findings"]) == (3, 2, [])
    assert ["Bernoulli", "random"] in written["allowed"]
    shown = capsys.readouterr().out
    assert "0 findings in 3 cases of 2 operators" in shown
    assert "note 1, missing on purpose or not validated: random" in shown


def test_command_line_with_findings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ("--op", "Tanh", "--seed", "2", "--cases", "3", "--out", str(tmp_path))
    assert run(*arguments, "--json", str(tmp_path / "r.json"), registry=planted("Tanh", homogeneous)) == 1
    shown = capsys.readouterr().out.replace("\n", "")
    (finding, *_) = json.loads((tmp_path / "r.json").read_text())["findings"]
    assert finding["kind"] == "unsound"
    assert (
        finding["command"] == f"python tools/validate_rules.py --op Tanh --seed 2 --case {finding['index']}"
    )
    assert finding["command"] in shown
    stem = f"Tanh-2-{finding['index']}"
    onnx.checker.check_model(onnx.load(tmp_path / f"{stem}.onnx"))
    compile((tmp_path / f"{stem}.py").read_text(), stem, "exec")


def test_command_line_runs_one_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--op", "Relu", "--case", "7") == 0
    assert "0 findings in 1 cases of 1 operators" in capsys.readouterr().out


def test_command_line_refuses_unknown_operators(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("--op", "Relu", "Rleu")
    assert "no rule and no cases for Rleu" in capsys.readouterr().err


def test_the_minimal_network_is_read_the_same_from_its_file() -> None:
    """The reproducer shows what was judged: the same freedoms through the ONNX front end."""
    for op, index in (("Conv", 0), ("Add", 1), ("MatMul", 2), ("Relu", 3)):
        operator = Operator(make_case(op, 11, index))
        operands: list[Any] = operator.draw(stream(op, 11, index))
        network = minimal(operator.case, operands, operator.run(operands))
        weights = {
            name: array + np.arange(array.size).reshape(array.shape)
            for name, array in network.weights.items()
        }
        constants = [name for name in network.constants if name.startswith(("m", "u"))]
        if constants:
            continue  # float constants of a file are weights
        model = to_onnx(network)
        assert set(read_onnx(model).weights) == set(weights)
        assert build(read_onnx(model)).dimension == build(network).dimension
