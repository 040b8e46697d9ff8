"""No false proof, no false difference: random perturbed and random equivalent pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphnorm import ir
from graphnorm.api.sources import Source, open_model
from graphnorm.emission.torch_module import rescale_torch
from graphnorm.proof.prove import attempt
from graphnorm.verification.inputs.battery import battery
from graphnorm.verification.measure import measure
from tests.api.test_canonicalize import network
from tests.support.equivalents import equivalent_weights

NAMES = ("mlp", "residual_projection", "grouped", "densenet", "transformer", "batch_norm_eval", "unet",
         "squeeze_excite", "attention_sdpa", "reglu", "prelu", "zero_pad_shortcut")  # fmt: skip


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    found = []
    for name in NAMES:
        model, arguments = network(name)
        found.append(open_model(model.eval(), arguments))
    return found


def perturbed(
    weights: dict[str, ir.Array], generator: np.random.Generator
) -> tuple[dict[str, ir.Array], str, float]:
    """One entry moved by a relative 1e-5 to 1, or two rows of one tensor swapped, or a sign."""
    name = str(generator.choice([n for n, w in weights.items() if w.size > 1 and w.any()]))
    array = weights[name].copy()
    kind = str(generator.choice(["entry", "entry", "rows", "sign"]))
    at = int(generator.choice(np.flatnonzero(array)))
    size = 10 ** generator.uniform(-5, 0)
    if kind == "rows" and array.ndim > 1 and array.shape[0] > 1:
        i, j = generator.choice(array.shape[0], 2, replace=False)
        array[[i, j]] = array[[j, i]]
    elif kind == "sign":
        array.flat[at] *= -1
    else:
        array.flat[at] *= 1 + size
    return {**weights, name: array}, f"{kind} of {name}", size


def runs(source: Source, weights: dict[str, ir.Array]) -> Any:
    return source.runner(rescale_torch(source.model, weights), "cpu")


def trial(source: Source, seed: int) -> None:
    generator = np.random.default_rng(seed)
    traced = source.network
    weights = equivalent_weights(traced, seed, generator.uniform(0, 3), bool(generator.integers(2)))
    original = source.runner(source.model, "cpu")
    inputs = battery(traced, source.example, draws=2)
    copied = attempt(traced, replace(traced, weights=weights))
    assert copied.proof is not None or copied.identical, (seed, traced.name, copied.note)
    assert measure(original, runs(source, weights), inputs).agrees, (seed, traced.name)
    wrong, what, size = perturbed(weights, generator)
    found = attempt(traced, replace(traced, weights=wrong))
    if found.proof is not None or found.identical:  # then the function must be the same all the same
        assert measure(original, runs(source, wrong), battery(traced, source.example, draws=8)).agrees, (
            seed, what, size,
        )  # fmt: skip


@pytest.mark.parametrize("first", range(0, 48, 12))
def test_random_pairs(sources: list[Source], first: int) -> None:
    for seed in range(first, first + 12):
        trial(sources[seed % len(sources)], seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(48, 648, 60))
def test_many_random_pairs(sources: list[Source], first: int) -> None:
    for seed in range(first, first + 60):
        trial(sources[seed % len(sources)], seed)


def test_the_fuzz_sees_a_checker_that_proves_too_much(
    sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphnorm.proof.prove.SLACK", 1e9)
    failed = 0
    for seed in range(12):
        try:
            trial(sources[seed % len(sources)], seed)
        except AssertionError:
            failed += 1
    assert failed
