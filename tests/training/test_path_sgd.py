"""Path-SGD: its coefficients are sums over paths, and training does not see rescalings."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import graphnorm
from graphnorm.errors import InputError
from graphnorm.weights.coefficients import rescale
from tests.support.training_cases import build, images, worst


def mlp() -> Any:
    torch.manual_seed(2)
    model: Any = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)
    ).double()
    for layer in (model[0], model[2], model[4]):
        nn.init.kaiming_normal_(layer.weight)
        nn.init.uniform_(layer.bias, 0.1, 0.3)
    return model


def test_coefficients_are_sums_over_paths() -> None:
    model = mlp()
    found = graphnorm.PathSGD(model, torch.randn(1, 3).double()).path_coefficients()
    one, two, three = (model[i].weight.detach().numpy() ** 2 for i in (0, 2, 4))
    bias = model[0].bias.detach().numpy() ** 2
    expected = np.zeros((4, 4))  # of the middle weight (b, a): paths i -> a -> b -> o, and bias a -> b -> o
    for a, b, o in itertools.product(range(4), range(4), range(2)):
        for start in (*(one[a, i] for i in range(3)), bias[a]):
            expected[b, a] += start * three[o, b]
    np.testing.assert_allclose(found["2.weight"].numpy(), expected, rtol=1e-12)
    assert two.shape == (4, 4)


def rescaled(model: nn.Module, x: torch.Tensor) -> nn.Module:
    graph = graphnorm.trace(model, x)
    z = np.random.default_rng(1).normal(size=graph.solution.count)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, array in rescale(graph, z).weights.items():
            other.get_parameter(name).copy_(torch.from_numpy(np.array(array)))
    return other


@pytest.mark.parametrize("name", ["mlp", "cifar_nv", "resnet18_c"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_function_takes_the_same_way_from_a_rescaled_start(name: str, momentum: float) -> None:
    model = mlp() if name == "mlp" else build(name)
    x = torch.randn(5, 3).double() if name == "mlp" else images(2).double()
    other = rescaled(model, x)
    assert worst([other(x)], [model(x)]) < 1e-10
    assert (
        max(float((p / q).abs().max()) for p, q in zip(model.parameters(), other.parameters(), strict=True))
        > 2
    )
    rates = [graphnorm.PathSGD(net, x, lr=1e-2, momentum=momentum) for net in (model, other)]
    first = model(x).detach()
    for _ in range(5):
        for net, optimizer in zip((model, other), rates, strict=True):
            optimizer.zero_grad()
            (-net(x).log_softmax(1)[:, 0].mean()).backward()
            optimizer.step()
        assert worst([other(x)], [model(x)]) < 1e-8
    assert worst([model(x)], [first]) > 1e-3  # it did train


def test_plain_sgd_does_see_rescalings() -> None:
    """The test above can fail."""
    model, x = mlp(), torch.randn(5, 3).double()
    other = rescaled(model, x)
    for net in (model, other):
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
        (-net(x).log_softmax(1)[:, 0].mean()).backward()
        optimizer.step()
    assert worst([other(x)], [model(x)]) > 1e-4


def test_it_lowers_the_loss_and_goes_with_enorm() -> None:
    model, x = mlp(), torch.randn(16, 3).double()
    y = (x.sum(1) > 0).long()
    optimizer = graphnorm.PathSGD(model, x, lr=0.1, momentum=0.5)
    enorm = graphnorm.ENorm(model, optimizer, x)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss: Any = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        enorm.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_units_without_a_path_stay() -> None:
    model, x = mlp(), torch.randn(5, 3).double()
    with torch.no_grad():
        model[4].weight[:, 1] = 0.0
    start = model[2].weight.detach().clone()
    optimizer = graphnorm.PathSGD(model, x, lr=0.1)
    model(x).square().mean().backward()
    optimizer.step()
    assert torch.equal(model[2].weight[1], start[1])
    assert not torch.equal(model[2].weight[0], start[0])
    assert all(p.isfinite().all() for p in model.parameters())


class Difference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x) - self.two(x)


def test_networks_without_paths_are_refused() -> None:
    with pytest.raises(InputError, match=r"BatchNormalization .* has no path coefficients"):
        graphnorm.PathSGD(build("resnet18_bn"), images(2).double())
    with pytest.raises(InputError, match=r"'two.weight' has negative path coefficients"):
        graphnorm.PathSGD(Difference(), torch.randn(1, 3))


@pytest.mark.parametrize(
    "activation", [nn.ReLU6(), nn.Tanh(), nn.Softmax(1)], ids=lambda one: type(one).__name__
)
def test_activations_without_paths_are_refused(activation: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 2))
    with pytest.raises(InputError, match=r"has no path coefficients"):
        graphnorm.PathSGD(model, torch.randn(1, 3))


def test_activations_with_paths_are_taken() -> None:
    for activation in (nn.LeakyReLU(), nn.PReLU(), nn.Hardtanh(0, float("inf")), nn.Dropout()):
        graphnorm.PathSGD(nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 2)), torch.randn(1, 3))


def test_closures_and_fewer_coefficients() -> None:
    model, x = mlp(), torch.randn(5, 3).double()
    optimizer = graphnorm.PathSGD(model, x, lr=0.01, weight_decay=1e-2, every=2)

    def closure() -> float:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return float(loss.detach())

    losses = [optimizer.step(closure) for _ in range(6)]
    assert losses[-1] is not None
    assert losses[0] is not None
    assert losses[-1] < losses[0]
