"""Every rule against what its operator does to numbers, and planted wrong rules that must be caught."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from graphnorm.ir import Node
from graphnorm.scales.context import Context
from graphnorm.scales.registry import Apply
from tests.support.validating import REGISTRY, WITH_CASES, findings, homogeneous, planted, quiet, texts
from tools.validation.exceptions import ALLOWANCES, exemption
from tools.validation.families import GENERATORS
from tools.validation.judge import validate


@pytest.fixture(autouse=True)
def numbers() -> Iterator[None]:
    with quiet():
        yield


@pytest.mark.parametrize("op", WITH_CASES)
def test_rule_is_sound_and_complete(op: str) -> None:
    found = findings(op, 8)
    assert not found, texts(found)


def test_every_rule_has_cases_or_a_reason() -> None:
    without = [op for op in REGISTRY if op not in GENERATORS and not exemption(op, REGISTRY[op])]
    assert not without


@pytest.mark.slow
def test_more_cases_and_no_stale_allowance() -> None:
    verdicts = [validate(op, 1, index, REGISTRY) for op in WITH_CASES for index in range(16)]
    found = [verdict for verdict in verdicts if verdict.is_finding]
    assert not found, texts(found)
    used = {verdict.text for verdict in verdicts if verdict.kind == "allowed"}
    assert {allowance.reason for allowance in ALLOWANCES} == used


# Planted wrong rules.


def doubled(ctx: Context, node: Node) -> None:
    labels = ctx.labels(node.inputs[0])
    out = ctx.fresh(labels.shape, "planted")
    ctx.equation([(2.0, labels), (-1.0, out)])
    ctx.set(node.outputs[0], out)


def fixed(ctx: Context, node: Node) -> None:
    ctx.pin_node(node)


def uniform(ctx: Context, node: Node) -> None:
    labels = ctx.labels(node.inputs[0])
    ctx.set(node.outputs[0], ctx.uniform(labels, range(labels.ndim)).reshape(()))


def ignores_others(ctx: Context, node: Node) -> None:
    for name in node.inputs[1:]:
        if name:
            ctx.asked(name)
    homogeneous(ctx, node)


def all_free(ctx: Context, node: Node) -> None:
    for name in node.inputs:
        if name:
            ctx.labels(name)
    for name in node.outputs:
        ctx.set(name, ctx.fresh(ctx.shape(name), "planted"))


def broken(ctx: Context, node: Node) -> None:
    raise ValueError("planted")


@pytest.mark.parametrize(
    ("op", "apply"),
    [
        ("Tanh", homogeneous),
        ("Relu", doubled),
        ("Clip", homogeneous),
        ("Floor", homogeneous),
        ("Softmax", homogeneous),
        ("ThresholdedRelu", homogeneous),
        ("Add", ignores_others),
        ("Sub", ignores_others),
        ("Where", ignores_others),
        ("Conv", all_free),
        ("MatMul", all_free),
        ("Attention", all_free),
        ("LayerNormalization", all_free),
        ("LSTM", all_free),
        ("MaxPool", all_free),
        ("ArgMax", all_free),
        ("ReduceSum", all_free),
        ("Gather", all_free),
        ("TopK", all_free),
        ("QuantizeLinear", all_free),
    ],
)
def test_a_rule_that_claims_too_much_is_caught(op: str, apply: Apply) -> None:
    assert "unsound" in {verdict.kind for verdict in findings(op, 6, registry=planted(op, apply))}


@pytest.mark.parametrize(
    ("op", "apply"),
    [
        *((op, fixed) for op in (
            "Relu", "Add", "Div", "Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "Attention",
            "BatchNormalization", "LayerNormalization", "RNN", "LSTM", "MaxPool", "ReduceMean", "Transpose",
            "Pad", "Concat", "Sign", "ArgMax", "Less", "TopK", "GridSample", "LpNormalization", "Sqrt",
            "aten::atan2",
        )),
        *((op, uniform) for op in ("Relu", "Transpose", "ReduceSum", "CumSum", "Slice", "Tile", "TopK")),
    ],
)  # fmt: skip
def test_a_rule_that_claims_too_little_is_caught(op: str, apply: Apply) -> None:
    kinds = {verdict.kind for verdict in findings(op, 6, registry=planted(op, apply))}
    assert kinds == {"missing"}


def test_a_rule_that_fails_is_a_finding_with_its_place() -> None:
    found = findings("Relu", 1, registry=planted("Relu", broken))
    assert [verdict.kind for verdict in found] == ["crash"]
    assert "ValueError: planted, " in found[0].text
    assert "test_validate_rules.py:" in found[0].text


def test_an_operator_without_a_rule_or_without_cases_is_a_finding() -> None:
    registry = planted("custom::Relu", homogeneous)
    assert [verdict.kind for verdict in findings("custom::Relu", 1, registry=registry)] == ["not validated"]
    without = REGISTRY.without("Relu")
    assert {verdict.kind for verdict in findings("Relu", 8, registry=without)} == {"no rule"}
