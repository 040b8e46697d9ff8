"""Functions, casts and movement in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import helper

from graphnorm.ir import Array
from tools.validation.case import Case
from tools.validation.specials import special, tensor


@special("Cast", "CastLike")
def _cast(case: Case, x: Array, like: Array | None = None) -> list[Any]:
    """Over the reals a cast between float types changes nothing."""
    if like is not None:
        target = np.asarray(like).dtype
    else:
        target = np.dtype(helper.tensor_dtype_to_np_dtype(case.attributes["to"]))
    return [x.astype(np.float64 if target.kind in "fV" else target)]


@special("aten::cummax", "aten::cummin")
def _running(case: Case, x: Array) -> list[Any]:
    function = torch.cummax if case.op.endswith("max") else torch.cummin
    return [part.numpy() for part in function(tensor(x), case.attributes["axis"])]


@special("Dropout")
def _dropout(case: Case, x: Array, *_: Any) -> list[Any]:
    return [x, np.ones(x.shape, dtype=bool)][: case.results]


@special("Scatter")
def _scatter(case: Case, x: Array, index: Array, updates: Array) -> list[Any]:
    return [tensor(x).scatter(case.attributes["axis"], tensor(index), tensor(updates)).numpy()]


@special("Erf", *(f"aten::{name}" for name in (
    "erfinv", "lgamma", "digamma", "i0", "igamma", "igammac", "atan2", "special_i0e", "special_i1",
    "special_i1e", "special_erfcx", "special_ndtri", "special_zeta", "special_bessel_j0",
    "special_bessel_j1", "special_bessel_y0", "special_bessel_y1", "special_spherical_bessel_j0",
)))  # fmt: skip
def _of_torch(case: Case, *operands: Array) -> list[Any]:
    function = getattr(torch.ops.aten, case.op.rpartition("::")[2].lower())
    return [function(*map(tensor, operands)).numpy()]


@special("Gelu")
def _standard_gelu(case: Case, x: Array) -> list[Any]:
    return [F.gelu(tensor(x), approximate=case.attributes.get("approximate", "none")).numpy()]


@special("HardSwish")
def _hard_swish(case: Case, x: Array) -> list[Any]:
    del case
    return [F.hardswish(tensor(x)).numpy()]


@special("com.microsoft::Gelu", "com.microsoft::FastGelu", "com.microsoft::BiasGelu")
def _gelu(case: Case, x: Array, bias: Array | None = None) -> list[Any]:
    y = x if bias is None else x + bias
    return [F.gelu(tensor(y), approximate="tanh" if "Fast" in case.op else "none").numpy()]


@special("com.microsoft::QuickGelu")
def _quick_gelu(case: Case, x: Array) -> list[Any]:
    return [x / (1.0 + np.exp(-1.702 * x))]


@special("AffineGrid")
def _affine_grid(case: Case, theta: Array, size: Array) -> list[Any]:
    return [
        F.affine_grid(
            tensor(theta), size.tolist(), align_corners=bool(case.attributes["align_corners"])
        ).numpy()
    ]


@special("aten::polygamma")
def _polygamma(case: Case, x: Array) -> list[Any]:
    del case
    return [torch.polygamma(1, tensor(x)).numpy()]


@special("aten::frexp")
def _frexp(case: Case, x: Array) -> list[Any]:
    del case
    return list(np.frexp(x))


@special("Pad")
def _pad(
    case: Case, x: Array, pads: Array, value: Array | None = None, axes: Array | None = None
) -> list[Any]:
    over = range(x.ndim) if axes is None else axes.tolist()
    half = len(over)
    widths = [(0, 0)] * x.ndim
    region = [slice(None)] * x.ndim
    for i, axis in enumerate(over):
        before, after = int(pads[i]), int(pads[i + half])
        widths[axis] = max(before, 0), max(after, 0)
        region[axis] = slice(max(-before, 0), x.shape[axis] - max(-after, 0))
    cropped, mode = x[tuple(region)], case.attributes.get("mode", "constant")
    if mode == "constant":
        return [np.pad(cropped, widths, constant_values=0.0 if value is None else float(value))]
    return [np.pad(cropped, widths, mode=mode)]


@special("graphnorm::Choice")
def _choice(case: Case, taken: Array, first: Array, second: Array) -> list[Any]:
    del case
    return [np.where(taken, first, second)]
