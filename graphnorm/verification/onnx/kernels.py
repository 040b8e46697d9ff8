"""Operators of ONNX's reference implementation that are wrong, slow or built on matrices of all patches.

Convolutions are products of matrices, a bounded number of patches at a time; windows of pooling are walked
offset by offset.  Nothing here holds more than a few copies of an operator's operands.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx.reference.op_run import OpRun

from graphnorm import ir
from graphnorm.verification.onnx.windows import Windows

_CHUNK = 1 << 21  # entries of the patches that are held at once
_FEW = 16  # products of channels: below, a product of matrices costs more than its call
_ALL = slice(None)


def _at(*parts: Any) -> Any:
    """An index."""
    return parts


class Conv(OpRun):
    """Chunks of patches times the kernel; kernels of few channels offset by offset."""

    op_domain = ""

    def _run(
        self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, pads=None,
        strides=None,
    ):  # fmt: skip
        windows = Windows.of(x.shape[2:], w.shape[2:], strides, dilations, pads, auto_pad)
        padded = windows.padded(x, 0.0)
        groups = group or 1
        per_group = w.shape[0] // groups * w.shape[1]
        run = _by_offset if per_group < _FEW else _by_patches
        found = run(padded, w, groups, windows)
        if b is not None:
            found += b.reshape(1, -1, *[1] * (x.ndim - 2))
        return (found,)


def _by_offset(padded: ir.Array, w: ir.Array, groups: int, windows: Windows) -> ir.Array:
    batch, outputs = padded.shape[0], w.shape[0]
    found = np.zeros((batch, groups, outputs // groups, *windows.output), dtype=padded.dtype)
    split = padded.reshape(batch, groups, -1, *padded.shape[2:])
    kernel = w.reshape(groups, outputs // groups, *w.shape[1:])
    for offset, at in windows.offsets():
        for o, i in itertools.product(range(kernel.shape[1]), range(kernel.shape[2])):
            factor = kernel[_at(_ALL, o, i, *offset)].reshape(-1, *[1] * len(at))
            found[:, :, o] += factor * split[_at(_ALL, _ALL, i, *at)]
    return found.reshape(batch, outputs, *windows.output)


def _by_patches(padded: ir.Array, w: ir.Array, groups: int, windows: Windows) -> ir.Array:
    batch, outputs, dims = padded.shape[0], w.shape[0], len(windows.output)
    found = np.empty((batch, outputs, *windows.output), dtype=padded.dtype)
    kernel = w.reshape(groups, outputs // groups, -1)
    view = windows.view(padded)  # (batch, channels, *output, *kernel)
    last = range(2 + dims, 2 + 2 * dims)
    for image, rows in _pieces(batch, windows.output, w[0].size * groups):
        patches = view[_at(image, _ALL, *rows)]  # a single image
        size = patches.shape[1 : 1 + dims]
        columns = patches.transpose(0, *[axis - 1 for axis in last], *range(1, 1 + dims))
        columns = columns.reshape(groups, kernel.shape[2], -1)
        found[_at(image, _ALL, *rows)] = (kernel @ columns).reshape(outputs, *size)
    return found


def _pieces(batch: int, output: Sequence[int], each: int) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Images and parts of the output whose patches of `each` entries fit into a chunk."""
    free = max(1, _CHUNK // max(each, 1))  # places at once
    steps: list[int] = []
    for size in reversed(output):
        steps.insert(0, max(1, min(size, free)))
        free = max(1, free // max(size, 1))
    starts = [range(0, size, step) for size, step in zip(output, steps, strict=True)]
    for image, *at in itertools.product(range(batch), *starts):
        yield image, tuple(slice(a, a + step) for a, step in zip(at, steps, strict=True))


class ConvTranspose(OpRun):
    """Each offset of the kernel writes one product of matrices into a strided part of the output."""

    op_domain = ""

    def _run(
        self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None,
        output_padding=None, output_shape=None, pads=None, strides=None,
    ):  # fmt: skip
        dims, groups = x.ndim - 2, group or 1
        ones = [1] * dims
        strides, dilations = strides or ones, dilations or ones
        extra = output_padding or [0] * dims
        reach = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
        whole = [s * (n - 1) + r + e for s, n, r, e in zip(strides, x.shape[2:], reach, extra, strict=True)]
        same = auto_pad in {"SAME_UPPER", "SAME_LOWER"}
        if output_shape is None and same:
            output_shape = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
        if output_shape is not None:
            output_shape = output_shape[-dims:]
            cut = [max(0, a - b) for a, b in zip(whole, output_shape, strict=True)]
            heads = [c // 2 if auto_pad == "SAME_UPPER" else c - c // 2 for c in cut]
        else:
            pads = pads or [0] * (2 * dims)
            heads = pads[:dims]
            output_shape = [a - p - q for a, p, q in zip(whole, heads, pads[dims:], strict=True)]
        room = [max(a, h + o) for a, h, o in zip(whole, heads, output_shape, strict=True)]
        batch, outputs = x.shape[0], w.shape[1] * groups
        found = np.zeros((batch, groups, w.shape[1], *room), dtype=x.dtype)
        columns = x.reshape(batch, groups, x.shape[1] // groups, -1)
        kernel = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
        for offset in itertools.product(*map(range, w.shape[2:])):
            product = kernel[_at(_ALL, _ALL, _ALL, *offset)].swapaxes(1, 2) @ columns
            at = tuple(
                slice(k * d, k * d + s * (n - 1) + 1, s)
                for k, d, s, n in zip(offset, dilations, strides, x.shape[2:], strict=True)
            )
            found[_at(_ALL, _ALL, _ALL, *at)] += product.reshape(batch, groups, w.shape[1], *x.shape[2:])
        inside = tuple(slice(h, h + o) for h, o in zip(heads, output_shape, strict=True))
        found = found.reshape(batch, outputs, *room)[_at(_ALL, _ALL, *inside)]
        return (found if b is None else found + b.reshape(1, -1, *ones),)


class MaxPool(OpRun):
    """Largest entry of each window, and its position on request."""

    op_domain = ""

    def _run(
        self, x, auto_pad=None, ceil_mode=None, dilations=None, kernel_shape=None, pads=None,
        storage_order=None, strides=None,
    ):  # fmt: skip
        windows = Windows.of(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, bool(ceil_mode))
        integers = np.issubdtype(x.dtype, np.integer)
        padded = windows.padded(x, np.iinfo(x.dtype).min if integers else -np.inf)
        parts = (padded[_at(_ALL, _ALL, *at)] for _, at in windows.offsets())
        if len(self.onnx_node.output) < 2:
            found = next(parts).copy()
            for part in parts:
                np.maximum(found, part, out=found)
            return (found,)
        if storage_order:
            raise NotImplementedError("MaxPool with places in column-major order")
        places = windows.padded(np.arange(x.size).reshape(x.shape), -1)
        found, where = next(parts).copy(), places[_at(_ALL, _ALL, *next(windows.offsets())[1])]
        for part, (_, at) in zip(parts, itertools.islice(windows.offsets(), 1, None), strict=True):
            larger = part > found
            found = np.where(larger, part, found)
            where = np.where(larger, places[_at(_ALL, _ALL, *at)], where)
        return found, where


class AveragePool(OpRun):
    """Mean of each window's entries, those of the padding counted on request."""

    op_domain = ""

    def _run(
        self, x, auto_pad=None, ceil_mode=None, count_include_pad=None, dilations=None, kernel_shape=None,
        pads=None, strides=None,
    ):  # fmt: skip
        windows = Windows.of(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, bool(ceil_mode))
        padded = windows.padded(x, 0.0)
        counted = windows.counted(bool(count_include_pad))
        total, count = np.zeros((*x.shape[:2], *windows.output), dtype=x.dtype), np.zeros(windows.output)
        for _, at in windows.offsets():
            total += padded[_at(_ALL, _ALL, *at)]
            count += counted[at]
        return (total / count,)


class LRN(OpRun):
    """Sums of squares over neighbouring channels (the library's own walks the batch instead)."""

    op_domain = ""

    def _run(self, x, alpha=None, beta=None, bias=None, size=None):
        before, after = math.floor((size - 1) / 2), math.ceil((size - 1) / 2)
        sums: npt.NDArray[np.float64] = np.zeros_like(x)
        squares = x**2
        for shift in range(-before, after + 1):
            a, b = max(0, -shift), min(x.shape[1], x.shape[1] - shift)
            if a < b:
                sums[:, a:b] += squares[:, a + shift : b + shift]
        return (x / (bias + alpha / size * sums) ** beta,)


class BatchNormalization(OpRun):
    """Inference mode.  The library's own, before opset 14, updates the running statistics with the batch."""

    op_domain = ""

    def _run(self, x, scale, bias, mean, var, epsilon=1e-5, momentum=0.9, training_mode=0, spatial=1):
        if training_mode or not spatial:
            raise NotImplementedError("BatchNormalization in training mode")
        shape = (1, -1) + (1,) * (x.ndim - 2)
        gain = scale / np.sqrt(var + epsilon)
        found = x * gain.reshape(shape)
        found += (bias - mean * gain).reshape(shape)
        return (found,)


KERNELS = (Conv, ConvTranspose, MaxPool, AveragePool, LRN, BatchNormalization)
