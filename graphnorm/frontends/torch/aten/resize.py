"""ATen -> ONNX: resizing and sampling of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphnorm.frontends.torch.call import Call, known_shape, rank
from graphnorm.frontends.torch.registry import Lowering, Lowerings
from graphnorm.ir import Value

TABLE = Lowerings()


def _upsample(mode: str, **fixed: Any) -> Lowering:
    def lower(call: Call, x: Value, *rest: Any) -> None:
        # (size, [align_corners], scales)
        aligned = len(rest) > 1 and rest[1] is True
        grid = "align_corners" if aligned else fixed.get("grid", "half_pixel")
        extra = {name: value for name, value in fixed.items() if name != "grid"}
        scales = None if aligned else _scales(call, x, rest)
        sizes = None if scales is not None else list(call.shape)
        call.out("Resize", x, None, scales, sizes, mode=mode, coordinate_transformation_mode=grid, **extra)

    return lower


def _scales(call: Call, x: Value, rest: Sequence[Any]) -> Any:
    """The factors by which the user asked to enlarge, if they are not what the sizes say."""
    ndim = rank(x) - 2
    found = [value for value in rest if isinstance(value, float)]
    for value in rest:
        if isinstance(value, list) and all(isinstance(item, float) for item in value):
            found = value
    if len(found) != ndim:
        return None
    sizes = known_shape(x)[2:]
    asked = [int(np.floor(np.float32(n * factor))) for n, factor in zip(sizes, found, strict=True)]
    if tuple(asked) != call.shape[2:]:
        return None
    return np.array([1.0, 1.0, *found], dtype=np.float32)


ANTIALIAS = {"antialias": 1, "exclude_outside": 1}  # torch's weights add up to 1 at the border, too

for _kind in ("vec", "default"):
    for _n in (1, 2, 3):
        TABLE.add(
            f"upsample_nearest{_n}d.{_kind}", _upsample("nearest", grid="asymmetric", nearest_mode="floor")
        )
        TABLE.add(
            f"_upsample_nearest_exact{_n}d.{_kind}", _upsample("nearest", nearest_mode="round_prefer_ceil")
        )
    for _name in ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"):
        TABLE.add(f"{_name}.{_kind}", _upsample("linear"))
    TABLE.add(f"upsample_bicubic2d.{_kind}", _upsample("cubic", cubic_coeff_a=-0.75))
    TABLE.add(f"_upsample_bilinear2d_aa.{_kind}", _upsample("linear", **ANTIALIAS))
    TABLE.add(f"_upsample_bicubic2d_aa.{_kind}", _upsample("cubic", cubic_coeff_a=-0.5, **ANTIALIAS))


@TABLE.lowers("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def grid_sampler(call: Call, x: Value, grid: Value, mode: int, padding: int, align_corners: bool) -> None:
    call.out(
        "GridSample", x, grid, mode=("linear", "nearest", "cubic")[mode],
        padding_mode=("zeros", "border", "reflection")[padding], align_corners=int(align_corners),
    )  # fmt: skip


@TABLE.lowers("affine_grid_generator")
def affine_grid(call: Call, theta: Value, size: Sequence[int], align_corners: bool) -> None:
    call.out("AffineGrid", theta, list(size), align_corners=int(align_corners))
