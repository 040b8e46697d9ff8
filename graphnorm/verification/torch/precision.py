"""Runs in the precision that a model's types promise: no TF32, no autocast, deterministic kernels.

torch's default on NVIDIA GPUs is to round the operands of convolutions to 10 bits (TF32), which would count
as the original's own noise and hide a channel that is 1 % off.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch

from graphnorm.frontends.torch.state import alone

SAID = "TF32 and autocast off, deterministic"


@contextmanager
def measuring(device: str) -> Iterator[None]:
    """Run code of a caller's model in full precision; all flags are restored afterwards."""
    with alone(device), warnings.catch_warnings(), ExitStack() as stack:
        backends, products = torch.backends, torch.backends.cuda.matmul
        # The older interface's flags set those of the newer one: these are set and restored last.
        holders = _holders()
        older = [
            (backends.cudnn, "allow_tf32", False),
            (backends.cudnn, "benchmark", False),
            (backends.cudnn, "deterministic", True),
            (products, "allow_fp16_reduced_precision_reduction", False),
            (products, "allow_bf16_reduced_precision_reduction", False),
        ]
        for holder in holders:
            stack.callback(setattr, holder, "fp32_precision", holder.fp32_precision)
        with suppress(RuntimeError):  # the caller used both interfaces: the newer one is authoritative
            stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("highest")
        for flags, name, value in older:
            _put(stack, flags, name, value)
        for holder in holders:
            holder.fp32_precision = "ieee"
        _set_deterministic(stack.callback)
        for kind in sorted({"cpu", torch.device(device).type} - {"meta"}):
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _put(stack: ExitStack, holder: Any, name: str, value: Any) -> None:
    """Set a flag until the stack closes; one that cannot be read is restored with the newer interface's."""
    with suppress(RuntimeError):  # the caller used both interfaces
        stack.callback(setattr, holder, name, getattr(holder, name))
    setattr(holder, name, value)


def _holders() -> list[Any]:
    """What holds a precision of float32 sums, where this torch has such (since 2.9)."""
    backends = torch.backends
    named = (
        (backends.cuda, "matmul"), (backends.cudnn, "conv"), (backends.cudnn, "rnn"),
        (backends.mkldnn, "matmul"), (backends.mkldnn, "conv"), (backends.mkldnn, "rnn"),
    )  # fmt: skip
    found = [getattr(home, name) for home, name in named if hasattr(home, name)]
    return [holder for holder in found if hasattr(holder, "fp32_precision")]


def _set_deterministic(later: Callable[..., Any]) -> None:
    """Deterministic kernels where there are some; `alone` restores the flag."""
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    later(setattr, torch.utils.deterministic, "fill_uninitialized_memory", filling)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
