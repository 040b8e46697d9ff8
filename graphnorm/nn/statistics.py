"""Input sums v of a batch and what they are divided by, r; over all ranks if wanted."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from graphnorm.errors import InputError


def first_samples(x: Tensor, fraction: float) -> Tensor:
    """The first ``fraction`` of the batch, rounded up to whole samples."""
    part = Fraction(fraction).limit_denominator(10_000)
    return x if part == 1 else x[: (x.shape[0] * part.numerator + part.denominator - 1) // part.denominator]


def input_sums(x: Tensor, channel_axis: int, signed: bool) -> Tensor:
    """The sum of each channel, ``(channels,)``, in float32 at least; of magnitudes if ``signed``."""
    exact = torch.promote_types(x.dtype, torch.float32)
    axes = [axis for axis in range(x.ndim) if axis != channel_axis]
    return (x.abs() if signed else x).sum(axes, dtype=exact) if axes else x.to(exact)


def strided_outputs(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> int:
    """prod(output size) * prod(stride), the r of one sample; ``padding`` counts both ends together."""
    product = 1
    for n, k, s, pad, d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        product *= ((n + pad - d * (k - 1) - 1) // s + 1) * s
    return product


def over_ranks(v: Tensor, r: int, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor]:
    """V and r summed over the ranks of ``group``; gradients are summed likewise.

    Raises:
        InputError: No process group was initialised.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise InputError(
            "synchronise=True needs torch.distributed: call torch.distributed.init_process_group first, "
            "or make the layer with synchronise=False"
        )
    both: Any = _SumOverRanks.apply(torch.cat([v, v.new_tensor([r])]), group)  # type: ignore[no-untyped-call]
    return both[:-1], both[-1].detach()


class _SumOverRanks(torch.autograd.Function):
    """All-reduce, whose derivative is all-reduce."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        return _summed(x, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _summed(gradients[0], ctx.group), None


def _summed(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    total = x.contiguous().clone()
    dist.all_reduce(total, group=group)
    return total
