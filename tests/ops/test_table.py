"""The table of operators against what frameworks say of theirs."""

from __future__ import annotations

import onnx
import pytest
import torch

from graphnorm.errors import RuleError
from graphnorm.frontends.torch.overloads import lowered_from
from graphnorm.ops.table import TABLE, assembled, has, having, title
from graphnorm.ops.traits import Trait, family, row

VARIADIC = 2**31 - 1
ONNX = [name for name in TABLE if "::" not in name]


def schemas() -> dict[str, list[onnx.defs.OpSchema]]:
    """Versions of each operator of ONNX's own domain, the oldest first."""
    found: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            found.setdefault(schema.name, []).append(schema)
    return {name: sorted(versions, key=lambda one: one.since_version) for name, versions in found.items()}


SCHEMAS = schemas()


def test_every_operator_of_onnx_has_a_row() -> None:
    assert set(ONNX) == set(SCHEMAS)


@pytest.mark.parametrize("name", ONNX)
def test_operands_and_opset_are_those_of_the_schema(name: str) -> None:
    first, last = SCHEMAS[name][0], SCHEMAS[name][-1]
    least, most = TABLE[name].operands
    assert TABLE[name].since == first.since_version
    assert (least, VARIADIC if most is None else most) == (last.min_input, last.max_input)


def test_rows_outside_onnx_have_no_opset() -> None:
    assert all(TABLE[name].since is None for name in TABLE if "::" in name)


def test_regions_are_attributes_that_are_graphs() -> None:
    graphs = {
        name
        for name, versions in SCHEMAS.items()
        for attribute in versions[-1].attributes.values()
        if attribute.type == onnx.defs.OpSchema.AttrType.GRAPH
    }
    assert having(Trait.REGIONS) == graphs


def test_random_operators_are_those_with_a_seed() -> None:
    seeded = {name for name, versions in SCHEMAS.items() if "seed" in versions[-1].attributes}
    assert {name for name in having(Trait.RANDOM) if "::" not in name} == seeded


def overload(name: str) -> torch._ops.OpOverload | None:
    packet, _, kind = name.partition(".")
    found = getattr(getattr(torch.ops.aten, packet, None), kind or "default", None)
    return found if isinstance(found, torch._ops.OpOverload) else None


def of_one_operator() -> dict[str, str]:
    """ATen overload -> the one operator that it becomes."""
    made_of: dict[str, set[str]] = {}
    for operator, overloads in lowered_from().items():
        for name in overloads:
            made_of.setdefault(name, set()).add(operator)
    return {name: next(iter(ops)) for name, ops in made_of.items() if len(ops) == 1}


def kept() -> dict[str, str]:
    """ATen overload -> the operator outside ONNX that a row is of, and that no lowering writes otherwise."""
    known = [name for name in TABLE if name.startswith("aten::")]
    return {f"{name.removeprefix('aten::')}.default": name for name in known}


ATEN = of_one_operator() | kept()

# Overloads whose tag differs from the trait of the operator that they become, and why.
DIFFER = {
    Trait.POINTWISE: {
        "_prelu_kernel.default": "untagged",
        "alpha_dropout.default": "the identity in evaluation mode; its random mode is another branch",
        "feature_alpha_dropout.default": "the identity in evaluation mode; its random mode is another branch",
        "frexp.default": "two results, so torch leaves the tag out",
        "hardswish.default": "untagged, though hardsigmoid is tagged",
        "masked_fill.Tensor": "untagged, though masked_fill.Scalar is tagged",
        "view.dtype": "types of other widths change the last axis; the lowering takes equal widths",
        "view_copy.dtype": "types of other widths change the last axis; the lowering takes equal widths",
        "where.Scalar": "untagged, though where.self is tagged",
        "where.ScalarOther": "untagged, though where.self is tagged",
        "where.ScalarSelf": "untagged, though where.self is tagged",
    },
    Trait.RANDOM: {
        "alpha_dropout.default": "the identity in evaluation mode; its random mode is another branch",
        "feature_alpha_dropout.default": "the identity in evaluation mode; its random mode is another branch",
    },
    Trait.REDUCES: {
        "_is_all_true.default": "untagged, though all is tagged",
        "_is_any_true.default": "untagged, though any is tagged",
        "fractional_max_pool2d.default": "windows at random places; untagged, though max_pool2d is tagged",
        "fractional_max_pool3d.default": "windows at random places; untagged, though max_pool3d is tagged",
        "segment_reduce.default": "untagged",
    },
}
TAGS = {
    Trait.POINTWISE: torch.Tag.pointwise,
    Trait.RANDOM: torch.Tag.nondeterministic_seeded,
    Trait.REDUCES: torch.Tag.reduction,
}


@pytest.mark.parametrize("trait", TAGS, ids=lambda trait: trait.name.lower())
def test_traits_are_the_tags_of_torch(trait: Trait) -> None:
    compared = {name: found for name in ATEN if (found := overload(name)) is not None}
    assert len(compared) > 300
    wrong = {
        name for name, found in compared.items() if (TAGS[trait] in found.tags) != has(ATEN[name], trait)
    }
    assert wrong == set(DIFFER[trait])
    assert all(DIFFER[trait].values())


def test_operators_with_two_rows_are_refused() -> None:
    with pytest.raises(RuleError, match="operators with two rows: Relu"):
        assembled(family("one", row("Relu", 1)), family("two", row("Relu", 1)))


def test_titles() -> None:
    assert title("BatchNormalization") == "BatchNorm"
    assert (title("MatMul"), title("MatMul", weighted=True)) == ("MatMul", "Linear")
    assert (title("aten::adaptive_avg_pool"), title("my.domain::Thing")) == ("AvgPool", "Thing")
