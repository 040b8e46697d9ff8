"""A defect in one lowering or rule pins its operator and is reported; the function is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.alignment.lowering import LOWERINGS as NORMAL_FORMS
from graphnorm.errors import NoPathNormError
from graphnorm.fingerprint import paths
from graphnorm.frontends.torch import graph as torch_graph
from graphnorm.frontends.torch import regions as torch_regions
from graphnorm.frontends.torch.aten.table import LOWERINGS
from graphnorm.frontends.torch.read import read_torch
from graphnorm.ir import Graph, Node
from graphnorm.permutation import rules as permutation_rules
from graphnorm.permutation.symmetry import symmetry
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.scales import backward, reconcile
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Role
from graphnorm.scales.registry import Rule
from graphnorm.scales.rules import movement
from graphnorm.scales.rules.table import default_registry
from graphnorm.util.defects import DEFECTS, defect
from tests.support.planting import plant

RAISED = [
    IndexError("list index out of range"),
    KeyError("axis"),
    ZeroDivisionError("integer modulo by zero"),
    AssertionError(),
    AttributeError("'NoneType' object has no attribute 'shape'"),
    TypeError("unsupported operand"),
    ValueError("shapes do not match\nand more"),
    RuntimeError("no kernel"),
    OverflowError("too large"),
    UnboundLocalError("cannot access local variable"),
    np.exceptions.AxisError(3, 2),
]


def raising(error: Exception) -> Callable[..., NoReturn]:
    def fails(*arguments: Any, **options: Any) -> NoReturn:
        raise error

    return fails


def network() -> tuple[nn.Module, Tensor]:
    """5 + 6 rescalings; a SiLU pins what it touches anyway."""
    layers = nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 6), nn.LeakyReLU(), nn.Linear(6, 2)
    return nn.Sequential(*layers).double(), torch.randn(4, 3).double()


def assert_kept(model: nn.Module, x: Tensor, dimension: int, *said: str) -> None:
    """`canonicalize` keeps the function, with this dimension and a remark that says these words."""
    result = graphnorm.canonicalize(model, x)
    assert result.report.verification.verdict == "proved"
    assert result.graph.dimension == dimension
    with torch.no_grad():
        assert torch.allclose(model(x), result.model(x), rtol=1e-9)
    assert any(all(word in remark for word in said) for remark in result.report.remarks), (
        result.report.remarks
    )


def test_sound_networks_have_no_remarks() -> None:
    assert graphnorm.canonicalize(*network()).report.remarks == ()


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_lowering_with_a_defect_pins(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOWERINGS.table, "leaky_relu.default", raising(error))
    assert_kept(*network(), 5, "aten::leaky_relu", "defect", type(error).__name__, "3")


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_rule_with_a_defect_pins(error: Exception) -> None:
    rule = Rule("x -> x", raising(error), "planted")
    model, x = network()
    graph = build(read_torch(model, x), default_registry().replaced(rule, "LeakyRelu"))
    assert graph.dimension == 5
    assert len(graph.remarks) == 1
    assert (
        f"LeakyRelu 3 is pinned: a defect in graphnorm's rule of LeakyRelu ({type(error).__name__}"
        in (graph.remarks[0])
    )
    assert "\n" not in graph.remarks[0]


def test_rule_that_fails_after_it_stated_something() -> None:
    """What it stated stays; the node is pinned all the same, and so are the weights it asked for."""

    def half(ctx: Context, node: Node) -> None:
        labels = ctx.fresh(ctx.shape(node.outputs[0])[-1:], "channels")
        ctx.set(node.outputs[0], labels)
        ctx.demand(node.inputs[1], [(1.0, labels)], Role.BIAS)
        raise ZeroDivisionError

    model, x = network()
    rule = Rule("", half, "planted")
    graph = build(read_torch(model, x), default_registry().replaced(rule, "MatMul"))
    assert graph.dimension == 0
    assert not list(graph.movable())
    assert len(graph.remarks) == 3


class Tied(nn.Module):
    """A weight expression (halves of one matrix, transposed) and a table that is read in part."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Parameter(torch.randn(10, 3))
        self.second = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.both.chunk(2)
        return self.second(torch.relu(x @ gate.T) * torch.tanh(x @ value.T))


def traced(model: nn.Module, x: Tensor) -> RescalingGraph:
    return build(read_torch(model, x))


