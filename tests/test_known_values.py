"""What is known when a network is read gives freedom: exponents, masks, places, axes that are not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import graphnorm
from graphnorm.training.symmetry import find_symmetries
from tests.support.networks.common import Function, linear, parameter

POWERS = torch.tensor([1.0, 2.0, 3.0, 0.5])
MASK = torch.tensor([[True, False, True], [False, True, False]])


def powers(moved: Callable[[Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    return lambda s, x: s.b(F.relu(s.a(x)) ** moved(s.k))


def with_buffer(forward: Callable[[Any, Tensor], Tensor], k: Tensor, **parts: Any) -> nn.Module:
    net = Function(forward, **parts)
    net.register_buffer("k", k)
    return net


def layers(hidden: int) -> dict[str, nn.Module]:
    return {"a": linear(3, hidden), "b": linear(hidden, 2)}


def written(s: Any, x: Tensor) -> Tensor:
    h = torch.zeros(len(x), 2, 3, dtype=x.dtype)
    h[:, s.k] = F.relu(s.a(x))
    h[:, ~s.k] = F.relu(s.c(x))
    return s.b(h.flatten(1))


def extrema(s: Any, x: Tensor) -> Tensor:
    """A product of scalars through operators along an axis that a scalar doesn't have."""
    h = F.relu(s.a(x)).sum() * s.w
    h = h.max(0).values + h.sort().values + h.topk(1).values + h.kthvalue(1).values
    return torch.aminmax(h, dim=0).max.sum(0) * s.v * x


CASES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "exponents in a buffer": (lambda: with_buffer(powers(lambda k: k), POWERS.clone(), **layers(4)), 4),
    "exponents of another shape": (
        lambda: with_buffer(powers(lambda k: k.view(1, 2, 2).transpose(1, 2).reshape(-1)), POWERS.clone(),
                            **layers(4)), 4,
    ),
    "some exponents": (lambda: with_buffer(powers(lambda k: k[1:]), POWERS.clone(), **layers(3)), 3),
    "an exponent of 0": (
        lambda: with_buffer(powers(lambda k: k), torch.tensor([0.0, 1.0, 2.0, 0.0]), **layers(4)), 2
    ),
    "no simple fraction": (
        lambda: with_buffer(powers(lambda k: k), torch.tensor([0.37182, 1.0, 2.0, 1.0]), **layers(4)), 0
    ),
    "exponents that are rescaled, too": (
        lambda: Function(
            lambda s, x: s.b(F.relu(s.a(x)) ** s.k) + (x[:, :1] * s.k).sum(1, keepdim=True),
            k=nn.Parameter(torch.rand(4) + 0.5), **layers(4),
        ),
        0,
    ),
    "written through a mask": (lambda: with_buffer(written, MASK.clone(), a=linear(3, 3), c=linear(3, 3),
                                                   b=linear(6, 2)), 6),
    "extrema of a scalar": (
        lambda: Function(extrema, a=linear(3, 1, False), w=parameter(), v=parameter()), 2
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_dimension_and_function(name: str) -> None:
    torch.manual_seed(0)
    kind, dimension = CASES[name]
    net, x = kind().double(), torch.randn(4, 3).double()
    with torch.no_grad():
        for parameter_ in net.parameters():
            parameter_.mul_(1 + torch.rand_like(parameter_))
    result = graphnorm.canonicalize(net, x)
    assert result.graph.dimension == dimension
    assert not any("defect" in remark for remark in result.report.remarks)
    assert torch.allclose(result.model(x), net(x), rtol=1e-9, atol=1e-10, equal_nan=True)
    if "k" in dict(net.named_buffers()):
        assert torch.equal(dict(result.model.named_buffers())["k"], dict(net.named_buffers())["k"])


def test_exponents_that_are_trained_give_enorm_no_freedom() -> None:
    """A buffer stays what it is between two steps, a parameter does not."""
    torch.manual_seed(0)
    x = torch.randn(4, 3)
    held = with_buffer(powers(lambda k: k), POWERS.clone(), **layers(4))
    trained = Function(powers(lambda k: k), k=nn.Parameter(POWERS.clone()), **layers(4))
    assert find_symmetries(held, x).count == 4
    assert find_symmetries(trained, x).count == 0
    assert graphnorm.trace(trained, x).dimension == 4  # here the result keeps them
    frozen = Function(powers(lambda k: k), k=nn.Parameter(POWERS.clone(), requires_grad=False), **layers(4))
    assert find_symmetries(frozen, x).count == 4
