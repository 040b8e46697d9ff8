"""Sums of |w|^p along the rows or columns of a matrix, without a copy of it where a library can."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def power_sums(matrix: Tensor, axis: int, p: float) -> Tensor:
    """Sum |w|^p of each row (axis 0) or each column (axis 1)."""
    sums: Tensor
    if axis == 1 and matrix.device.type == "cpu":
        if p == 2.0:  # torch's norm along the first axis is strided, NumPy's einsum runs along memory
            array = matrix.numpy()
            return torch.from_numpy(np.einsum("ij,ij->j", array, array))
        return powers(matrix, p).sum(dim=0)
    sums = torch.linalg.vector_norm(matrix, p, dim=1 - axis)
    if p == 2.0:
        return sums.square_()
    return sums if p == 1.0 else sums.pow_(p)


def powers(matrix: Tensor, p: float, out: Tensor | None = None) -> Tensor:
    """|w|^p of each entry, in float32 at least."""
    if out is None:
        wide = torch.promote_types(matrix.dtype, torch.float32)
        out = torch.empty(matrix.shape, dtype=wide, device=matrix.device)
    if p == 2.0 and out.dtype == matrix.dtype:
        return torch.mul(matrix, matrix, out=out)
    out.copy_(matrix)
    if p == 2.0:
        return out.square_()
    return out.abs_() if p == 1.0 else out.abs_().pow_(p)
