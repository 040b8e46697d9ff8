"""The registry: names win over traits, more traits over fewer, and nothing is registered twice."""

from __future__ import annotations

import pytest

from graphnorm.errors import RuleError
from graphnorm.ops.rules import Rules, said
from graphnorm.ops.table import having
from graphnorm.ops.traits import NONE, Trait


def test_a_name_wins_over_traits_and_more_traits_over_fewer() -> None:
    rules: Rules[str] = Rules("test")
    rules.for_trait(Trait.POINTWISE, "pointwise")
    rules.for_trait(Trait.POINTWISE | Trait.SATURATES, "saturates")
    rules.add("own", "Tanh")
    assert [rules.get(op) for op in ("Relu", "Sigmoid", "Tanh", "MatMul")] == [
        "pointwise",
        "saturates",
        "own",
        None,
    ]
    assert rules["Relu"] == "pointwise"
    assert set(rules) == having(Trait.POINTWISE)
    assert (next(iter(rules)), len(rules)) == ("Tanh", len(having(Trait.POINTWISE)))
    assert "Relu" in rules
    assert "MatMul" not in rules


def test_reasons_stand_where_rules_do() -> None:
    rules: Rules[str] = Rules("test")
    rules.none_for_trait(Trait.RANDOM, "draws numbers")
    rules.none("has nothing", "Shape")
    rules.for_trait(Trait.POINTWISE, "pointwise")
    for operator, reason in (("Bernoulli", "draws numbers"), ("Shape", "has nothing")):
        cell = rules.cell(operator)
        assert cell is not None
        assert (cell.rule, cell.reason) == (None, reason)
        assert operator not in rules
    assert rules.cell("MatMul") is None


def test_the_decorator_registers() -> None:
    rules: Rules[object] = Rules("test")

    @rules.rule("Relu", "Abs")
    def one() -> None:
        """A rule."""

    assert rules["Relu"] is rules["Abs"] is one


def test_a_second_rule_is_refused() -> None:
    rules: Rules[str] = Rules("test")
    rules.add("one", "Relu")
    rules.for_trait(Trait.MOVES, "one")
    with pytest.raises(RuleError, match="test: operator 'Relu' has a second rule"):
        rules.add("two", "Relu")
    with pytest.raises(RuleError, match="test: operator 'Relu' has a second rule"):
        rules.none("no", "Relu")
    with pytest.raises(RuleError, match="test: operators that are moves have a second rule"):
        rules.none_for_trait(Trait.MOVES, "no")
    other: Rules[str] = Rules("other")
    other.add("two", "Relu")
    with pytest.raises(RuleError, match="'Relu' has a second rule"):
        rules.include(other)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(RuleError, match="test: 'Rlu' is not in the table of operators"):
        Rules[str]("test").add("one", "Rlu")
    with pytest.raises(RuleError, match="test: no operator is recurrent, text"):
        Rules[str]("test").for_trait(Trait.RECURRENT | Trait.TEXT, "one")
    with pytest.raises(RuleError, match="test: no rule for 'Relu'"):
        _ = Rules[str]("test")["Relu"]


def test_rules_by_trait_of_which_none_holds_the_other_are_refused_unless_the_operator_has_its_own() -> None:
    rules: Rules[str] = Rules("test")
    rules.for_trait(Trait.NORMALISES, "norm")
    rules.for_trait(Trait.ALONG_AXIS, "axis")
    assert rules.get("LayerNormalization") == "norm"
    with pytest.raises(RuleError, match=r"'Softmax' has several rules by trait .*register its own"):
        rules.get("Softmax")
    rules.for_trait(Trait.NORMALISES | Trait.ALONG_AXIS, "both")
    rules.add("own", "LogSoftmax")
    assert (rules.get("Softmax"), rules.get("LogSoftmax")) == ("both", "own")


def test_a_copy_has_another_rule_and_leaves_the_first_alone() -> None:
    rules: Rules[str] = Rules("test")
    rules.for_trait(Trait.POINTWISE, "pointwise")
    planted = rules.replaced("planted", "Relu", "my::Thing")
    assert (planted.get("Relu"), planted.get("my::Thing"), planted.get("Abs")) == (
        "planted",
        "planted",
        "pointwise",
    )
    assert (rules.get("Relu"), rules.get("my::Thing")) == ("pointwise", None)
    lacking = planted.without("Relu", "Abs")
    assert [lacking.cell(op) for op in ("Relu", "Abs")] == [None, None]
    assert (lacking.get("Neg"), planted.get("Relu")) == ("pointwise", "planted")


def test_traits_as_text() -> None:
    assert said(Trait.POINTWISE | Trait.ALONG_AXIS) == "pointwise, along axis"
    assert said(NONE) == "any"
