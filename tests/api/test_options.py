"""Options: one set of defaults for the dataclass, the function and the command line."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest
import typer.main

import graphnorm
from graphnorm.api.options import Mode, Options
from graphnorm.cli.commands import app
from graphnorm.errors import InputError

# Keyword arguments that are no options: what is canonicalised, and who watches.
GIVEN = {"model", "example_inputs", "kwargs", "input_shapes", "progress"}
# Option -> the command line's parameter, where that says it in other words.
RENAMED = {"inputs_as_weights": "initializers_as_weights", "verify": "no_verify"}
ONLY_IN_PROGRAMS = {"inplace", "max_cycles"}  # a file is never changed in place


def defaults() -> dict[str, Any]:
    return {field.name: field.default for field in fields(Options)}


def test_the_function_takes_exactly_the_options() -> None:
    parameters = inspect.signature(graphnorm.canonicalize).parameters
    taken = {name: item.default for name, item in parameters.items() if name not in GIVEN}
    assert taken == defaults()


def test_the_command_line_has_the_same_defaults() -> None:
    command: Any = typer.main.get_command(app)
    parameters = {item.name: item.default for item in command.commands["canonicalize"].params}
    for name, default in defaults().items():
        if name in ONLY_IN_PROGRAMS:
            assert name not in parameters
        elif name == "verify":
            assert parameters[RENAMED[name]] is (not default)
        else:
            assert parameters[RENAMED.get(name, name)] == default, name


def test_every_option_reaches_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value other than the default, for each option on its own."""
    seen: list[Options] = []

    class StopError(Exception):
        pass

    def recorded(*arguments: Any) -> None:
        seen.append(arguments[4])
        raise StopError

    monkeypatch.setattr("graphnorm.api.canonicalize.Pipeline", recorded)
    from torch import nn, zeros

    other: dict[str, Any] = {
        "p": 3.0, "c": 1.5, "mode": "exact", "tol": 1e-3, "gap": 0.1, "max_cycles": 7, "method": "cyclic",
        "memory": 5, "device": "cpu",
    }  # fmt: skip
    for field in fields(Options):
        value = other.get(field.name, not field.default)
        with pytest.raises(StopError):
            graphnorm.canonicalize(nn.Linear(2, 2).eval(), zeros(1, 2), **{field.name: value})
        assert getattr(seen[-1], field.name) == value != field.default


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"p": 0.0}, "p must be a positive number or inf, got 0.0"),
        ({"tol": 0.0}, "tol must be positive"),
        ({"memory": -1}, "memory must be a number of bytes"),
        ({"inplace": True, "rewrite_clips": True}, "rewrite_clips=True gives a new model"),
        ({"permute": True, "mode": Mode.EXACT}, "permute=True changes the order of sums"),
    ],
)
def test_options_without_a_meaning_are_refused(given: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        Options(**given)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InputError, match="mode must be one of optimal, exact, got 'Exact'"):
        graphnorm.canonicalize(None, mode="Exact")