@pytest.mark.parametrize("op", ["Split", "Transpose"])
def test_backward_rule_with_a_defect(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The expression is walked forwards instead: nothing is lost."""
    model, x = Tied().double(), torch.randn(4, 3).double()
    assert traced(model, x).dimension == 5
    plant(monkeypatch, backward.HANDLERS, op, raising(KeyError("axis")))
    graph = traced(model, x)
    assert graph.dimension == 5
    assert f"graphnorm's backward rule of {op} (KeyError" in "".join(graph.remarks)
    assert_kept(model, x, 5, "backward rule", op)


def test_both_rules_of_an_expression_with_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, backward.HANDLERS, "Split", raising(KeyError("axis")))
    plant(monkeypatch, movement.MOVES, "Split", raising(IndexError("out of range")))
    assert_kept(Tied().double(), torch.randn(4, 3).double(), 0, "rule of Split", "IndexError")


def test_demands_that_cannot_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network()
    graph = read_torch(model, x)
    agree, first = reconcile._agreed, next(iter(graph.weights))

    def fails(shape: Any, items: Any, constraints: Any) -> Any:
        return raising(ValueError("no"))() if items[0].weight == first else agree(shape, items, constraints)

    monkeypatch.setattr(reconcile, "_agreed", fails)
    found = build(graph)
    assert found.dimension == 6
    assert f"of {first!r} in 0 is pinned" in found.remarks[0]


def test_permutation_rule_with_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network()
    assert sorted(symmetry(read_torch(model, x)).sizes.values()) == [5, 6]
    plant(monkeypatch, permutation_rules.RULES, "LeakyRelu", raising(IndexError("out of range")))
    found = symmetry(read_torch(model, x))
    assert sorted(found.sizes.values()) == [5]
    assert "rule for permutations of LeakyRelu (IndexError: out of range" in found.defects[0]
    report = graphnorm.canonicalize(model, x, permute=True).report
    assert found.defects[0] in report.remarks


def test_path_norm_with_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = traced(*network())
    monkeypatch.setattr(paths._Walk, "_result", raising(KeyError("x")))
    with pytest.raises(
        NoPathNormError, match=r"without paths: a defect in graphnorm's path-norm of Transpose"
    ):
        paths.path_norm(graph, 2)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Any:
        h = torch.relu(self.a(x))
        return self.b(torch.cond(h.sum() > 0, lambda y: y * 2, lambda y: y + y, (h,)))


def test_region_with_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Branches().double(), torch.randn(4, 3).double()
    assert traced(model, x).dimension == 1
    cond = torch_regions.JOINED["cond"]

    def fails_late(*arguments: Any) -> Any:
        cond(*arguments)
        raise LookupError("late")

    monkeypatch.setitem(torch_regions.JOINED, "cond", fails_late)
    graph = traced(model, x)
    assert graph.dimension == 0
    assert "cond" in graph.remarks[0]
    assert "LookupError: late" in graph.remarks[0]


def test_rewriting_with_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_graph, "sink_routes", raising(IndexError("out of range")))
    assert_kept(*network(), 11, "mixture of experts", "left as it is")


def test_remarks_reach_checks_and_summaries(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network()
    monkeypatch.setitem(LOWERINGS.table, "leaky_relu.default", raising(IndexError("out of range")))
    graph = graphnorm.trace(model, x)
    assert graph.remarks[0] in graph.summary()
    report = graphnorm.check(model, model, x)
    assert report.remarks == (f"A: {graph.remarks[0]}", f"B: {graph.remarks[0]}")


def test_defects_met_while_proving_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a rule, of a permutation's rule, and of a normal form; the verdict is what is left."""
    model, x = network()
    other = graphnorm.canonicalize(model, x).model
    assert graphnorm.check(model, other, x).remarks == ()
    plant(monkeypatch, permutation_rules.RULES, "LeakyRelu", raising(IndexError("out of range")))
    plant(monkeypatch, movement.MOVES, "Transpose", raising(ZeroDivisionError("rule")))
    plant(monkeypatch, backward.HANDLERS, "Transpose", raising(KeyError("axis")))
    plant(monkeypatch, NORMAL_FORMS, "LeakyRelu", raising(TypeError("form")))
    report = graphnorm.check(model, other, x)
    assert report.verdict == "proved"  # by the normal form, which has no Transpose
    said = "\n".join(report.remarks)
    for part in ("rule of Transpose", "rule for permutations of LeakyRelu", "normal form of LeakyRelu"):
        assert f"a defect in graphnorm's {part}" in said
    assert "LeakyRelu 3 is kept as it is" in said
    assert all(remark.startswith("proof: ") for remark in report.remarks)
    assert report.to_dict()["remarks"] == list(report.remarks)


def test_other_exceptions_are_no_defects() -> None:
    """Those that graphnorm raises on purpose, and those that end a run."""
    for error in (graphnorm.GraphNormError, MemoryError, KeyboardInterrupt, SystemExit, OSError):
        assert not issubclass(error, DEFECTS)


def test_sentence_has_one_line() -> None:
    said = defect("rule", "Conv", "stem", ValueError("a\nb"))
    assert said == (
        "Conv stem is pinned: a defect in graphnorm's rule of Conv (ValueError: a); please report it"
    )
    assert "(AssertionError)" in defect("rule", "Conv", "stem", AssertionError())


def test_graph_carries_remarks() -> None:
    graph = Graph("empty", (), (), (), {}, remarks=("read otherwise",))
    assert build(graph).remarks == ("read otherwise",)
