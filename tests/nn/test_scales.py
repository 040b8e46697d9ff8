"""Rescalings of EquiNorm layers (docs/equinorm.md): derived, found by the rules, confirmed by the oracle.

Per group g: xi_g, the scale of all its input channels; tau_g, that of its running statistics.  Per output
channel d: a_d, the scale of its kernel; u_d, that of the output.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.nn import EquiNormConv1d, EquiNormConv2d, EquiNormLinear
from graphnorm.weights.coefficients import rescale
from tests.support import oracle
from tests.support.networks.common import IMAGE, ROWS

OPTIONS: dict[str, dict[str, Any]] = {
    "two_pass": {},
    "one_pass": {"one_pass": True},
    "untracked": {"track_running_stats": False},
    "signed": {"signed_inputs": True},
    "part": {"stats_fraction": 0.5},
    "padded": {"padding": 1, "stride": 2},
    "circular": {"padding": 1, "padding_mode": "circular"},
}


def network(groups: int = 1, **options: Any) -> nn.Sequential:
    """The EquiNorm layer between plain convolutions, with a ReLU on each side."""
    layer = EquiNormConv2d(4, 4, 2, groups=groups, **options)
    return nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), layer, nn.ReLU(), nn.Conv2d(4, 1, 1)).double()


def image() -> Tensor:
    return IMAGE(torch.Generator().manual_seed(0))[0]


def fixed(model: nn.Module) -> nn.Module:
    """The same with running statistics that are no part of what may be rescaled, and stay what they are."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if getattr(module, "running_v", None) is not None:
            v = module._buffers.pop("running_v")
            object.__setattr__(module, "running_v", v)
            module._track = lambda *_: None  # type: ignore[assignment]
    return model


class Positive(EquiNormConv2d):
    """Running statistics as training leaves them, whatever the oracle draws."""

    def normalized_weight(self, v: Tensor | None = None) -> Tensor:
        return super().normalized_weight(self.running_v.abs() if v is None else v)  # type: ignore[union-attr]


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_evaluation_keeps_kernels_outputs_and_uniform_inputs(options: dict[str, Any], groups: int) -> None:
    model = network(groups, **options).eval()
    dimension = graphnorm.trace(model, image()).dimension
    assert dimension == 4 + 4 + groups  # a_d, u_d, xi_g
    assert dimension == oracle.nullity(fixed(model), IMAGE)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_running_statistics_could_move_too(groups: int) -> None:
    """tau_g exists where statistics are positive; the rules leave it out, see `equilibrium.seen`."""
    model = network(groups).eval()
    dimension = graphnorm.trace(model, image()).dimension
    model[2] = Positive(4, 4, 2, groups=groups)
    assert oracle.nullity(model.eval(), IMAGE) == dimension + groups


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_training_keeps_the_same(options: dict[str, Any], groups: int) -> None:
    model = network(groups, **options).train()
    dimension = graphnorm.trace(copy.deepcopy(model), image()).dimension
    tracked = options.get("track_running_stats", True)
    assert dimension == 4 + 4 + (0 if tracked else groups)  # the running statistics hold xi_g
    assert oracle.nullity(fixed(model), IMAGE) == 4 + 4 + groups


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_without_affine_outputs_follow_inputs(groups: int, training: bool) -> None:
    model = network(groups, affine=False, track_running_stats=False).train(training)
    dimension = graphnorm.trace(model, image()).dimension
    assert dimension == 4 + groups  # statistics of the batch: a_d, xi_g
    assert dimension == oracle.nullity(model, IMAGE)
    evaluated = network(groups, affine=False).eval()
    dimension = graphnorm.trace(evaluated, image()).dimension
    assert dimension == 4 + groups  # a_d, and u = xi
    assert dimension == oracle.nullity(fixed(evaluated), IMAGE)


