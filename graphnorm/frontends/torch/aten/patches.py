"""ATen -> ONNX: windows and patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphnorm.frontends.torch.call import Call, Unlowerable, axis_of, known_shape, rank
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import reshaped, squeezed, taken, turned, unsqueezed
from graphnorm.ir import Value

TABLE = Lowerings()


@TABLE.lowers("unfold", "unfold_copy")
def unfold(call: Call, x: Value, axis: int, size: int, step: int) -> None:
    """Windows along an axis: their entries become a last axis."""
    axis = axis_of(axis, x)
    if axis in x.dynamic or not rank(x):
        raise Unlowerable
    where = np.arange(call.shape[axis])[:, None] * step + np.arange(size)
    windows = taken(call, x, call.constant(where), axis)
    call.yields(turned(call, windows, [i for i in range(rank(x) + 1) if i != axis + 1] + [axis + 1]))


@TABLE.lowers("im2col")
def im2col(
    call: Call,
    x: Value,
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> None:
    """Patches of an image: ``(batch, channels * kh * kw, positions)``."""
    lone = rank(x) == 3
    x = unsqueezed(call, x, [0]) if lone else x
    if x.dynamic - {0}:
        raise Unlowerable
    if any(padding):
        sizes = known_shape(x)[2:]
        shape = [*known_shape(x)[:2], *(n + 2 * pad for n, pad in zip(sizes, padding, strict=True))]
        pads = [0, 0, *padding] * 2
        x = call.step(
            "Pad", x, pads, call.number(0, x.dtype), shape=shape, dynamic=x.dynamic, mode="constant"
        )
    for axis, k, d, s in zip((2, 4), kernel, dilation, stride, strict=True):
        positions = (known_shape(x)[axis] - d * (k - 1) - 1) // s + 1
        x = taken(call, x, call.constant(np.arange(k)[:, None] * d + np.arange(positions) * s), axis)
    x = turned(call, x, [0, 1, 2, 4, 3, 5])
    batch, channels, *window = known_shape(x)
    count = int(np.prod(window[2:]))
    patches = reshaped(call, x, [batch, channels * window[0] * window[1], count])
    call.yields(squeezed(call, patches, [0]) if lone else patches)


@TABLE.lowers("col2im")
def col2im(
    call: Call,
    x: Value,
    size: Sequence[int],
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> None:
    """The sum of patches laid over one another."""
    lone = rank(x) == 2
    x = unsqueezed(call, x, [0]) if lone else x
    image = call.step(
        "Col2Im", x, list(size), list(kernel), shape=(*[1] * lone, *call.shape),
        dynamic=frozenset(axis + lone for axis in call.result.dynamic), dilations=list(dilation),
        pads=[*padding] * 2, strides=list(stride),
    )  # fmt: skip
    call.yields(squeezed(call, image, [0]) if lone else image)
