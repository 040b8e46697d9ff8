"""The numeric oracle: the dimension of the rescaling group, from derivatives alone.

A rescaling exp(t_i) of the parameters changes f to first order by sum_i t_i theta_i df/dtheta_i.  Structural
symmetries are therefore the joint null space of J(theta) diag(theta) over several random draws of theta and
inputs, in float64 with normalised rows.  Parameters that never matter are left out of the count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from graphnorm.ir import Array

_DRAWS = 20  # enough that no unit is dead in all of them
_ROWS = 5  # at least so many for each parameter
_STEP = 1e-5  # of a parameter's logarithm, for central differences
_KINK = 1e-3  # one-sided derivatives that are further apart


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
    return count_null(derivatives(model, inputs, seed)[1], tolerance)


def derivatives(
    model: nn.Module, inputs: Callable[[torch.Generator], Sequence[Tensor]], seed: int = 0
) -> tuple[dict[str, slice], Tensor]:
    """Columns of each tensor, and J(theta) diag(theta) over many draws, one row an output entry."""
    model = model.double()
    generator = torch.Generator().manual_seed(seed)
    blocks: list[Tensor] = []
    columns: dict[str, slice] = {}
    count = rows = draws = 0
    while rows < _ROWS * count + 8 or draws < _DRAWS:
        state = draw(model, generator)
        arguments = [x.double() if x.is_floating_point() else x for x in inputs(generator)]

        def run(values: dict[str, Tensor], arguments: Sequence[Tensor] = arguments) -> Tensor:
            with _differentiable_batch_norm():
                return functional_call(model, values, tuple(arguments)).reshape(-1)

        jacobian = jacrev(run, chunk_size=64)(state)
        with torch.no_grad():
            flat = {
                name: jacobian[name].reshape(-1, value.numel()) * value.reshape(-1)
                for name, value in state.items()
            }
        block = torch.cat(list(flat.values()), dim=1)
        if not columns:
            ends = np.cumsum([part.shape[1] for part in flat.values()]).tolist()
            columns = {n: slice(a, b) for n, a, b in zip(flat, [0, *ends], ends, strict=False)}
        blocks.append(block)
        count, rows, draws = block.shape[1], rows + int((block.norm(dim=1) > 0).sum()), draws + 1
        if draws > 40 * _DRAWS:
            break  # outputs that seldom depend on anything
    return columns, torch.cat(blocks)


def count_null(rows: Tensor, tolerance: float = 1e-9, dead: float = 1e-12) -> int:
    """Dimension of the null space, columns that are always 0 (up to `dead`) left out."""
    kept = normalised(rows)
    columns = kept.norm(dim=0)
    kept = kept[:, columns > dead * columns.max()]
    values = torch.linalg.eigvalsh(kept.T @ kept / len(kept))
    return int((values < tolerance * values.max()).sum())


def normalised(rows: Tensor) -> Tensor:
    """Rows of length 1; rows of zeros left out."""
    lengths = rows.norm(dim=1, keepdim=True)
    return rows[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0]


Run = Callable[[Mapping[str, Array], np.random.Generator], Array]


def nullity_by_differences(run: Run, weights: Mapping[str, Array], seed: int = 0) -> int:
    """The same for any function of `weights` and random inputs, by central differences.

    `run` draws its inputs from the generator, and returns its outputs as one flat float64 array.
    """
    rng = np.random.default_rng(seed)
    count = sum(array.size for array in weights.values())
    blocks: list[Array] = []
    rows = 0
    while rows < _ROWS * count + 8 or len(blocks) < _DRAWS:
        state = {}
        for name, array in weights.items():
            magnitude = rng.uniform(0.5, 1.5, array.shape)
            state[name] = magnitude * (1 if "var" in name else rng.choice([-1.0, 1.0], array.shape))
        block = _differences(run, state, int(rng.integers(1 << 31)))
        blocks.append(block)
        rows += int((np.linalg.norm(block, axis=1) > 0).sum())
    return count_null(torch.from_numpy(np.concatenate(blocks)), dead=1e-6)


def _differences(run: Run, state: Mapping[str, Array], seed: int) -> Array:
    """Derivatives of each output by the logarithm of each weight entry; outputs at a kink are left out."""
    y = run(state, np.random.default_rng(seed))
    columns, smooth = [], np.ones(y.shape, dtype=bool)
    for name, array in state.items():
        for place in range(array.size):
            sides = []
            for sign in (1, -1):
                moved = array.copy()
                moved.reshape(-1)[place] *= np.exp(sign * _STEP)
                sides.append(sign * (run({**state, name: moved}, np.random.default_rng(seed)) - y) / _STEP)
            smooth &= np.abs(sides[0] - sides[1]) <= _KINK * (np.abs(sides[0]) + np.abs(y) + 1e-9)
            columns.append((sides[0] + sides[1]) / 2)
    return np.stack(columns, axis=1)[smooth]