@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_linear_layers(training: bool, one_pass: bool) -> None:
    layer = EquiNormLinear(4, 3, one_pass=one_pass, track_running_stats=not training)
    model = (
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), layer, nn.ReLU(), nn.Linear(3, 2)).double().train(training)
    )
    dimension = graphnorm.trace(model, *ROWS(torch.Generator())).dimension
    assert dimension == 3 + 3 + 1
    assert dimension == oracle.nullity(fixed(model), ROWS)


class Residual(nn.Module):
    """A block of EquiNorm layers between plain ones: one trunk, one scale for all of its channels."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(2, 3, 1), nn.Linear(3, 2)
        self.first, self.second = (EquiNormConv2d(3, 3, 2, padding="same", **options) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.second(torch.relu(self.first(x))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("training", [True, False])
def test_residual_trunks(training: bool) -> None:
    model = Residual(track_running_stats=not training).double().train(training)
    dimension = graphnorm.trace(model, image()).dimension
    assert dimension == 3 + 3 + 1 + 1  # kernels; the trunk; between the two layers, where channels are tied
    assert dimension == oracle.nullity(fixed(model), IMAGE)


def test_the_oracle_rejects_a_planted_rule() -> None:
    """Were each input channel free on its own, as before a plain convolution, there would be more."""
    plain = network(track_running_stats=False)
    plain[2] = nn.Conv2d(4, 4, 2).double()
    claimed = graphnorm.trace(plain.eval(), image()).dimension + 4  # and the kernels
    assert claimed > oracle.nullity(network(track_running_stats=False).eval(), IMAGE)


# Random rescalings, canonicalize and check.


def unbalanced(model: Any, seed: int = 0) -> Any:
    """Trained-like: statistics of a batch, gains of different sizes."""
    generator = torch.Generator().manual_seed(seed)
    model.train()(torch.randn(8, 2, 6, 6, dtype=torch.float64, generator=generator))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gain" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator).exp() * 2)
            if "bias" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("one_pass", [True, False])
def test_a_random_rescaling_keeps_outputs_and_statistics(one_pass: bool, training: bool, groups: int) -> None:
    model = unbalanced(network(groups, one_pass=one_pass)).train(training)
    graph = graphnorm.trace(copy.deepcopy(model), image())
    z = 0.5 * np.random.default_rng(0).normal(size=graph.solution.count)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, array in rescale(graph, z).weights.items():
            other.get_parameter(name).copy_(torch.from_numpy(np.array(array)))
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, other.get_parameter(name))]
    assert {"2.weight", "2.gain", "2.bias", "4.weight"} <= set(moved)
    x = torch.randn(3, 2, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(other(x), model(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(other[2].running_v, model[2].running_v, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("mode", "training"), [("optimal", True), ("optimal", False), ("exact", False)])
def test_canonicalize_and_check(mode: str, training: bool) -> None:
    model = unbalanced(network()).float().train(training)
    x = image().float()
    result = graphnorm.canonicalize(model, x, mode=mode)
    assert result.report.verification.verdict == "proved"
    assert result.report.objective["after"] < 0.9 * result.report.objective["before"]
    assert "2.gain" in result.coefficients
    assert "2.running_v" not in result.coefficients
    assert graphnorm.check(model, result.model, x).verdict == "proved"
    wrong = copy.deepcopy(result.model)
    with torch.no_grad():
        wrong.get_parameter("2.weight")[0, 0, 0, 0] *= 1.01
    assert graphnorm.check(model, wrong, x).verdict == "differs"


def test_one_dimensional_layers_canonicalize() -> None:
    layer = EquiNormConv1d(4, 4, 3, padding=1)
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.ReLU(), layer, nn.ReLU(), nn.Conv1d(4, 1, 1)).eval()
    with torch.no_grad():
        layer.gain.copy_(torch.tensor([5.0, 0.2, 1.0, 3.0]))  # type: ignore[union-attr]
    result = graphnorm.canonicalize(model, torch.randn(2, 2, 8))
    assert result.report.verification.verdict == "proved"
    assert result.report.objective["after"] < result.report.objective["before"]
