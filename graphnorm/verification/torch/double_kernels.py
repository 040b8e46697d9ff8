"""float64 for operators whose kernels refuse it, so that every torch model has a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class DoubleKernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs operators without a float64 kernel as products that have one."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._grouped_mm.default and args[0].dtype == torch.float64:
            return grouped_mm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def grouped_mm(
    a: Tensor, b: Tensor, offs: Tensor | None = None, bias: Tensor | None = None, out_dtype: Any = None
) -> Tensor:
    """``torch._grouped_mm``: a product for each group; `offs` are the ends of groups along the axis they cut.

    Shapes: (m, k) x (g, k, n) with rows cut, (g, m, k) x (k, n) with columns cut, (m, k) x (k, n) with k
    cut, or (g, m, k) x (g, k, n).
    """
    if offs is None:
        return torch.bmm(a, b)
    ends = offs.tolist()
    parts = list(zip([0, *ends[:-1]], ends, strict=True))
    if a.ndim == 2 and b.ndim == 3:
        found = a.new_zeros(a.shape[0], b.shape[2])  # rows after the last group are undefined
        for g, (start, end) in enumerate(parts):
            found[start:end] = a[start:end] @ b[g]
        return found
    if a.ndim == 3:
        found = a.new_zeros(a.shape[1], b.shape[1])
        for g, (start, end) in enumerate(parts):
            found[:, start:end] = a[g] @ b[:, start:end]
        return found
    return torch.stack([a[:, start:end] @ b[start:end] for start, end in parts])
