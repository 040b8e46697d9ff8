"""torchvision's operators -> ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphnorm.frontends.torch.call import Call, known_shape
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import unsqueezed
from graphnorm.ir import Value

TABLE = Lowerings()


@TABLE.lowers("torchvision.nms.default")
def nms(call: Call, boxes: Value, scores: Value, threshold: float) -> None:
    """Places of the boxes that are kept, as many as there are at run time."""
    everything = np.array([np.iinfo(np.int64).max])
    kept = call.step(
        "NonMaxSuppression", unsqueezed(call, boxes, [0]), unsqueezed(call, scores, [0, 1]), everything,
        np.array([threshold], dtype=np.float32), like=Value("", None, "int64"),
    )  # fmt: skip
    call.out("Gather", kept, call.number(2, "int64"), axis=1)


@TABLE.lowers("torchvision.roi_align.default")
def roi_align(
    call: Call,
    x: Value,
    rois: Value,
    scale: float,
    height: int,
    width: int,
    samples: int,
    aligned: bool,
) -> None:
    """``rois: [n, 5]``: the image's number, then the corners."""
    count = known_shape(rois)[0]
    number = call.step("Gather", rois, call.number(0, "int64"), shape=(count,), dynamic=rois.dynamic & {0},
                       axis=1)  # fmt: skip
    corners = call.step("Slice", rois, [1], [5], [1], [1], shape=(count, 4), dynamic=rois.dynamic & {0})
    call.out(
        "RoiAlign", x, corners, call.typed(number, "int64"), output_height=height, output_width=width,
        sampling_ratio=max(samples, 0), spatial_scale=float(scale), mode="avg",
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
    )  # fmt: skip


@TABLE.lowers("torchvision.deform_conv2d.default")
def deform_conv(
    call: Call,
    x: Value,
    weight: Value,
    offset: Value,
    mask: Value,
    bias: Value | None,
    *numbers: Any,
) -> None:
    """``numbers``: strides, pads, dilations, groups, groups of offsets, whether there is a mask."""
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, offset_groups, use_mask = numbers
    if not use_mask:
        call.overwrites(mask)
    call.out(
        "DeformConv", x, weight, offset, bias, mask if use_mask else None, strides=[stride_h, stride_w],
        pads=[pad_h, pad_w] * 2, dilations=[dilation_h, dilation_w], group=groups, offset_group=offset_groups,
        kernel_shape=list(known_shape(weight)[2:]),
    )  # fmt: skip
