"""`ENorm.step` changes all or nothing, and the documented way to shard runs as written."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.errors import InputError
from tests.support.paths import ROOT

DOCS = ROOT / "docs" / "training.md"


def trained() -> tuple[Any, torch.optim.Optimizer, Tensor]:
    model: Any = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    model[1].eval()
    optimizer, x = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), torch.randn(5, 4)
    model(x).square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        model[3].weight.mul_(7)
    return model, optimizer, x


def all_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Copies of everything that a step multiplies and can be copied."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    found = [*model.parameters(), *model.buffers(), *gradients]
    for state in optimizer.state.values():
        found += [value for value in state.values() if isinstance(value, Tensor)]
    return [tensor.detach().clone().to_dense() for tensor in found if not tensor.is_meta]


State = dict[str, Tensor]


def elsewhere(model: Any, state: State) -> None:
    state["momentum_buffer"] = state["momentum_buffer"].to("meta")


def buffer_elsewhere(model: Any, state: State) -> None:
    model[1].running_mean = model[1].running_mean.to("meta")


def cut_buffer(model: Any, state: State) -> None:
    model[1].running_mean = model[1].running_mean[:3].clone()


def cut_weight(model: Any, state: State) -> None:
    model[0].bias.data = model[0].bias.data[:1].clone()


def resized_weight(model: Any, state: State) -> None:
    model[3].weight.data = model[3].weight.data[:, :4]


def expanded_buffer(model: Any, state: State) -> None:
    model[1].running_mean = torch.zeros(1).expand(6)


def expanded_state(model: Any, state: State) -> None:
    state["momentum_buffer"] = torch.zeros(()).expand(2, 6)


def cut_state(model: Any, state: State) -> None:
    state["momentum_buffer"] = torch.zeros(6)


def inference_state(model: Any, state: State) -> None:
    with torch.inference_mode():
        state["momentum_buffer"] = torch.zeros(2, 6)


def sparse_state(model: Any, state: State) -> None:
    state["momentum_buffer"] = torch.zeros(2, 6).to_sparse()


def shared(model: Any, state: State) -> None:
    model[1].running_mean.data = model[0].bias.data


SPOILED: dict[Callable[[Any, State], None], str] = {
    elsewhere: r"'3.weight', its gradient or its state is on meta, others on cpu: ENorm works on one device",
    buffer_elsewhere: r"'1.running_mean', .* is on meta",
    cut_buffer: r"'1.running_mean', .* has shape \(3,\), the weight had \(6,\) when the network was traced",
    cut_weight: r"state 'momentum_buffer' of '0.bias' is .*, its weight \(1,\)",
    resized_weight: r"state 'momentum_buffer' of '3.weight' is .*, its weight \(2, 4\)",
    expanded_buffer: r"'1.running_mean', .* is an expanded tensor",
    expanded_state: r"'3.weight', .* is an expanded tensor",
    cut_state: r"state 'momentum_buffer' of '3.weight' is torch.float32 of shape \(6,\)",
    inference_state: r"'3.weight', .* was made in torch.inference_mode",
    sparse_state: r"'3.weight' is torch.sparse_coo: it cannot be rescaled",
    shared: r"'1.running_mean' and '0.bias' share memory",
}


@pytest.mark.parametrize("before", [True, False], ids=["after a step", "at once"])
@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_a_step_that_raises_has_changed_nothing(spoil: Callable[[Any, State], None], before: bool) -> None:
    model, optimizer, x = trained()
    enorm = graphnorm.ENorm(model, optimizer, x, every=2)
    enorm.step()
    if before:
        enorm.step()
        enorm.step()
    spoil(model, optimizer.state[model[3].weight])
    tensors, counted = all_tensors(model, optimizer), enorm.state_dict()
    with pytest.raises(InputError, match=SPOILED[spoil]):
        enorm.step()
    assert all(torch.equal(a, b) for a, b in zip(tensors, all_tensors(model, optimizer), strict=True))
    assert enorm.state_dict() == counted


def test_a_copy_is_checked_too() -> None:
    model, optimizer, x = trained()
    enorm = graphnorm.ENorm(model, optimizer, x)
    average = copy.deepcopy(model)
    enorm.register_copy(average)
    average[0].weight = nn.Parameter(average[0].weight.to("meta"))
    before = all_tensors(model, optimizer)
    with pytest.raises(InputError, match=r"'0.weight', .* is on meta"):
        enorm.step()
    assert all(torch.equal(a, b) for a, b in zip(before, all_tensors(model, optimizer), strict=True))


def test_a_sound_step_moves() -> None:
    model, optimizer, x = trained()
    model.eval()
    before = model(x)
    enorm = graphnorm.ENorm(model, optimizer, x)
    weight = model[3].weight.detach().clone()
    enorm.step()
    assert not torch.equal(weight, model[3].weight)
    assert torch.allclose(before, model(x), rtol=1e-4, atol=1e-6)


def test_documented_way_to_shard_runs_as_written() -> None:
    text = DOCS.read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n((?:(?!```).)*?fully_shard.*?)```", text, re.DOTALL)
    model: Any = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.randn(5, 4)
    store: Any = vars(torch.distributed)["HashStore"]()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        names: dict[str, Any] = {"model": model, "example_inputs": x}
        exec(compile(snippet, str(DOCS), "exec"), names)
        before = model(x).detach()
        model(x).square().mean().backward()
        names["optimizer"].zero_grad()
        with torch.no_grad():
            model[2].weight.mul_(7)
            model[2].bias.mul_(7)
        names["enorm"].step()
        assert torch.allclose(7 * before, model(x), rtol=1e-4, atol=1e-6)
        assert names["enorm"].symmetries.count == 6
    finally:
        torch.distributed.destroy_process_group()
