"""Statistics over several ranks equal those of the whole batch, gradients too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from graphnorm.nn import EquiNormConv2d

RANKS = 2


def layer(synchronise: bool) -> Any:
    torch.manual_seed(0)
    return EquiNormConv2d(2, 3, 3, padding=1, dtype=torch.float64, synchronise=synchronise)


def batch() -> Tensor:
    return torch.randn(5, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).relu()


def results(module: Any, x: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    out = module(x)
    (out.square() * torch.arange(out[0].numel()).reshape(out[0].shape)).sum().backward()
    grads = {name: parameter.grad for name, parameter in module.named_parameters()}
    return {"out": out.detach(), "x": x.grad, "running_v": module.running_v, **grads}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    part = batch()[:2] if rank == 0 else batch()[2:]  # ranks of different sizes
    found = results(layer(True), part)
    for name in ("weight", "gain", "bias"):
        dist.all_reduce(found[name])
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
def test_ranks_together_are_one_batch(tmp_path: Path) -> None:
    mp.spawn(work, (str(tmp_path),), RANKS)  # type: ignore[attr-defined, no-untyped-call]
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    whole = results(layer(False), batch())
    for name in ("out", "x"):
        torch.testing.assert_close(
            torch.cat([part[name] for part in parts]), whole[name], rtol=1e-12, atol=1e-12
        )
    for part in parts:
        for name in ("weight", "gain", "bias", "running_v"):
            torch.testing.assert_close(part[name], whole[name], rtol=1e-12, atol=1e-12)
    alone = results(layer(False), batch()[:2])  # what would be had without: something else
    assert not torch.allclose(alone["out"], whole["out"][:2])
