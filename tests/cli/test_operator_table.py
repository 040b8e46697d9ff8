"""The operator table: in the README, on the command line, and against the registry and the lowerings."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from graphnorm.cli.commands import app
from graphnorm.cli.operator_table import BEGIN, END, FIXED, entries, markdown, replace_table, rows
from graphnorm.errors import InputError
from graphnorm.frontends.torch.aten import table as aten
from graphnorm.frontends.torch.call import Call
from graphnorm.frontends.torch.overloads import lowered_from
from graphnorm.frontends.torch.read import read_torch
from graphnorm.ops.rules import Rules
from graphnorm.scales.registry import Registry, Rule
from graphnorm.scales.rules.elementwise import fixed
from graphnorm.scales.rules.table import default_registry
from tests.support.paths import ROOT

README = ROOT / "README.md"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["rules", *arguments])


def small_registry() -> Registry:
    registry: Registry = Rules("small")
    registry.add(Rule("0 -> 0", fixed, "stops"), "Det", "aten::linalg_qr")
    registry.add(Rule("0 -> 0", fixed, "odd"), "aten::linalg_lu", "aten::i0")
    registry.add(Rule("x -> x | y", fixed, "goes through"), "Conv")
    registry.add(Rule("x -> x | y", fixed, "goes too"), "Gemm")
    return registry


def test_the_readme_holds_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    assert replace_table(text, markdown()) == text, "run python tools/readme_table.py"


def test_an_old_table_is_seen_and_replaced() -> None:
    text = f"before\n{BEGIN}\n| old |\n{END}\nafter\n"
    assert replace_table(text, "| new |") == text.replace("old", "new")
    with pytest.raises(InputError, match="nothing between"):
        replace_table("nothing", "| new |")


def test_every_operator_is_in_one_row() -> None:
    listed = [operator for row in rows() for operator in row.operators]
    assert sorted(listed) == sorted(default_registry())
    assert all(row.reason for row in rows() if row.family == FIXED)
    families = [row.family for row in rows()]
    assert families == sorted(families, key=lambda family: family == FIXED)


def test_rows_of_one_signature_and_of_one_reason() -> None:
    table = rows(small_registry())
    assert [row.operators for row in table] == [
        ("Gemm", "Conv"),
        ("aten::i0", "aten::linalg_lu"),
        ("Det", "aten::linalg_qr"),
    ]
    assert markdown(small_registry()).splitlines()[2:] == [
        "| contractions | Gemm, Conv | x -> x \\| y |",
        "| fixed: stops | Det and 1 outside ONNX | 0 -> 0 |",
        "| fixed: odd | 2 outside ONNX | 0 -> 0 |",
    ]


class TestOneOperator:
    def test_what_is_known(self) -> None:
        (conv,) = entries("Conv")
        assert (conv.family, conv.fixed) == ("contractions", False)
        assert "out_channels" in conv.documentation
        assert {"conv2d.default", "conv1d.padding"} <= set(conv.overloads)
        (gelu,) = entries("Gelu")
        assert gelu.fixed
        assert gelu.reason == "not homogeneous"
        assert "gelu.default" in gelu.overloads

    def test_a_made_rule_has_its_makers_words(self) -> None:
        assert entries("Sqrt")[0].documentation.startswith("Homogeneous of degree k")

    @pytest.mark.parametrize("name", ["relu", "RELU", "Relu"])
    def test_case_does_not_matter(self, name: str) -> None:
        assert [entry.operator for entry in entries(name)] == ["Relu"]

    @pytest.mark.parametrize("name", ["aten::rsqrt", "rsqrt", "rsqrt.default"])
    def test_an_overload_stands_for_its_operators(self, name: str) -> None:
        assert {entry.operator for entry in entries(name)} == {"Sqrt", "Reciprocal"}

    def test_unknown(self) -> None:
        with pytest.raises(InputError, match=r"Convv: there is no rule .*close names: Conv"):
            entries("Convv")
        with pytest.raises(InputError, match=r"pins everything that it touches$"):
            entries("qqqqqqqq")


class TestCommand:
    def test_table(self) -> None:
        result = run()
        assert result.exit_code == 0
        assert "BatchNormalization" in result.stdout
        assert "fixed: quantised" in result.stdout

    def test_markdown_is_the_readmes(self) -> None:
        assert run("--markdown").stdout.strip() == markdown()

    def test_one(self) -> None:
        result = run("MatMul")
        assert "n k, k m -> n m" in result.stdout
        assert "mm.default" in result.stdout
        assert "Everything that it touches is pinned" in run("Softmax").stdout

    def test_json(self) -> None:
        table = json.loads(run("--json", "-").stdout)["rows"]
        assert [row["family"] for row in table] == [row.family for row in rows()]
        (found,) = json.loads(run("Tanh", "--json", "-").stdout)["operators"]
        assert (found["operator"], found["fixed"]) == ("Tanh", True)

    def test_unknown_is_bad_usage(self) -> None:
        result = run("Reluu")
        assert result.exit_code == 2
        assert "close names: Relu" in result.stderr


class Several(nn.Module):
    """Calls whose lowerings name their operators in different ways: closures, parameters, other lowerings."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu6(self.norm(self.conv(x)))
        x = nn.functional.glu(torch.cat([x, x * 2], 1), 1).mean((2, 3))
        x = self.linear(nn.functional.softplus(x, beta=2.0)) ** 2 + torch.rsqrt(x.abs() + 1)
        x = torch.where(x > 0, x, -x).clamp(min=0).amax(1, keepdim=True)
        return torch.baddbmm(x[None], x[None], x[None].transpose(1, 2)).logsumexp(-1)


def test_overloads_are_those_that_emit_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []
    lower = aten.lower

    def recorded(call: Call, operator: str, *rest: object) -> None:
        lower(call, operator, *rest)  # type: ignore[arg-type]
        seen.append((operator, [node.op for node in call.nodes]))

    monkeypatch.setattr("graphnorm.frontends.torch.graph.lower", recorded)
    read_torch(Several().eval(), (torch.randn(2, 3, 4, 4),))
    emitted = {(operator, op) for operator, ops in seen for op in ops if operator in aten.LOWERINGS.table}
    assert len(emitted) > 20
    missing = {(overload, op) for overload, op in emitted if overload not in lowered_from().get(op, ())}
    assert not missing


def test_branches_that_cannot_be_taken_are_left_out() -> None:
    found = lowered_from()
    assert "mul.Tensor" in found["And"]  # of truth values
    assert "div.Tensor" not in found["And"]
    assert "ne.Tensor" in found["Not"]
    assert "eq.Tensor" not in found["Not"]


def test_most_lowerings_are_found() -> None:
    known = {overload for overloads in lowered_from().values() for overload in overloads}
    unknown = set(aten.LOWERINGS.table) - known
    makes_constants = {name for name in unknown if name.startswith(("zero", "one", "full", "new_", "fill."))}
    assert unknown == makes_constants
