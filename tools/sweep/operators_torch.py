"""Every torch function whose lowering is tested, called with tensors of 0, 1 or no entries along an axis."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

import graphnorm
from tests.frontends.torch.test_lowering import TABLES
from tests.support.torch_tables.modules import MODULES
from tests.support.torch_tables.operators import OPERATORS
from tools.sweep.trial import Outcome, attempt

SHAPES = [(), (0,), (1,), (0, 3), (2, 0, 3), (1, 1, 1), (2, 3, 0), (0, 4, 6, 6), (1, 1, 1, 1), (2, 4, 0, 6)]
# Kernels of torch itself that divide by 0 or read beyond their operands, which ends the process.
_END_THE_PROCESS = {
    "OPERATORS": {"flash_on_cpu", "native_batch_norm", "weight_norm"},
    "MODULES": {"bag_mean", "bag_max"},
}
OUT_OF_RANGE: dict[str, Callable[[Tensor], Any]] = {
    "diff_beyond_the_axis": lambda x: torch.diff(x, n=7),
    "narrow_to_nothing": lambda x: x.narrow(0, 1, 0),
    "slice_beyond": lambda x: x[5:9],
    "slice_backwards": lambda x: x[1:0],
    "slice_far_before": lambda x: x[-(2**40) : 2**40],
    "crop": lambda x: nn.functional.pad(x, (-1, -1)),
    "crop_and_pad": lambda x: nn.functional.pad(x, (-1, 3)),
    "repeat_never": lambda x: x.repeat(*([0] * x.ndim)),
    "repeat_interleave_never": lambda x: x.repeat_interleave(0, 0),
    "roll_around": lambda x: x.roll(100, 0),
    "roll_back": lambda x: x.roll(-100, -1),
    "tril_beyond": lambda x: x.tril(100),
    "triu_beyond": lambda x: x.triu(-100),
    "topk_of_none": lambda x: x.topk(0)[0],
    "unfold_whole": lambda x: x.unfold(0, x.shape[0], 100),
    "chunk_into_many": lambda x: x.chunk(100),
    "tensor_split_into_many": lambda x: x.tensor_split(7),
    "tensor_split_beyond": lambda x: x.tensor_split((5, 3, 100)),
    "diagonal_beyond": lambda x: x.diagonal(1),
    "rot90_many": lambda x: torch.rot90(x, 7),
    "softmax_of_last": lambda x: x.softmax(-1),
    "sum_of_no_axes": lambda x: x.sum(()),
    "flip_no_axes": lambda x: x.flip(()),
    "cumsum": lambda x: x.cumsum(0),
    "quantile": lambda x: torch.quantile(x, torch.tensor([0.0, 1.0]), 0),
    "norm_of_order_0": lambda x: torch.linalg.vector_norm(x, 0),
    "norm_of_order_infinity": lambda x: torch.linalg.vector_norm(x, float("inf")),
    "norm_of_negative_order": lambda x: torch.linalg.vector_norm(x, -2.5, -1),
    "clamp_crossed": lambda x: x.clamp(1, -1),
    "hardtanh_crossed": lambda x: nn.functional.hardtanh(x, 2.0, 3.0),
    "leaky_relu_of_negative_slope": lambda x: nn.functional.leaky_relu(x, -3.0),
    "power_0": lambda x: x**0,
    "power_of_large_exponent": lambda x: x**400,
    "division_by_0": lambda x: x / 0,
    "interpolate": lambda x: nn.functional.interpolate(x, scale_factor=0.3),
}


class Scaled(nn.Module):
    """The function of an input times a weight, so that there is something to rescale."""

    def __init__(self, function: Callable[..., Any], size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), 1.5) if size else torch.tensor(1.5))
        self.function = function

    def forward(self, x: Tensor, *others: Tensor) -> Any:
        return self.function(x * self.weight, *others)


def degenerate(inputs: tuple[Tensor, ...]) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """The inputs with one axis of 0 or 1 entries in all that have as many there, or in one alone."""
    sizes = sorted({size for tensor in inputs for size in tensor.shape if size > 1})
    for old, new in product(sizes, (0, 1)):
        yield f"{old} -> {new}", tuple(_cut(tensor, old, new) for tensor in inputs)
    for place, tensor in enumerate(inputs):
        for axis, new in product(range(tensor.ndim), (0, 1)):
            cut = tensor.narrow(axis, 0, min(new, tensor.shape[axis])).clone()
            yield f"input {place} axis {axis} -> {new}", (*inputs[:place], cut, *inputs[place + 1 :])
        if tensor.numel():
            single = tensor.reshape(-1)[0].clone()
            yield f"input {place} 0-d", (*inputs[:place], single, *inputs[place + 1 :])


def _cut(tensor: Tensor, old: int, new: int) -> Tensor:
    for axis, size in enumerate(tensor.shape):
        if size == old:
            tensor = tensor.narrow(axis, 0, new)
    return tensor.clone()


def cases() -> Iterator[tuple[str, nn.Module, tuple[Tensor, ...]]]:
    """(name, module, inputs); what torch itself refuses is among them."""
    torch.manual_seed(0)
    tables = {**{name: table for name, (table, _) in TABLES.items()}, "OUT_OF_RANGE": OUT_OF_RANGE}
    for table, functions in tables.items():
        for name, function in functions.items():
            for shape in (*SHAPES, (3,), (2, 3), (1, 4, 6, 6)):
                if len(shape) and shape[-1] and min(shape) > 1 and table != "OUT_OF_RANGE":
                    continue  # nothing degenerate: the lowering's own tests
                size = shape[-1] if shape and shape[-1] > 1 else 0
                yield f"{table}.{name} of {shape}", Scaled(function, size), (torch.rand(shape),)
    for name, (function, inputs) in OPERATORS.items():
        if name in _END_THE_PROCESS["OPERATORS"]:
            continue
        for words, changed in degenerate(inputs):
            scalable = bool(changed) and changed[0].is_floating_point()
            yield f"OPERATORS.{name}, {words}", Scaled(function, 0) if scalable else _Plain(function), changed
    for name, (module, inputs) in MODULES.items():
        if name in _END_THE_PROCESS["MODULES"]:
            continue
        for words, changed in degenerate(inputs):
            yield f"MODULES.{name}, {words}", module, changed


class _Plain(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def runs(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether torch takes the inputs."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module(*inputs)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError):
        return False
    return True


def outcomes(part: int = 0, parts: int = 1) -> Iterator[Outcome]:
    """Every `parts`-th case that torch runs, from number `part` on."""
    for number, (name, module, inputs) in enumerate(cases()):
        if number % parts == part and runs(module, inputs):
            yield attempt(name, partial(graphnorm.canonicalize, module, inputs, verify=False))
