"""ATen -> ONNX: convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphnorm.frontends.torch.call import Call, known_shape, moved, rank, spread
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import turned, unsqueezed
from graphnorm.ir import Value

TABLE = Lowerings()


def _same_pads(weight: Value, dilation: Sequence[int]) -> list[int]:
    # torch pads the end by one more where the total is odd.
    totals = [d * (size - 1) for d, size in zip(dilation, known_shape(weight)[2:], strict=True)]
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]


def _convolve(call: Call, op: str, x: Value, weight: Value, bias: Value | None, **attributes: Any) -> None:
    if _is_batched(call, x, rank(weight)):
        call.out(op, x, weight, bias, **attributes)
        return
    # torch accepts an image without batch axis
    dynamic = frozenset(axis + 1 for axis in call.result.dynamic)
    image = call.step(
        op, unsqueezed(call, x, [0]), weight, bias, shape=(1, *call.shape), dynamic=dynamic, **attributes
    )
    call.out("Squeeze", image, [0])


def _is_batched(call: Call, x: Value, expected: int) -> bool:
    if x.shape is not None:
        return rank(x) == expected
    source: Any = call.node.args[0]  # of a size that only a run tells
    return bool(source.meta["val"].dim() == expected)


@TABLE.lowers(*(f"conv{n}d" for n in "123"), *(f"conv{n}d.padding" for n in "123"))
def conv(
    call: Call,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] | str = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> None:
    n = rank(weight) - 2
    dilations = spread(dilation, n)
    if padding == "same":
        pads = _same_pads(weight, dilations)
    else:
        pads = [0] * 2 * n if isinstance(padding, str) else spread(padding, n) * 2
    strides = spread(stride, n)
    _convolve(
        call, "Conv", x, weight, bias, strides=strides, pads=pads, dilations=dilations, group=groups,
        kernel_shape=list(known_shape(weight)[2:]),
    )  # fmt: skip


@TABLE.lowers("conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input")
def conv_transpose(
    call: Call,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    output_padding: Sequence[int] = (0,),
    groups: int = 1,
    dilation: Sequence[int] = (1,),
) -> None:
    n = rank(weight) - 2
    _convolve(
        call, "ConvTranspose", x, weight, bias, strides=spread(stride, n), pads=spread(padding, n) * 2,
        output_padding=spread(output_padding, n), dilations=spread(dilation, n), group=groups,
        kernel_shape=list(known_shape(weight)[2:]),
    )  # fmt: skip


@TABLE.lowers("convolution", "_convolution", "_convolution.deprecated", "convolution_overrideable")
def convolution(
    call: Call,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    *_: object,
) -> None:
    if transposed:
        conv_transpose(call, x, weight, bias, stride, padding, output_padding, groups, dilation)
    else:
        conv(call, x, weight, bias, stride, padding, dilation, groups)


@TABLE.lowers("conv_tbc")
def conv_tbc(call: Call, x: Value, weight: Value, bias: Value, pad: int = 0) -> None:
    """``x: [time, batch, in]``, ``weight: [taps, in, out]``."""
    time, batch, channels = call.shape
    kernel = turned(call, weight, [2, 1, 0])
    made = call.step(
        "Conv", turned(call, x, [1, 2, 0]), kernel, bias, shape=(batch, channels, time),
        dynamic=moved(call.result.dynamic, [1, 2, 0]), strides=[1], pads=[pad, pad], dilations=[1], group=1,
        kernel_shape=[known_shape(kernel)[2]],
    )  # fmt: skip
    call.out("Transpose", made, perm=[2, 0, 1])
