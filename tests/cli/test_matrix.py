"""Operators and analyses: every cell holds a rule, or a reason why there is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from graphnorm.cli.commands import app
from graphnorm.cli.matrix import empty, matrix, registries
from graphnorm.errors import InputError
from graphnorm.ops.table import TABLE


def run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["rules", "--matrix", *arguments])


def test_no_cell_is_empty() -> None:
    lines = matrix()
    assert [line.about.name for line in lines] == list(TABLE)
    assert empty(lines) == [], "add a rule, or say in that registry why there is none (`explain`)"


def test_reasons_are_sentences_and_rules_have_none() -> None:
    for line in matrix():
        for cell in line.cells.values():
            assert cell is not None
            assert (cell.rule is None) == bool(cell.reason)


@pytest.mark.parametrize("analysis", ["scales", "permutations"])
def test_an_operator_of_which_nothing_is_said_is_seen(analysis: str) -> None:
    """The test above can fail."""
    given: dict[str, Any] = registries()
    given[analysis] = given[analysis].without("Conv")
    assert empty(matrix(given=given)) == [f"{analysis}: Conv"]


@pytest.mark.parametrize("analysis", ["scales", "permutations"])
def test_no_reason_covers_all_operators(analysis: str) -> None:
    """A row without traits has empty cells: these two analyses want to be asked about each new operator."""
    assert all(rules.by for rules in registries()[analysis]._by_trait.values())


def test_the_table() -> None:
    result = run()
    assert result.exit_code == 0
    assert "permutations" in result.stdout
    assert "none because" in result.stdout
    assert "?" not in result.stdout


def test_one_operator() -> None:
    said = run("Tanh").stdout
    assert "permutations: the rule of what is pointwise" in said
    assert "scales: the rule of what is pointwise, saturates" in said
    assert "input entries: a rule of its own" in said
    assert "permutations: none: windows at random places" in run("aten::fractional_max_pool").stdout


def test_json() -> None:
    found = json.loads(run("Conv", "--json", "-").stdout)
    assert found["empty"] == []
    (conv,) = found["operators"]
    assert (conv["operands"], conv["since"], conv["degree"]) == ([2, 3], 1, None)
    assert "contracts" in conv["traits"]
    assert conv["analyses"]["scales"] == {"rule": True, "by": "name", "reason": ""}
    assert conv["analyses"]["weight expressions"]["rule"] is False


def test_unknown_operators_are_refused() -> None:
    with pytest.raises(InputError, match="Convv: the table of operators has no such row"):
        matrix("Convv")
    assert run("Convv").exit_code == 2
