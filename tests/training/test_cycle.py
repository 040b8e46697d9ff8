"""The descent is that of the paper: its cycle, its norm, its fixed point."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

import graphnorm
from tests.support.training_cases import build, images, momentum


def reference_cycle(model: nn.Sequential, c: float, p: float) -> None:
    """Algorithm 1 of the paper, layer by layer, with d = sqrt(R / (c L))."""
    layers = [m for m in model if isinstance(m, nn.Linear)]
    with torch.no_grad():
        for one, two in itertools.pairwise(layers):
            left = one.weight.abs().pow(p).sum(dim=1) ** (1 / p)
            right = two.weight.abs().pow(p).sum(dim=0) ** (1 / p)
            d = torch.sqrt(right / (c * left))
            one.weight *= d[:, None]
            one.bias.mul_(d)
            two.weight /= d


@pytest.mark.parametrize(("p", "c"), [(2.0, 1.0), (2.0, 1.2), (1.0, 1.0), (3.0, 1.1)])
@pytest.mark.parametrize("cycles", [1, 3])
def test_a_cycle_is_the_papers(p: float, c: float, cycles: int) -> None:
    model = build("fc15")
    other = copy.deepcopy(model)
    graphnorm.ENorm(model, momentum(model), images().double(), p=p, c=c, cycles=cycles).step()
    assert isinstance(other, nn.Sequential)
    for _ in range(cycles):
        reference_cycle(other, c, p)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_p_counts_for_convolutions() -> None:
    results = []
    for p in (1.0, 2.0):
        model = build("cifar_nv")
        enorm = graphnorm.ENorm(model, momentum(model), images().double(), p=p, cycles=300)
        enorm.step()
        model2 = copy.deepcopy(model)
        enorm.step()
        for one, two in zip(model.parameters(), model2.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-9)  # the fixed point
        first, second = model.features[0].weight, model.features[2].weight
        into = first.abs().pow(p).sum(dim=(1, 2, 3))
        out = second.abs().pow(p).sum(dim=(0, 2, 3))
        torch.testing.assert_close(into, out, rtol=1e-5, atol=0)
        results.append(first)
    assert not torch.allclose(results[0], results[1])


def test_the_last_hidden_layer_is_balanced() -> None:
    model = build("fc15")
    graphnorm.ENorm(model, momentum(model), images().double(), cycles=800).step()
    torch.testing.assert_close(
        model[-3].weight.square().sum(1),
        model[-1].weight.square().sum(0),
        rtol=1e-5,
        atol=0,
    )


def test_colours_and_layers_have_the_same_fixed_point() -> None:
    found = []
    for order in ("layers", "colours"):
        model = build("resnet18_c")
        enorm = graphnorm.ENorm(model, momentum(model), images().double(), order=order, cycles=400)
        enorm.step()
        found.append(enorm.energy())
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert len(enorm._compile().cycle.stages) <= 6
