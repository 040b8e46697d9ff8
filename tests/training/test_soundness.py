"""Networks and loops that could make a step change the function: none may, and none silently."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

import graphnorm
from graphnorm.errors import InputError
from tests.support.training_cases import momentum, worst
from tests.support.training_traps import NETWORKS, Net, chain, counted_batches, pruned, tied


def both_modes(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Outputs in training and evaluation mode under one seed; buffers stay."""
    found = []
    buffers = [buffer.clone() for buffer in model.buffers()]
    for mode in (True, False):
        torch.manual_seed(7)
        with torch.no_grad():
            found.append(model.train(mode)(x).clone())
            for buffer, value in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(value)
    model.train()
    return found


@pytest.mark.parametrize(("make", "moves"), NETWORKS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_function_is_kept(make: Callable[[], nn.Module], moves: bool) -> None:
    torch.manual_seed(0)
    model, x = make().double().train(), torch.randn(4, 6).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)
    state, random = copy.deepcopy(dict(model.state_dict())), torch.get_rng_state()
    enorm = graphnorm.ENorm(model, optimizer, x)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert bool(enorm.symmetries.count) == moves
    for _ in range(3):
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        before = both_modes(model, x)
        enorm.step()
        assert worst(both_modes(model, x), before) < 1e-10


def test_masks_stay_masks() -> None:
    torch.manual_seed(0)
    model, x = pruned().double(), torch.randn(4, 6).double()
    mask = dict(model.named_buffers())["2.weight_mask"].clone()
    enorm = graphnorm.ENorm(model, momentum(model), x)
    enorm.step()
    assert torch.equal(dict(model.named_buffers())["2.weight_mask"], mask)
    assert "2.weight_orig" in enorm.symmetries.shapes


def test_the_cumulative_average_stays_cumulative() -> None:
    model = counted_batches()
    graphnorm.ENorm(model, momentum(model), torch.randn(4, 6))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    assert [norm.momentum for norm in norms] == [None, 0.1, 0.1]


def test_replaced_modules_are_noticed() -> None:
    model = chain()
    enorm = graphnorm.ENorm(model, momentum(model), torch.randn(2, 6))
    model[4] = nn.Linear(8, 3)
    with pytest.raises(InputError, match="modules were added, removed or replaced"):
        enorm.step()
    model = chain()
    enorm = graphnorm.ENorm(model, momentum(model), torch.randn(2, 6))
    parametrizations.weight_norm(model[0])
    with pytest.raises(InputError, match="modules were added, removed or replaced"):
        enorm.step()


def test_weights_tied_afterwards_are_noticed() -> None:
    model = chain(nn.Linear(8, 8), nn.ReLU())
    enorm = graphnorm.ENorm(model, momentum(model), torch.randn(2, 6))
    model[4].weight = model[2].weight
    with pytest.raises(InputError, match=r"'4.weight' and '2.weight' share memory"):
        enorm.step()


def test_assigned_state_is_noticed() -> None:
    model = chain()
    enorm = graphnorm.ENorm(model, momentum(model), torch.randn(2, 6))
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    with pytest.raises(InputError, match="is not the one that was given to the optimizer"):
        enorm.step()


def test_weights_that_move_in_memory_are_followed() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)
    ).double()
    x = torch.randn(2, 3, 9, 9).double()
    enorm = graphnorm.ENorm(model, momentum(model), x)
    before = both_modes(model, x)
    enorm.step()
    model.to(memory_format=torch.channels_last)
    enorm.step()
    model[2].weight.data = model[2].weight.data.clone()
    enorm.step()
    other = model[2].weight.data.permute(1, 0, 2, 3)  # the same memory, seen otherwise
    expected = both_modes(model, x)
    assert worst(expected, before) < 1e-12
    model[2].weight.data = other
    before = both_modes(model, x)
    enorm.step()
    assert worst(both_modes(model, x), before) < 1e-12


def test_a_weight_in_two_optimizers_moves_the_state_of_both() -> None:
    torch.manual_seed(0)
    model, x = chain().double(), torch.randn(4, 6).double()
    optimizers = [momentum(model), torch.optim.Adam(model.parameters())]
    model(x).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()
    model.zero_grad()
    weight = model[0].weight
    states = [optimizers[0].state[weight]["momentum_buffer"], optimizers[1].state[weight]["exp_avg"]]
    products = [weight.detach() * state for state in states]
    enorm = graphnorm.ENorm(model, optimizers, x)
    start = weight.detach().clone()
    enorm.step()
    assert not torch.allclose(weight, start)
    for state, product in zip(states, products, strict=True):
        torch.testing.assert_close(weight * state, product)


def test_state_that_cannot_follow_is_an_error() -> None:
    x = torch.randn(4, 6)
    model = chain()
    optimizer = momentum(model)
    optimizer.state[model[0].weight]["momentum_buffer"] = [torch.zeros(8, 6)]
    with pytest.raises(InputError, match=r"state 'momentum_buffer' of '0.weight' is a list"):
        graphnorm.ENorm(model, optimizer, x).step()
    optimizer = momentum(model)
    state: Any = optimizer.state
    state["all"] = {"curvature": torch.zeros(3)}
    with pytest.raises(InputError, match="state tensors are kept under 'all'"):
        graphnorm.ENorm(model, optimizer, x).step()


def test_sparse_gradients_are_an_error_until_they_are_used() -> None:
    model = Net(lambda m, x: m.o(m.e(x).relu()), e=nn.Embedding(5, 8, sparse=True), o=nn.Linear(8, 3))
    x = torch.tensor([0, 2, 2])
    dense = torch.optim.SGD(model.o.parameters(), lr=0.1)  # type: ignore[union-attr]
    optimizers = [torch.optim.SparseAdam(model.e.parameters()), dense]  # type: ignore[union-attr]
    enorm = graphnorm.ENorm(model, optimizers, x)
    model(x).square().mean().backward()
    with pytest.raises(InputError, match=r"of 'e.weight' is torch.sparse_coo"):
        enorm.step()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    before = both_modes(model, x)
    enorm.step()
    assert worst(both_modes(model, x), before) < 1e-5


def test_copies_that_share_memory_or_tie_otherwise_are_errors() -> None:
    torch.manual_seed(0)
    model, x = tied().double(), torch.randn(4, 6).double()
    enorm = graphnorm.ENorm(model, momentum(model), x)
    with pytest.raises(InputError, match="shares its memory with a weight that moves"):
        enorm.register_copy(model)
    average = AveragedModel(model)
    enorm.register_copy(average)
    with pytest.raises(InputError, match="shares its memory with a weight that moves"):
        enorm.register_copy(average)
    other: Any = copy.deepcopy(model)
    other[2].weight = nn.Parameter(other[2].weight.detach().clone())
    with pytest.raises(InputError, match="does not tie the same weights"):
        enorm.register_copy(other)
    before = both_modes(average.module, x)
    enorm.step()
    assert worst(both_modes(average.module, x), before) < 1e-10
