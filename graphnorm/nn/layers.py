"""EquiNorm in place of convolution and BatchNorm, linear layer and BatchNorm."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)
from torch.nn.common_types import _size_1_t, _size_2_t, _size_3_t

from graphnorm.nn.layer import EquiNormLayer, EquiNormOptions
from graphnorm.nn.statistics import strided_outputs

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
_GEOMETRY = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
)


def geometry(layer: Any) -> dict[str, Any]:
    """Arguments that make a layer like this convolution or linear layer, bias and weights apart."""
    names = ("in_features", "out_features") if isinstance(layer, nn.Linear) else _GEOMETRY
    found = {name: getattr(layer, name) for name in names}
    return {**found, "device": layer.weight.device, "dtype": layer.weight.dtype}


class _EquiNormConv(EquiNormLayer):
    """The part that does not depend on the rank."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    _reversed_padding_repeated_twice: list[int]
    _conv_forward: Any

    def forward(self, x: Tensor) -> Tensor:
        weight = self._weight_for(x)
        out: Tensor = self._conv_forward(x, weight, self.bias)
        return out

    def plain(self, bias: bool) -> nn.Module:
        kind: Any = next(kind for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(self, kind))
        made: nn.Module = nn.utils.skip_init(kind, **geometry(self), bias=bias)  # type: ignore[no-untyped-call]
        return made.train(self.training)

    def _outputs(self, x: Tensor) -> int:
        ends = self._reversed_padding_repeated_twice[::-1]
        padding = [before + after for before, after in zip(ends[::2], ends[1::2], strict=True)]
        axis = self._channel_axis(x)
        outputs = strided_outputs(x.shape[axis + 1 :], self.kernel_size, self.stride, padding, self.dilation)
        return outputs * (x.shape[0] if axis else 1)


class EquiNormConv1d(_EquiNormConv, nn.Conv1d):
    """`torch.nn.Conv1d` with equilibrium normalization, over ``([batch,] in_channels, length)``.

    The arguments are those of ``torch.nn.Conv1d``, with ``affine`` (gain and bias) in the place of ``bias``;
    ``options`` are the fields of `EquiNormOptions`.  Padded entries count as inputs only through r.

    >>> import torch
    >>> EquiNormConv1d(3, 8, 5)(torch.rand(4, 3, 20)).shape
    torch.Size([4, 8, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_1_t,
        stride: _size_1_t = 1,
        padding: str | _size_1_t = 0,
        dilation: _size_1_t = 1,
        groups: int = 1,
        affine: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        chosen = EquiNormOptions(**options)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, affine, padding_mode,
            device, dtype,
        )  # fmt: skip
        self._set_up(in_channels, affine, chosen)


class EquiNormConv2d(_EquiNormConv, nn.Conv2d):
    """`torch.nn.Conv2d` with equilibrium normalization, over ``([batch,] in_channels, height, width)``.

    The arguments are those of ``torch.nn.Conv2d``, with ``affine`` (gain and bias) in the place of ``bias``;
    ``options`` are the fields of `EquiNormOptions`.  Padded entries count as inputs only through r.

    >>> import torch
    >>> layer = EquiNormConv2d(3, 8, 3, padding=1, padding_mode="circular")
    >>> y = layer(torch.rand(16, 3, 10, 10))
    >>> bool(y.mean((0, 2, 3)).abs().max() < 1e-6)
    True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        stride: _size_2_t = 1,
        padding: str | _size_2_t = 0,
        dilation: _size_2_t = 1,
        groups: int = 1,
        affine: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        chosen = EquiNormOptions(**options)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, affine, padding_mode,
            device, dtype,
        )  # fmt: skip
        self._set_up(in_channels, affine, chosen)


class EquiNormConv3d(_EquiNormConv, nn.Conv3d):
    """`torch.nn.Conv3d` with equilibrium normalization, over ``([batch,] in_channels, *three sizes)``.

    The arguments are those of ``torch.nn.Conv3d``, with ``affine`` (gain and bias) in the place of ``bias``;
    ``options`` are the fields of `EquiNormOptions`.  Padded entries count as inputs only through r.

    >>> import torch
    >>> EquiNormConv3d(1, 2, 3, padding=1)(torch.rand(2, 1, 4, 4, 4)).shape
    torch.Size([2, 2, 4, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_3_t,
        stride: _size_3_t = 1,
        padding: str | _size_3_t = 0,
        dilation: _size_3_t = 1,
        groups: int = 1,
        affine: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        chosen = EquiNormOptions(**options)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, affine, padding_mode,
            device, dtype,
        )  # fmt: skip
        self._set_up(in_channels, affine, chosen)


class EquiNormLinear(EquiNormLayer, nn.Linear):  # type: ignore[misc] # torch types bias in two ways
    """`torch.nn.Linear` with equilibrium normalization, over ``(..., in_features)``.

    The arguments are those of ``torch.nn.Linear``, with ``affine`` (gain and bias) in place of ``bias``;
    ``options`` are the fields of `EquiNormOptions`.  A matrix is a kernel of one tap; r is the number of
    rows.

    >>> import torch
    >>> EquiNormLinear(6, 3)(torch.rand(10, 6)).shape
    torch.Size([10, 3])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        chosen = EquiNormOptions(**options)
        super().__init__(in_features, out_features, affine, device, dtype)
        self._set_up(in_features, affine, chosen)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight_for(x), self.bias)

    def plain(self, bias: bool) -> nn.Module:
        made: nn.Module = nn.utils.skip_init(nn.Linear, **geometry(self), bias=bias)  # type: ignore[no-untyped-call]
        return made.train(self.training)

    def _outputs(self, x: Tensor) -> int:
        return math.prod(x.shape[:-1])
