"""DDP and FSDP2: the same weights as in a single process, on 2 and 4 gloo processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphnorm
from graphnorm.errors import InputError
from graphnorm.training.parts import Part, Side, whole
from tests.support.paths import ROOT
from tests.support.training_cases import momentum


def run_processes(
    world: int, folder: Path, environment: dict[str, str] | None = None
) -> list[tuple[int, str]]:
    command = [sys.executable, "-m", "tests.support.training_processes"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(world), str(folder)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        return [(p.returncode, out) for p in processes for out in [p.communicate(timeout=240)[0]]]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_distributed_training_equals_that_of_one_process(world: int, tmp_path: Path) -> None:
    for code, out in run_processes(world, tmp_path):
        assert code == 0, out
        assert "all equal" in out


def test_a_part_within_a_shard() -> None:
    import numpy as np

    part = Part(
        "w",
        (slice(2, 6), slice(0, 3)),
        (Side((0,), np.arange(4).reshape(4, 1)), Side((1,), np.arange(10, 13).reshape(1, 3))),
        True,
        0,
    )
    assert part.within((slice(6, 8), slice(0, 3))) is None
    own = part.within((slice(4, 8), slice(1, 3)))
    assert own is not None
    assert own.block == (slice(0, 2), slice(0, 2))
    assert own.sides[0].forms.ravel().tolist() == [2, 3]
    assert own.sides[1].forms.ravel().tolist() == [11, 12]
    same = part.within(whole((8, 3)))
    assert same is not None
    assert same.block == part.block


def test_sharded_models_need_symmetries_from_before() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    model: Any = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    store: Any = vars(torch.distributed)["HashStore"]()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        model[0].weight = nn.Parameter(distribute_tensor(model[0].weight.detach(), mesh, [Shard(0)]))
        with pytest.raises(InputError, match="sharded parameters cannot be traced"):
            graphnorm.ENorm(model, momentum(model), torch.randn(2, 4))
    finally:
        torch.distributed.destroy_process_group()
