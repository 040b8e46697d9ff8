"""The layer at which two models differ: in place, with norms, pure factors, arguments and constants."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import graphnorm


class Net(nn.Module):
    def __init__(self, inplace: bool, norm: nn.Module, slope: float = 0.1, factor: float = 2.0) -> None:
        super().__init__()
        self.stem, self.norm, self.mix = nn.Conv1d(3, 4, 3), norm, nn.Conv1d(4, 4, 1)
        self.act, self.last = nn.LeakyReLU(slope, inplace=inplace), nn.Linear(4, 2)
        self.factor, self.inplace = factor, inplace

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.norm(self.stem(x)))
        y = self.mix(h)
        if self.inplace:
            y += h
            y *= self.factor
        else:
            y = (y + h) * self.factor
        return self.last(-y.abs().mean(2))


X = torch.randn(2, 3, 7)
NORMS: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm1d(4),
    "group": lambda: nn.GroupNorm(2, 4),
    "instance": lambda: nn.InstanceNorm1d(4, affine=True),
    "none": nn.Identity,
}


def pair(**changes: float) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    first = Net(False, nn.BatchNorm1d(4)).eval()
    second = Net(False, nn.BatchNorm1d(4), **changes).eval()
    second.load_state_dict(first.state_dict())
    return first, second


@pytest.mark.parametrize("inplace", [True, False], ids=["in place", "functional"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("changed", ["stem.weight", "norm.bias", "mix.bias", "last.weight"])
def test_changed_weights(changed: str, norm: str, inplace: bool) -> None:
    first = Net(inplace, NORMS[norm]()).eval()
    second = copy.deepcopy(first)
    if changed not in dict(second.named_parameters()):
        changed = "stem.bias"
    with torch.no_grad():
        second.get_parameter(changed).view(-1)[0] += 0.5
    report = graphnorm.check(first, second, X, seconds=1)
    assert report.verdict == "differs"
    assert changed.split(".")[0] in report.layer.split(" (")[0].split(), report.layer


def test_slope_and_factor() -> None:
    report = graphnorm.check(*pair(slope=0.4), X, seconds=1)
    assert (report.verdict, report.layer.split(" (")[0]) == ("differs", "LeakyRelu act")
    assert "LeakyRelu act differ in their alpha (0.1" in report.note
    report = graphnorm.check(*pair(factor=3.0), X, seconds=1)
    assert (report.verdict, report.layer.split()[0]) == ("differs", "Mul")
    assert report.note


@pytest.mark.parametrize("slope", [0.01, 0.5])
def test_slope_where_all_is_negative(slope: float) -> None:
    """There it is one factor for all entries, which a rescaled layer might have as well."""

    class Negative(nn.Module):
        def __init__(self, slope: float) -> None:
            super().__init__()
            self.first, self.act, self.last = nn.Linear(3, 4), nn.LeakyReLU(slope), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.act(-self.first(x).abs()))

    first, second = Negative(0.1), Negative(slope)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():  # rescaled beforehand: they do not differ at that layer
        second.first.weight.mul_(4)
        second.first.bias.mul_(4)
        second.last.weight.div_(4)
    report = graphnorm.check(first, second, torch.randn(5, 3), seconds=1)
    assert report.verdict == "differs"
    assert report.layer.split(" (")[0] == "LeakyRelu act"


def test_no_layer_where_nothing_parts() -> None:
    first, _ = pair()
    second = graphnorm.canonicalize(first, X).model
    report = graphnorm.check(first, second, X, layers=True)
    assert report.verdict == "proved"
    assert report.layers
    assert report.layer == ""
