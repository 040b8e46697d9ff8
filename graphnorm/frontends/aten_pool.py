"""ATen -> ONNX: pooling, resizing, sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphnorm.frontends.aten_call import Call, Lowering, Lowerings, Unlowerable, known_shape, rank, spread
from graphnorm.ir import Value

TABLE = Lowerings()


def _pool(call: Call, op: str, x: Value, ndim: int, **attributes: Any) -> None:
    if rank(x) == ndim + 2:
        call.out(op, x, **attributes)
        return
    shifted = frozenset(axis + 1 for axis in x.dynamic)
    batched = call.step("Unsqueeze", x, [0], shape=(1, *known_shape(x)), dynamic=shifted)
    dynamic = frozenset(axis + 1 for axis in call.result.dynamic)
    call.out("Squeeze", call.step(op, batched, shape=(1, *call.shape), dynamic=dynamic, **attributes), [0])


def _max_pool(ndim: int) -> Lowering:
    def lower(
        call: Call,
        x: Value,
        kernel: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0,),
        dilation: Sequence[int] = (1,),
        ceil_mode: bool = False,
    ) -> None:
        _pool(
            call, "MaxPool", x, ndim, kernel_shape=spread(kernel, ndim),
            strides=spread(stride or kernel, ndim), pads=spread(padding, ndim) * 2,
            dilations=spread(dilation, ndim), ceil_mode=int(ceil_mode),
        )  # fmt: skip

    return lower


def _avg_pool(ndim: int) -> Lowering:
    def lower(
        call: Call,
        x: Value,
        kernel: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0,),
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor: int | None = None,
    ) -> None:
        if divisor is not None:
            raise Unlowerable
        _pool(
            call, "AveragePool", x, ndim, kernel_shape=spread(kernel, ndim),
            strides=spread(stride or kernel, ndim), pads=spread(padding, ndim) * 2,
            ceil_mode=int(ceil_mode), count_include_pad=int(count_include_pad),
        )  # fmt: skip

    return lower


def _adaptive_pool(ndim: int, family: str) -> Lowering:
    def lower(call: Call, x: Value, *_: object) -> None:
        if set(call.shape[-ndim:]) == {1}:
            _pool(call, "GlobalAveragePool" if family == "avg" else "GlobalMaxPool", x, ndim)
        elif call.shape == x.shape:
            call.out("Identity", x)
        else:
            size = list(call.shape[-ndim:])
            call.out(f"aten::adaptive_{family}_pool", x, kernel_rank=ndim, output_size=size)

    return lower


for _n in (1, 2, 3):
    TABLE.add(f"avg_pool{_n}d", _avg_pool(_n))
    TABLE.add(f"max_pool{_n}d", _max_pool(_n))
    TABLE.add(f"max_pool{_n}d_with_indices", _max_pool(_n))
    TABLE.add(f"adaptive_avg_pool{_n}d", _adaptive_pool(_n, "avg"))
    TABLE.add(f"adaptive_max_pool{_n}d", _adaptive_pool(_n, "max"))
TABLE.add("_adaptive_avg_pool2d", _adaptive_pool(2, "avg"))
TABLE.add("_adaptive_avg_pool3d", _adaptive_pool(3, "avg"))


def _upsample(mode: str, **fixed: Any) -> Lowering:
    def lower(call: Call, x: Value, *rest: object) -> None:
        # (size, [align_corners], scales): ONNX derives the scales from the sizes, as torch does
        # unless a fractional scale_factor is given; the mixed positions are the same in kind.
        aligned = len(rest) > 1 and rest[1] is True
        grid = "align_corners" if aligned else fixed.get("grid", "half_pixel")
        extra = {name: value for name, value in fixed.items() if name != "grid"}
        call.out("Resize", x, None, None, call.shape, mode=mode, coordinate_transformation_mode=grid, **extra)

    return lower


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
    TABLE.add(f"_upsample_bilinear2d_aa.{_kind}", _upsample("linear", antialias=1))
    TABLE.add(f"_upsample_bicubic2d_aa.{_kind}", _upsample("cubic", cubic_coeff_a=-0.5, antialias=1))


@TABLE.lowers("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def grid_sampler(call: Call, x: Value, grid: Value, mode: int, padding: int, align_corners: bool) -> None:
    call.out(
        "GridSample", x, grid, mode=("linear", "nearest", "cubic")[mode],
        padding_mode=("zeros", "border", "reflection")[padding], align_corners=int(align_corners),
    )  # fmt: skip
