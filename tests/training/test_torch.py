"""ENorm together with what PyTorch loops use: compile, channels_last, autocast, scalers, clipping."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.errors import InputError
from graphnorm.training.layout import layout_of
from graphnorm.training.parts import Part, Side, whole
from tests.support.training_cases import build, images, momentum, outputs, train_step, worst


def test_channels_last_stays_and_gives_the_same_weights() -> None:
    x = images().double()
    found = []
    for memory in (torch.contiguous_format, torch.channels_last):
        model = build("resnet18_c").to(memory_format=memory)
        optimizer = momentum(model)
        enorm = graphnorm.ENorm(model, optimizer, x)
        for _ in range(2):
            train_step(model, optimizer, x)
            enorm.step()
        assert all(p.is_contiguous(memory_format=memory) for p in model.parameters() if p.dim() == 4)
        found.append([p.detach().contiguous() for p in model.parameters()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_weights_in_any_memory_order() -> None:
    """Transposed memory, and state in another order than its weight."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)
    ).double()
    model[2].weight = nn.Parameter(torch.randn(6, 5).double().t())
    optimizer = momentum(model)
    x = torch.randn(3, 4).double()
    train_step(model, optimizer, x)
    optimizer.state[model[0].weight]["momentum_buffer"] = torch.randn(4, 6).double().t()
    product = model[0].weight.detach() * optimizer.state[model[0].weight]["momentum_buffer"]
    before = outputs(model, x)
    graphnorm.ENorm(model, optimizer, x).step()
    assert worst(outputs(model, x), before) < 1e-12
    torch.testing.assert_close(model[0].weight * optimizer.state[model[0].weight]["momentum_buffer"], product)


@pytest.mark.parametrize(
    "axes", [((0,), (1,)), ((1,), (0,)), ((0,), (2,)), ((1,), (0, 2)), ((2,), ()), ((0, 2), (1,))]
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_layouts_multiply_what_they_should(
    axes: tuple[tuple[int, ...], tuple[int, ...]], order: tuple[int, ...]
) -> None:
    import numpy as np

    shape = (3, 4, 5)
    tensor = torch.zeros([shape[a] for a in order]).permute([order.index(a) for a in range(3)])
    sides = []
    for which in axes:
        size = [n if a in which else 1 for a, n in enumerate(shape)]
        sides.append(Side(which, np.random.default_rng(0).integers(1, 99, size)))
    part = Part("w", whole(shape), tuple(sides[: 1 + bool(axes[1])]), True, 0)
    layout = layout_of(part, tensor)
    view = layout.view(tensor)
    view += torch.from_numpy(layout.rows).view(layout.row_shape)
    view += torch.from_numpy(layout.columns).view(layout.column_shape)
    expected = sides[0].forms + (sides[1].forms if axes[1] else 0)
    assert np.array_equal(tensor.numpy(), np.broadcast_to(expected, shape))


def test_compiled_models_are_looked_through() -> None:
    x = torch.randn(4, 6)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model: Any = torch.compile(plain, backend="aot_eager")
    optimizer = momentum(plain)
    enorm = graphnorm.ENorm(model, optimizer, x)
    for _ in range(3):
        train_step(model, optimizer, x)
        before = model(x).detach()
        enorm.step()
        torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-6)


def test_autocast_and_a_gradient_scaler_with_skipped_steps() -> None:
    x = images()
    model = build("cifar_nv", torch.float32)
    optimizer = momentum(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=2)
    enorm = graphnorm.ENorm(model, optimizer, x)
    scales = []
    for step in range(6):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(x).float().log_softmax(1)[:, 0].mean()
            scaler.scale(loss).backward()
            if step == 2:
                next(model.parameters()).grad.fill_(float("inf"))
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            before = outputs(copy.deepcopy(model).double(), x.double())
            enorm.step()  # inside autocast: must not run in bfloat16
        assert worst(outputs(copy.deepcopy(model).double(), x.double()), before) < 1e-5
        scales.append(scaler.get_scale())
    assert scales[2] < scales[1]


@pytest.mark.parametrize(("dtype", "exact"), [(torch.bfloat16, False), (torch.float32, True)])
@pytest.mark.parametrize("cycles", [1, 3])
def test_powers_of_two_keep_every_bit(dtype: torch.dtype, exact: bool, cycles: int) -> None:
    """bfloat16 weights always, others when asked: the outputs are the same bits."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
    ).to(dtype)
    with torch.no_grad():
        model[0].weight.mul_(50)
    x = torch.randn(3, 8, dtype=dtype)
    optimizer = momentum(model)
    train_step(model, optimizer, x)
    start, before = [p.detach().double() for p in model.parameters()], outputs(model, x)
    enorm = graphnorm.ENorm(model, optimizer, x, exact=exact, cycles=cycles)
    energy = enorm.energy()
    enorm.step()
    moved = 0
    for p, old in zip(model.parameters(), start, strict=True):
        mantissa, exponent = torch.frexp(p.detach().double() / old)
        assert bool((mantissa == 0.5).all())
        moved += int((exponent != 1).sum())
    assert moved > 10
    assert enorm.energy() < energy
    assert all(torch.equal(a, b) for a, b in zip(outputs(model, x), before, strict=True))


def test_powers_of_two_stay_within_a_bound() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].weight.mul_(1e6)
    start = model[0].weight.detach().clone()
    graphnorm.ENorm(model, momentum(model), torch.randn(3, 4), max_coefficient=7.0, exact=True).step()
    assert torch.equal(model[0].weight, start / 4)


def test_float16_weights_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    enorm = graphnorm.ENorm(model, momentum(model), torch.randn(3, 4))
    model.half()
    with pytest.raises(InputError, match=r"'0.weight', its gradient or its state is float16"):
        enorm.step()


def test_every_counts_calls() -> None:
    model = build("fc15")
    enorm = graphnorm.ENorm(model, momentum(model), images().double(), every=3)
    energies = []
    for _ in range(6):
        enorm.step()
        energies.append(enorm.energy())
    assert energies[0] == energies[1] > energies[2] == energies[3] == energies[4] > energies[5]


def test_tied_weights_and_twice_used_modules() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 6, bias=False)
            self.last.weight = nn.Parameter(self.first.weight.detach().t().clone())
            self.again = self.middle

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.first(x))
            return self.last(torch.relu(self.again(torch.relu(self.middle(y)))))

    torch.manual_seed(0)
    model = Tied().double()
    x = torch.randn(3, 6).double()
    optimizer = momentum(model)
    enorm = graphnorm.ENorm(model, optimizer, x)
    for _ in range(3):
        train_step(model, optimizer, x)
        before, energy = outputs(model, x), enorm.energy()
        enorm.step()
        assert worst(outputs(model, x), before) < 1e-12
        assert enorm.energy() <= energy * (1 + 1e-12)
