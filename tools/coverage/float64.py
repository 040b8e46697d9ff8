"""Running a torch module in float64 throughout, and weights on which a wrong rescaling shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from graphnorm.ir import Array

NARROW = (torch.float16, torch.bfloat16, torch.float32)
CASTS = (Tensor.float, Tensor.half, Tensor.bfloat16)
TINY = 0.1  # a constant below it becomes 1


class _Widen(TorchFunctionMode):
    """Turns every cast to a narrower float type into one to float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(_wide, (tuple(args), dict(kwargs or {})))
        if func in CASTS:
            func = Tensor.double
        elif func is torch._grouped_mm:  # has no float64 kernel
            func = _grouped_matmul
        return func(*args, **kwargs)


def _wide(argument: Any) -> Any:
    return torch.float64 if isinstance(argument, torch.dtype) and argument in NARROW else argument


def _grouped_matmul(
    rows: Tensor, matrices: Tensor, *, offs: Tensor, bias: None = None, out_dtype: None = None
) -> Tensor:
    """Rows (n, i) up to the first offset times the first of the matrices (g, i, o), and so on."""
    ends: list[int] = offs.tolist()
    starts = [0, *ends[:-1]]
    parts = [rows[a:b] @ matrix for a, b, matrix in zip(starts, ends, matrices, strict=True)]
    return torch.cat([*parts, rows.new_zeros(len(rows) - ends[-1], matrices.shape[-1])])


@contextmanager
def _float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widen(), torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(before)


def run(module: nn.Module, args: Any, kwargs: Any) -> list[Array]:
    """Tensor leaves of the outputs of a module with float64 weights."""
    args, kwargs = tree_map(_widened, (args, kwargs))
    module.train().eval()  # some modules cache what they compute from weights, until they train again
    torch.manual_seed(0)  # some forward passes draw noise
    with _float64():
        outputs = module(*args, **kwargs)
    return [leaf.numpy() for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _widened(argument: Any) -> Any:
    return argument.double() if isinstance(argument, Tensor) and argument.is_floating_point() else argument


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Draw new values for weights on which a wrong coefficient would not show.

    These are parameters and float buffers whose entries are all alike (zero biases, unit gains, tiny
    LayerScales, untrained BatchNorm statistics): 0 times anything is 0.  Signs stay, so that variances stay
    positive; biases become positive, lest a last ReLU return zeros only.  Small matrices, kernels and gains
    are scaled up, lest signals fade before they reach the output.
    """
    generator = torch.Generator().manual_seed(seed)
    for tensor in (t.detach() for t in (*module.parameters(), *module.buffers())):
        if tensor.is_floating_point() and tensor.numel() and bool((tensor == tensor.flatten()[0]).all()):
            tensor.copy_(_varied(tensor, generator))
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and parameter.numel():
            size, least = float(parameter.detach().square().mean().sqrt()), _least_size(name, parameter)
            if 0.0 < size < least:
                parameter.detach().mul_(least / size)


def _least_size(name: str, parameter: Tensor) -> float:
    """Root mean square that passes signals on: 1 / sqrt(fan in) for matrices and kernels, 1 for gains."""
    if parameter.ndim > 1:
        return float((parameter.numel() / len(parameter)) ** -0.5)
    return 0.0 if name.endswith("bias") else 1.0


def _varied(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Values like those of a tensor whose entries are all alike, but not alike."""
    value = float(tensor.flatten()[0])
    draw = torch.randn(tensor.shape, generator=generator)
    if value == 0.0:
        return 0.2 * (draw.abs() if tensor.ndim < 2 else draw)
    if abs(value) < TINY:  # a LayerScale of 1e-6 would hide its branch
        value = float(np.sign(value))
    return value * torch.exp(0.3 * draw)
