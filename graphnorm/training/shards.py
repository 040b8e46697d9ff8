"""Tensors that are sharded over processes (DTensor, as FSDP2 makes them).

Each process holds a window of a weight, multiplies that window, and counts its masses; the masses of a
stage's variables, two numbers per channel, are summed over the mesh.  No weight is ever gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor import Shard as ShardPlacement
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from graphnorm.errors import InputError
from graphnorm.training.parts import Block, whole


@dataclass(frozen=True)
class Shard:
    """What this process holds of a tensor.

    Attributes:
        local: its entries.
        window: where they are in the whole tensor.
        first: whether this process is the first of those that hold the same entries.
    """

    local: Tensor
    window: Block
    first: bool


def shard_of(name: str, tensor: Tensor, mesh: DeviceMesh | None) -> Shard:
    """This process's share of a tensor of a model whose parameters live on `mesh`.

    Raises:
        InputError: the tensor is distributed otherwise than by contiguous shards or replicas.
    """
    if not isinstance(tensor, DTensor):
        return Shard(tensor, whole(tensor.shape), mesh is None or not any(_coordinate(mesh)))
    placements = tensor.placements
    if any(type(placement) not in (ShardPlacement, Replicate) for placement in placements):
        raise InputError(f"{name!r} is placed as {placements}: only Shard and Replicate can be rescaled")
    size, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, placements)
    window = tuple(slice(start, start + length) for start, length in zip(offset, size, strict=True))
    where = _coordinate(tensor.device_mesh)
    first = not any(at for at, placement in zip(where, placements, strict=True) if placement == Replicate())
    return Shard(tensor.to_local(), window, first)


def _coordinate(mesh: DeviceMesh) -> list[int]:
    return list(mesh.get_coordinate() or [])


def mesh_of(tensors: Iterable[tuple[str, Tensor]]) -> DeviceMesh | None:
    """The mesh that the sharded tensors live on; None if there are none.

    Raises:
        InputError: they live on different meshes.
    """
    mesh: DeviceMesh | None = None
    for name, tensor in tensors:
        if isinstance(tensor, DTensor):
            if mesh is not None and tensor.device_mesh != mesh:
                raise InputError(f"{name!r} lives on another device mesh than the weights before it")
            mesh = tensor.device_mesh
    return mesh


def summed_over(mesh: DeviceMesh | None) -> Callable[[Tensor], None] | None:
    """A function that sums a vector over all processes of the mesh, in place."""
    if mesh is None:
        return None

    def total(vector: Tensor) -> None:
        for axis in range(mesh.ndim):
            dist.all_reduce(vector, group=mesh.get_group(axis))

    return total
