"""torchvision's compiled operators; where they cannot be loaded, plain ones under the same names."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
    "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
    "SymInt offset_groups, bool use_mask) -> Tensor",
)


def load() -> None:
    """Make ``torch.ops.torchvision`` available."""
    with contextlib.suppress(ImportError, RuntimeError):  # not installed, or built for another torch
        importlib.import_module("torchvision")
    for schema in SCHEMAS:
        if hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            continue
        name = f"torchvision::{schema.partition('(')[0]}"
        torch.library.define(name, schema.partition("(")[1] + schema.partition("(")[2], lib=LIBRARY)
        kernel, shape = KERNELS[name.partition("::")[2]]
        torch.library.impl(name, "CPU", kernel, lib=LIBRARY)
        torch.library.register_fake(name, shape, lib=LIBRARY)


LIBRARY = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Places of the boxes that overlap with no better one that is kept."""
    kept: list[int] = []
    for place in scores.argsort(descending=True).tolist():
        if all(_overlap(boxes[place], boxes[other]) <= threshold for other in kept):
            kept.append(place)
    return torch.tensor(kept)


def _overlap(a: Tensor, b: Tensor) -> float:
    low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
    shared = (high - low).clamp(min=0).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


def _sampled(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Bilinear interpolation of ``[channels, h, w]``, 0 outside."""
    height, width = image.shape[-2:]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)[None]
    return F.grid_sample(image[None], grid, align_corners=False)[0]


def deform_conv2d(
    x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, *numbers: int
) -> Tensor:
    """A convolution that reads entry k of its window at ``place + offset[k]``."""
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, offset_groups, use_mask = numbers
    kernel_h, kernel_w = weight.shape[-2:]
    height, width = offset.shape[-2:]
    rows = torch.arange(height)[:, None] * stride_h - pad_h
    columns = torch.arange(width)[None, :] * stride_w - pad_w
    each = x.shape[1] // offset_groups
    read = x.new_empty(x.shape[0], x.shape[1], kernel_h * kernel_w, height, width)
    for n in range(x.shape[0]):
        for group in range(offset_groups):
            part = slice(group * each, (group + 1) * each)
            for k in range(kernel_h * kernel_w):
                first = 2 * (group * kernel_h * kernel_w + k)
                y = rows + (k // kernel_w) * dilation_h + offset[n, first]
                z = columns + (k % kernel_w) * dilation_w + offset[n, first + 1]
                found = _sampled(x[n, part], y, z)
                read[n, part, k] = found * mask[n, first // 2] if use_mask else found
    patches = read.reshape(x.shape[0], groups, -1, height * width)
    filters = weight.reshape(groups, weight.shape[0] // groups, -1)
    result = torch.einsum("ngkp,gok->ngop", patches, filters)
    return result.reshape(x.shape[0], -1, height, width) + bias[:, None, None]


def roi_align(
    x: Tensor, rois: Tensor, scale: float, height: int, width: int, samples: int, aligned: bool
) -> Tensor:
    """Means of ``samples`` squared interpolated points per cell of each region."""
    result = x.new_empty(rois.shape[0], x.shape[1], height, width)
    for n, (number, *corners) in enumerate(rois.tolist()):
        left, top, right, bottom = (corner * scale - 0.5 * aligned for corner in corners)
        size_h, size_w = bottom - top, right - left
        if not aligned:
            size_h, size_w = max(size_h, 1.0), max(size_w, 1.0)
        steps_h = (torch.arange(height * samples) + 0.5) / samples
        steps_w = (torch.arange(width * samples) + 0.5) / samples
        y = (top + steps_h * size_h / height).clamp(min=0, max=x.shape[2] - 1)
        z = (left + steps_w * size_w / width).clamp(min=0, max=x.shape[3] - 1)
        points = _sampled(x[int(number)], y[:, None].expand(-1, len(z)), z[None].expand(len(y), -1))
        result[n] = F.avg_pool2d(points, samples)
    return result


def _nms_shape(boxes: Tensor, *_: object) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


def _deform_shape(x: Tensor, weight: Tensor, offset: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], *offset.shape[-2:])


def _roi_shape(x: Tensor, rois: Tensor, scale: float, height: int, width: int, *_: object) -> Tensor:
    return x.new_empty(rois.shape[0], x.shape[1], height, width)


KERNELS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "nms": (nms, _nms_shape),
    "roi_align": (roi_align, _roi_shape),
    "deform_conv2d": (deform_conv2d, _deform_shape),
}
