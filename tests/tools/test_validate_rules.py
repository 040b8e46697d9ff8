"""Every rule against what its operator does to numbers, and planted wrong rules that must be caught."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from graphnorm.ir import Node
from graphnorm.scales.context import Context
from graphnorm.scales.labels import PINNED
from graphnorm.scales.registry import Apply
from graphnorm.scales.rules.reduction import axes_of
from tests.support.validating import REGISTRY, WITH_CASES, findings, homogeneous, planted, quiet, texts
from tools.validation.exceptions import ALLOWANCES, exemption
from tools.validation.families import GENERATORS
from tools.validation.judge import make_case, stream, validate
from tools.validation.network import claim
from tools.validation.truth import Operator


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


def product_as_sum(ctx: Context, node: Node) -> None:
    """A product whose n factors of one scale are counted once; right where each factor has its own."""
    labels, shape = ctx.labels(node.inputs[0]), ctx.shape(node.inputs[0])
    axes = axes_of(ctx, node, labels.ndim) or []
    if all(shape[axis] == 1 or labels.shape[axis] > 1 for axis in axes):
        REGISTRY["ReduceProd"].apply(ctx, node)
        return
    kept = [size for axis, size in enumerate(labels.shape) if axis not in axes]
    one = labels.max(axis=tuple(axes), keepdims=True)
    ctx.set(node.outputs[0], one if node.attributes["keepdims"] else one.reshape(kept))


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


def test_a_rule_that_is_false_only_where_entries_share_a_label_is_caught() -> None:
    found = findings("ReduceProd", 16, registry=planted("ReduceProd", product_as_sum))
    assert "unsound" in {verdict.kind for verdict in found}


def sees_compressed(op: str, count: int) -> bool:
    """Whether in one of the first cases an operand's labels have size 1 on an axis with several entries."""
    seen: list[bool] = []

    def look(ctx: Context, node: Node) -> None:
        for name in node.inputs:
            if name in ctx.found and (ctx.found[name] > PINNED).all():  # neither pinned nor free
                pairs = zip(ctx.found[name].shape, ctx.shape(name), strict=True)
                seen.append(any(labels == 1 < size for labels, size in pairs))
        REGISTRY[op].apply(ctx, node)

    registry = planted(op, look)
    for index in range(count):
        case = make_case(op, 0, index)
        operator = Operator(case)
        operands = operator.draw(stream(op, 0, index, 1))
        claim(case, operands, operator.run(operands), registry)
        if any(seen):
            return True
    return False


def test_every_operator_sees_one_scale_along_an_axis() -> None:
    without = [op for op in WITH_CASES if op in REGISTRY and not sees_compressed(op, 40)]
    assert not without


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
