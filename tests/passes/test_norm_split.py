"""Subclasses of BatchNorm with an activation, taken apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import symbolic_trace

from graphnorm.passes.fx import ConvertToEquiNormPass, FoldBatchNormPass, SplitNormPass


class NormAct(nn.BatchNorm2d):
    """As libraries of models write it: the base class's forward, its checks and counters, by hand."""

    def __init__(self, channels: int, act: nn.Module, **options: Any) -> None:
        super().__init__(channels, **options)
        self.drop, self.act = nn.Identity(), act

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.ndim == 4, "expected 4D input")  # type: ignore[no-untyped-call]
        factor = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                factor = 1.0 / float(self.num_batches_tracked)
        batch = self.training or self.running_mean is None
        x = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, batch, factor, self.eps
        )
        y: Tensor = self.act(self.drop(x))
        return y


class Shifted(NormAct):
    """Looks like a row of modules, adds 1."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Wider(NormAct):
    """The right operators with another epsilon."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, 0.1
        )
        y: Tensor = self.act(x)
        return y


class Listing(NormAct):
    """What torch.fx cannot trace."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else x


def network(kind: type[NormAct] = NormAct, **options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), kind(8, nn.LeakyReLU(0.1), **options), nn.Conv2d(8, 4, 3), kind(4, nn.ReLU())
    )
    model(torch.randn(4, 3, 12, 12))  # statistics that are not the initial ones
    return model


def call(made: Any, model: Any) -> Any:
    """Passes take any module; torch's type says GraphModule."""
    return made(model)


@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}]
)
@pytest.mark.parametrize("training", [False, True])
def test_the_same_function_and_statistics(options: dict[str, Any], training: bool) -> None:
    model, split = network(**options).train(training), SplitNormPass()
    found: Any = call(split, model).graph_module
    assert split.replaced == ("1", "3")
    assert not split.skipped
    assert [type(layer) for layer in found[1]] == [nn.BatchNorm2d, nn.Identity, nn.LeakyReLU]
    assert all(module.training is training for module in found.modules())
    x = torch.randn(2, 3, 12, 12)
    assert torch.equal(model(x), found(x))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), found.buffers(), strict=True))


def test_then_batch_norms_fold_and_convert() -> None:
    model, x = network().eval(), torch.randn(2, 3, 12, 12)
    kept = FoldBatchNormPass()
    assert not call(kept, symbolic_trace(model)).modified
    assert all("SplitNormPass" in reason for reason in kept.skipped)
    split = call(SplitNormPass(), model).graph_module
    folded = call(FoldBatchNormPass(), symbolic_trace(split)).graph_module
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert torch.allclose(model(x), folded(x), atol=1e-6)
    convert = ConvertToEquiNormPass(fresh=True)
    call(convert, split)
    assert len(convert.converted) == 2


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Shifted, "more than BatchNorm"), (Wider, "something else"), (Listing, "cannot trace")],
)
def test_what_is_no_row_of_modules_stays(kind: type[NormAct], reason: str) -> None:
    model, split = network(kind), SplitNormPass()
    result = call(split, model)
    assert result.graph_module[1] is model[1]
    assert split.skipped[0].startswith("1: ")
    assert reason in split.skipped[0]


def test_hooks_and_parametrizations_stay() -> None:
    model = network()
    model[1].register_forward_hook(lambda *_: None)
    nn.utils.parametrize.register_parametrization(model[3], "weight", nn.Softplus())
    split = SplitNormPass()
    assert not call(split, model).modified
    assert split.skipped == ("1: it has hooks", "3: it is parametrized")
