"""ATen -> ONNX: pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphnorm.frontends.torch.call import Call, Unlowerable, known_shape, rank, spread
from graphnorm.frontends.torch.registry import Lowering, Lowerings
from graphnorm.frontends.torch.steps import filled, reshaped, scaled, squeezed, unsqueezed
from graphnorm.ir import Value

TABLE = Lowerings()


def _pooled(call: Call, op: str, x: Value, ndim: int, **attributes: Any) -> Value:
    """A pool over the last ``ndim`` axes; torch accepts an image without batch axis."""
    lone = rank(x) == ndim + 1
    image = unsqueezed(call, x, [0]) if lone else x
    dynamic = frozenset(axis + lone for axis in call.result.dynamic)
    made = call.step(op, image, shape=(*[1] * lone, *call.shape), dynamic=dynamic, **attributes)
    return squeezed(call, made, [0]) if lone else made


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
        attributes: dict[str, Any] = {
            "kernel_shape": spread(kernel, ndim), "strides": spread(stride or kernel, ndim),
            "pads": spread(padding, ndim) * 2, "dilations": spread(dilation, ndim),
            "ceil_mode": int(ceil_mode),
        }  # fmt: skip
        if call.wants(1):
            _max_pool_with_places(call, x, ndim, attributes)
        else:
            call.yields(_pooled(call, "MaxPool", x, ndim, **attributes))

    return lower


def _max_pool_with_places(call: Call, x: Value, ndim: int, attributes: dict[str, Any]) -> None:
    """ONNX counts places through the whole tensor, torch within one channel of one image."""
    lone = rank(x) == ndim + 1
    if any(axis >= rank(x) - ndim for axis in x.dynamic):
        raise Unlowerable
    image = unsqueezed(call, x, [0]) if lone else x
    shape = (*[1] * lone, *call.shape)
    dynamic = frozenset(axis + lone for axis in call.result.dynamic)
    made = call.steps(
        "MaxPool", image, shapes=[shape, shape], dtypes=[x.dtype, "int64"], dynamic=dynamic, **attributes
    )
    size = call.number(math.prod(known_shape(x)[-ndim:]), "int64")
    made[1] = call.step("Mod", made[1], size, like=made[1])
    for index, value in enumerate(made):
        call.yields(squeezed(call, value, [0]) if lone else value, index)


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
        if divisor is not None and ceil_mode:
            raise Unlowerable  # windows that are cut off have other divisors
        made = _pooled(
            call, "AveragePool", x, ndim, kernel_shape=spread(kernel, ndim),
            strides=spread(stride or kernel, ndim), pads=spread(padding, ndim) * 2, ceil_mode=int(ceil_mode),
            count_include_pad=int(count_include_pad or divisor is not None),
        )  # fmt: skip
        entries = math.prod(spread(kernel, ndim))
        call.yields(made if divisor is None else scaled(call, made, entries / divisor))

    return lower


def _adaptive_pool(ndim: int, family: str) -> Lowering:
    def lower(call: Call, x: Value, *_: object) -> None:
        before, after = known_shape(x)[-ndim:], call.shape[-ndim:]
        fixed = not any(axis >= rank(x) - ndim for axis in x.dynamic)
        if call.wants(1):
            attributes = {"kernel_rank": ndim, "output_size": list(after)}
            call.out(f"aten::adaptive_{family}_pool", x, count=2, **attributes)
        elif set(after) == {1}:
            name = "GlobalAveragePool" if family == "avg" else "GlobalMaxPool"
            call.yields(_pooled(call, name, x, ndim))
        elif call.shape == x.shape:
            call.out("Identity", x)
        elif fixed and all(n % m == 0 for n, m in zip(before, after, strict=True)):
            windows = [n // m for n, m in zip(before, after, strict=True)]
            name = "AveragePool" if family == "avg" else "MaxPool"
            call.yields(_pooled(call, name, x, ndim, kernel_shape=windows, strides=windows))
        else:
            call.out(f"aten::adaptive_{family}_pool", x, kernel_rank=ndim, output_size=list(after))

    return lower


for _n in (1, 2, 3):
    TABLE.add(f"avg_pool{_n}d", _avg_pool(_n))
    TABLE.add(f"max_pool{_n}d", _max_pool(_n))
    TABLE.add(f"max_pool{_n}d_with_indices", _max_pool(_n))
    TABLE.add(f"adaptive_avg_pool{_n}d", _adaptive_pool(_n, "avg"))
    TABLE.add(f"adaptive_max_pool{_n}d", _adaptive_pool(_n, "max"))
TABLE.add("_adaptive_avg_pool2d", _adaptive_pool(2, "avg"))
TABLE.add("_adaptive_avg_pool3d", _adaptive_pool(3, "avg"))


def _fractional_pool(ndim: int) -> Lowering:
    def lower(call: Call, x: Value, kernel: Sequence[int], size: Sequence[int], samples: Value) -> None:
        """Maxima over windows at random places."""
        count = 2 if call.wants(1) else 1
        call.out("aten::fractional_max_pool", x, samples, count=count, kernel_rank=ndim,
                 kernel_shape=spread(kernel, ndim), output_size=spread(size, ndim))  # fmt: skip

    return lower


def _max_unpool(ndim: int) -> Lowering:
    def lower(call: Call, x: Value, places: Value, size: Sequence[int], *_: object) -> None:
        """Puts entries back to their places in a channel that is 0 elsewhere."""
        lead = known_shape(x)[:-ndim]
        if any(axis >= rank(x) - ndim for axis in x.dynamic):
            raise Unlowerable
        inside = math.prod(known_shape(x)[-ndim:])
        entries, index = (reshaped(call, value, [*lead, inside]) for value in (x, places))
        empty = filled(call, [*lead, math.prod(spread(size, ndim))], 0, x.dtype, entries.dynamic)
        made = call.step("ScatterElements", empty, index, entries, like=empty, axis=len(lead))
        call.yields(reshaped(call, made, call.shape))

    return lower


for _n in (2, 3):
    TABLE.add(f"fractional_max_pool{_n}d", _fractional_pool(_n))
    TABLE.add(f"max_unpool{_n}d", _max_unpool(_n))
