"""The numeric oracle: the dimension of the rescaling group, from derivatives alone.

A rescaling exp(t_i) of the parameters changes f to first order by sum_i t_i theta_i df/dtheta_i.  Structural
symmetries are therefore the joint null space of J(theta) diag(theta) over several random draws of theta and
inputs, in float64 with normalised rows.  Parameters that never matter are left out of the count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jacrev

_DRAWS = 10  # enough that no unit is dead in all of them


@contextmanager
def _differentiable_batch_norm() -> Iterator[None]:
    """torch's kernel has no derivative by the running statistics: write BatchNorm out meanwhile."""

    def batch_norm(
        x: Tensor, mean: Tensor | None, var: Tensor | None, weight: Tensor | None = None,
        bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        shape = (1, -1) + (1,) * (x.ndim - 2)
        if training:
            axes = [axis for axis in range(x.ndim) if axis != 1]
            mean, var = x.mean(axes), x.var(axes, correction=0)
        assert mean is not None
        assert var is not None
        y = (x - mean.view(shape)) / (var.view(shape) + eps).sqrt()
        y = y if weight is None else y * weight.view(shape)
        return y if bias is None else y + bias.view(shape)

    original = F.batch_norm
    F.batch_norm = batch_norm  # type: ignore[assignment]
    try:
        yield
    finally:
        F.batch_norm = original


def draw(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Random signed values away from 0 for every float tensor; variances stay positive."""
    state: dict[str, Tensor] = {}
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            continue
        size = tensor.shape
        magnitude = 0.5 + torch.rand(size, generator=generator, dtype=torch.float64)
        negative = torch.rand(size, generator=generator) < 0.5
        signed = torch.where(negative, -magnitude, magnitude)
        state[name] = magnitude if "var" in name else signed
    return state


def nullity(
    model: nn.Module,
    inputs: Callable[[torch.Generator], Sequence[Tensor]],
    seed: int = 0,
    tolerance: float = 1e-9,
) -> int:
    """Number of independent parameter rescalings that leave `model` unchanged to first order."""
    model = model.double()
    generator = torch.Generator().manual_seed(seed)
    blocks: list[Tensor] = []
    count = rows = 0
    draws = 0
    while rows < 4 * count + 8 or draws < _DRAWS:
        state = draw(model, generator)
        arguments = [x.double() if x.is_floating_point() else x for x in inputs(generator)]

        def run(values: dict[str, Tensor], arguments: Sequence[Tensor] = arguments) -> Tensor:
            with _differentiable_batch_norm():
                return functional_call(model, values, tuple(arguments)).reshape(-1)

        jacobian = jacrev(run, chunk_size=64)(state)
        with torch.no_grad():
            flat = [
                jacobian[name].reshape(-1, state[name].numel()) * state[name].reshape(-1) for name in state
            ]
        block = torch.cat(flat, dim=1)
        blocks.append(block[block.norm(dim=1) > 0])
        count, rows, draws = block.shape[1], rows + block.shape[0], draws + 1
    stacked = torch.cat(blocks)
    stacked = stacked / stacked.norm(dim=1, keepdim=True)
    columns = stacked.norm(dim=0)
    stacked = stacked[:, columns > 1e-12 * columns.max()]
    values = torch.linalg.eigvalsh(stacked.T @ stacked / len(stacked))
    return int((values < tolerance * values.max()).sum())
