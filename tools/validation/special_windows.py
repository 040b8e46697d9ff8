"""Convolutions and pools in float64, from ONNX's definitions: torch's kernels, or window by window."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812

from graphnorm.ir import Array
from tools.validation.case import Case
from tools.validation.specials import special, tensor

Sizes = tuple[int, ...]


def _at(*parts: Any) -> Any:
    """An index of the axes behind batch and channels."""
    return (..., *parts)


def _numbers(attributes: Mapping[str, Any], name: str, rank: int, default: int) -> list[int]:
    return [int(n) for n in attributes.get(name) or [default] * rank]


def padding(attributes: Mapping[str, Any], size: Sizes, kernel: Sizes) -> tuple[list[int], list[int]]:
    """What is put before and after each axis."""
    rank = len(size)
    strides, dilations = (_numbers(attributes, name, rank, 1) for name in ("strides", "dilations"))
    auto = attributes.get("auto_pad", "NOTSET")
    if auto in {"NOTSET", "VALID"}:
        pads = _numbers(attributes, "pads", 2 * rank, 0)
        return pads[:rank], pads[rank:]
    before, after = [], []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        less, more = total // 2, total - total // 2
        before.append(less if auto == "SAME_UPPER" else more)
        after.append(more if auto == "SAME_UPPER" else less)
    return before, after


@special("Conv")
def _conv(case: Case, x: Array, w: Array, b: Array | None = None) -> list[Any]:
    a, rank = case.attributes, x.ndim - 2
    before, after = padding(a, x.shape[2:], w.shape[2:])
    widths = [n for pair in reversed(list(zip(before, after, strict=True))) for n in pair]
    y = (F.conv1d, F.conv2d, F.conv3d)[rank - 1](
        F.pad(tensor(x), widths), tensor(w), None if b is None else tensor(b),
        _numbers(a, "strides", rank, 1), 0, _numbers(a, "dilations", rank, 1), a.get("group", 1),
    )  # fmt: skip
    return [y.numpy()]


@special("ConvTranspose")
def _conv_transpose(case: Case, x: Array, w: Array, b: Array | None = None) -> list[Any]:
    """Without padding by torch; then cut to size."""
    a, rank = case.attributes, x.ndim - 2
    strides, extra = _numbers(a, "strides", rank, 1), _numbers(a, "output_padding", rank, 0)
    y = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1](
        tensor(x), tensor(w), None, strides, 0, 0, a.get("group", 1), _numbers(a, "dilations", rank, 1)
    ).numpy()
    full = [n + e for n, e in zip(y.shape[2:], extra, strict=True)]
    y = np.pad(y, [(0, 0), (0, 0), *((0, e) for e in extra)])
    auto = a.get("auto_pad", "NOTSET")
    wanted = list(a.get("output_shape", ()))[-rank:]
    if not wanted and auto.startswith("SAME"):
        wanted = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    if wanted:
        cut = [n - o for n, o in zip(full, wanted, strict=True)]
        before = [c // 2 if auto == "SAME_UPPER" else c - c // 2 for c in cut]
    else:
        pads = _numbers(a, "pads", 2 * rank, 0)
        before = pads[:rank]
        wanted = [n - p - q for n, p, q in zip(full, before, pads[rank:], strict=True)]
    y = y[_at(*(slice(p, p + n) for p, n in zip(before, wanted, strict=True)))]
    return [y if b is None else y + b.reshape(1, -1, *(1,) * rank)]


def windows(case: Case, size: Sizes) -> Iterator[tuple[Sizes, list[Sizes]]]:
    """Each place of a pool's result, and the operand's places in its window, also those outside."""
    a, rank = case.attributes, len(size)
    kernel = tuple(a["kernel_shape"])
    strides, dilations = (_numbers(a, name, rank, 1) for name in ("strides", "dilations"))
    before, after = padding(a, size, kernel)
    counts = []
    for n, k, s, d, p, q in zip(size, kernel, strides, dilations, before, after, strict=True):
        room = n + p + q - (k - 1) * d - 1
        count = room // s + 1
        if a.get("ceil_mode", 0) and room % s and count * s < n + p:  # no window begins in the padding behind
            count += 1
        counts.append(count)
    for place in itertools.product(*map(range, counts)):
        axes = [
            [i * s + j * d - p for j in range(k)]
            for i, k, s, d, p in zip(place, kernel, strides, dilations, before, strict=True)
        ]
        yield place, list(itertools.product(*axes))


def _is_inside(place: Sizes, size: Sizes) -> bool:
    return all(0 <= i < n for i, n in zip(place, size, strict=True))


def _pooled(case: Case, x: Array) -> Iterator[tuple[Sizes, list[Sizes], list[Sizes]]]:
    size = x.shape[2:]
    for place, covered in windows(case, size):
        yield place, covered, [p for p in covered if _is_inside(p, size)]


def _collected(parts: dict[Sizes, Array]) -> Array:
    """Results by place as one array, behind batch and channels."""
    counts = [max(axis) + 1 for axis in zip(*parts, strict=True)]
    lead = next(iter(parts.values())).shape
    found = np.stack(list(parts.values()), axis=-1)
    return np.asarray(found.reshape(*lead, *counts))


@special("MaxPool")
def _max_pool(case: Case, x: Array) -> list[Any]:
    """Values, and where they stand in the flat input."""
    index = np.arange(x.size).reshape(x.shape)
    if case.attributes.get("storage_order", 0):
        lead = x.shape[:2]
        inner = np.arange(int(np.prod(x.shape[2:]))).reshape(x.shape[:1:-1]).T
        index = inner + np.arange(int(np.prod(lead))).reshape(*lead, *(1,) * inner.ndim) * inner.size
    values, places = {}, {}
    for place, _, inside in _pooled(case, x):
        seen = np.stack([x[_at(*p)] for p in inside], axis=-1)
        best = seen.argmax(-1)
        values[place] = seen.max(-1)
        where = np.stack([index[_at(*p)] for p in inside], axis=-1)
        places[place] = np.take_along_axis(where, best[..., None], -1)[..., 0]
    return [_collected(values), _collected(places)][: case.results]


@special("AveragePool")
def _average_pool(case: Case, x: Array) -> list[Any]:
    """Padding counts where that is asked for, what a last window covers beyond it never."""
    size, found = x.shape[2:], {}
    before, after = padding(case.attributes, size, tuple(case.attributes["kernel_shape"]))
    padded = tuple(n + p + q for n, p, q in zip(size, before, after, strict=True))
    for place, covered, inside in _pooled(case, x):
        shifted = [tuple(i + b for i, b in zip(p, before, strict=True)) for p in covered]
        counted = (
            [p for p in shifted if _is_inside(p, padded)]
            if case.attributes.get("count_include_pad", 0)
            else inside
        )
        found[place] = np.stack([x[_at(*p)] for p in inside]).sum(0) / len(counted)
    return [_collected(found)]


@special("LpPool")
def _lp_pool(case: Case, x: Array) -> list[Any]:
    p = case.attributes.get("p", 2)
    found = {
        place: (np.stack([np.abs(x[_at(*i)]) ** p for i in inside]).sum(0)) ** (1 / p)
        for place, _, inside in _pooled(case, x)
    }
    return [_collected(found)]
