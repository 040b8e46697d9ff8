"""Small networks, six inputs to three outputs, each with something that could trap a rescaling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune


def chain(*between: nn.Module) -> Any:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), *between, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


class Net(nn.Module):
    """Layers of width 8 under names, and a forward function."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def parametrised() -> nn.Module:
    model = chain()
    parametrizations.weight_norm(model[0])
    parametrizations.spectral_norm(model[2])
    return model


def pruned() -> nn.Module:
    model = chain()
    prune.l1_unstructured(model[2], "weight", 0.5)  # type: ignore[no-untyped-call]
    return model


def tied() -> nn.Module:
    model = chain(nn.Linear(8, 8), nn.ReLU())
    model[2].weight = model[4].weight
    return model


def tied_memory() -> nn.Module:
    model = chain(nn.Linear(8, 8), nn.ReLU())
    model[2].weight.data = model[4].weight.data
    return model


def tied_transposed() -> nn.Module:
    return Net(
        lambda m, x: functional.linear(m.b(m.a(x).relu()).relu(), m.a.weight.t()),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 8),
    )


def counted_batches() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8, momentum=None), nn.ReLU(),
        nn.Linear(8, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.ReLU(),
        nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


def noise() -> nn.Module:
    """Random numbers in training: half a skip branch is dropped, and activations are."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.drop(m.a(x).relu())
        z = m.b(y).relu()
        return m.o(y + (z * (torch.rand(len(x), 1, dtype=x.dtype) > 0.5) if m.training else z))

    return Net(forward, a=nn.Linear(6, 8), b=nn.Linear(8, 8), o=nn.Linear(8, 3), drop=nn.Dropout(0.3))


class Statistics(nn.Module):
    """A buffer, at first 0, that follows the activations in training."""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.o = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("average", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(x).relu()
        if self.training:
            with torch.no_grad():
                self.average.mul_(0.9).add_(y.mean(0), alpha=0.1)
        out: Tensor = self.o(y - self.average)
        return out


def recurrent() -> nn.Module:
    return Net(
        lambda m, x: m.o(m.h(m.g(m.e(x[:, None]).relu())[0][:, -1]).relu()),
        e=nn.Linear(6, 6), g=nn.GRU(6, 8, batch_first=True), h=nn.Linear(8, 8), o=nn.Linear(8, 3),
    )  # fmt: skip


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.2)
    return Net(
        lambda m, x: m.o(m.a(m.e(x.view(-1, 2, 3)).relu()).mean(1)),
        e=nn.Linear(3, 8),
        a=nn.TransformerEncoder(layer, 1),
        o=nn.Linear(8, 3),
    )


class Scalar(nn.Module):
    """A bilinear map, a gain per channel, and a gain without axes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Linear(6, 8), nn.Bilinear(8, 8, 8), nn.Linear(8, 3)
        self.gain, self.scalar = nn.Parameter(torch.ones(8)), nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        return self.o(self.b(y, y).relu() * self.gain * self.scalar)


NETWORKS: list[tuple[Callable[[], nn.Module], bool]] = [
    (parametrised, True), (pruned, True), (tied, True), (tied_memory, True), (tied_transposed, True),
    (counted_batches, True), (noise, True), (Statistics, False), (recurrent, True), (transformer, True),
    (Scalar, True),
]  # fmt: skip
