"""What each process of the distributed tests runs.

`python -m tests.support.training_processes RANK WORLD FOLDER`
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import graphnorm
from graphnorm.training.symmetry import find_symmetries
from tests.support.training_cases import Attention

STEPS = 4


class Network(nn.Module):
    """A convolution, a skip, an attention block with fused QKV, odd sizes that do not divide evenly."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 7, 1)
        self.back = nn.Conv2d(7, 8, 1)
        self.block = Attention(8, 2, dropout=0.0)
        self.one, self.two = nn.Linear(8, 13), nn.Linear(13, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x))
        y = torch.relu(y + self.back(torch.relu(self.inner(y))))
        tokens = self.block(y.flatten(2).transpose(1, 2)).mean(dim=1)
        return self.two(torch.relu(self.one(tokens)))


def make() -> tuple[Network, list[Tensor]]:
    torch.manual_seed(0)
    return Network().double(), [torch.randn(8, 3, 4, 4).double() for _ in range(STEPS)]


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, amsgrad=True)


def train(
    model: nn.Module, enorm: graphnorm.ENorm, optimizer: torch.optim.Optimizer, data: list[Tensor]
) -> None:
    for x in data:
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        enorm.step()


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def compare(
    kind: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    reference: nn.Module,
    other: torch.optim.Optimizer,
) -> None:
    for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(whole(p), q.detach(), rtol=1e-10, atol=1e-13, msg=f"{kind} {name}")
        for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            one, two = whole(optimizer.state[p][key]), other.state[q][key]
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-16, msg=f"{kind} {name} {key}")


def identical(tensor: Tensor) -> bool:
    """Whether all processes hold the same bits."""
    found = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(found, tensor.detach().contiguous())
    return all(torch.equal(found[0], one) for one in found)


def main(rank: int, world: int) -> None:
    model, data = make()
    mine = [x.chunk(world)[rank] for x in data]

    reference = copy.deepcopy(model)
    reference_optimizer = optimizer_of(reference)
    enorm = graphnorm.ENorm(reference, reference_optimizer, data[0], cycles=2)
    train(reference, enorm, reference_optimizer, data)
    symmetries = find_symmetries(model, data[0])
    energy = enorm.energy()

    parallel = DistributedDataParallel(copy.deepcopy(model))
    optimizer = optimizer_of(parallel)
    train(parallel, graphnorm.ENorm(parallel, optimizer, data[0], cycles=2), optimizer, mine)
    compare("ddp", parallel.module, optimizer, reference, reference_optimizer)
    assert all(identical(p) for p in parallel.parameters())

    for shape in [(world,), (2, world // 2)][: 1 + (world == 4)]:  # flat, and hybrid: replicas of shards
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replica", "shard")[-len(shape) :])
        sharded = copy.deepcopy(model)
        for part in (sharded.block, sharded):
            fully_shard(part, mesh=mesh)
        optimizer = optimizer_of(sharded)
        enorm = graphnorm.ENorm(sharded, optimizer, symmetries, cycles=2)
        train(sharded, enorm, optimizer, mine)
        assert all(isinstance(p, DTensor) for p in sharded.parameters())
        compare(f"fsdp {shape}", sharded, optimizer, reference, reference_optimizer)
        assert abs(enorm.energy() - energy) < 1e-9 * energy

    mixed = copy.deepcopy(model)  # some weights sharded along their input, some replicated, some plain
    mesh = init_device_mesh("cpu", (world,))
    from torch.distributed.tensor import Shard

    for name, placement in (("inner", Shard(1)), ("one", Replicate()), ("two", Shard(0))):
        module: Any = mixed.get_submodule(name)
        module.weight = nn.Parameter(distribute_tensor(module.weight.detach(), mesh, [placement]))
    optimizer = optimizer_of(mixed)
    single = copy.deepcopy(model)
    graphnorm.ENorm(single, optimizer_of(single), data[0]).step()
    graphnorm.ENorm(mixed, optimizer, symmetries).step()
    for p, q in zip(mixed.parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(whole(p), q.detach(), rtol=1e-12, atol=1e-14)


if __name__ == "__main__":
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    main(rank, world)
    dist.destroy_process_group()
    print("all equal")
