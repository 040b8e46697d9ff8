"""The base of all EquiNorm layers.

    y_d = gain_d * (w'' * x)_d + bias_d,   w'' of `graphnorm.nn.equilibrium`

In training v comes from the batch, in evaluation from ``running_v``, the running mean of v / r.  The gain is
multiplied into w'' before the convolution, so a layer reads its input once more than the plain layer does,
and never touches its output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from graphnorm.errors import InputError
from graphnorm.nn.equilibrium import equilibrium, seen
from graphnorm.nn.signs import resample_signs_
from graphnorm.nn.statistics import first_samples, input_sums, over_ranks

NO_STATISTICS = "the layer has no running statistics: it was made with track_running_stats=False"


@dataclass(frozen=True)
class EquiNormOptions:
    """How an EquiNorm layer computes its statistics.

    Attributes:
        one_pass: The formula for s_d that reads the weights once.
        momentum: Weight of the newest batch in ``running_v``, as BatchNorm's; None: the mean of all batches.
        track_running_stats: Keep ``running_v``; without, evaluation uses the batch's sums too.
        stats_fraction: Sums are taken over this first part of the batch.
        signed_inputs: Sum magnitudes: for inputs of both signs, whose plain sums cancel.
        synchronise: In training, sum v and r over the ranks of ``process_group``.
        process_group: None: all ranks.

    Raises:
        InputError: A number out of its range.

    >>> from graphnorm.nn import EquiNormLinear
    >>> EquiNormLinear(4, 2, momentum=None).options.momentum is None
    True
    """

    one_pass: bool = False
    momentum: float | None = 0.1
    track_running_stats: bool = True
    stats_fraction: float = 1.0
    signed_inputs: bool = False
    synchronise: bool = False
    process_group: dist.ProcessGroup | None = None

    def __post_init__(self) -> None:
        if not 0 < self.stats_fraction <= 1:
            raise InputError(f"stats_fraction must lie in (0, 1], got {self.stats_fraction}")
        if self.momentum is not None and not 0 <= self.momentum <= 1:
            raise InputError(f"momentum must lie in [0, 1] or be None, got {self.momentum}")


class EquiNormLayer(nn.Module):
    """Base of the EquiNorm layers; put before the plain layer's class.

    Attributes:
        weight: ``(out_channels, in_channels // groups, *kernel)``, before normalization.
        gain: ``(out_channels,)``, None without ``affine``; so is ``bias``.
        running_v: Running mean of v / r, ``(in_channels,)``; None without ``track_running_stats``.
        options: `EquiNormOptions`.

    >>> from graphnorm.nn import EquiNormLinear
    >>> layer = EquiNormLinear(4, 2)
    >>> isinstance(layer, EquiNormLayer), layer.gain.shape, layer.running_v.shape
    (True, torch.Size([2]), torch.Size([4]))
    """

    weight: Tensor
    bias: Tensor | None
    gain: Tensor | None
    running_v: Tensor | None
    num_batches_tracked: Tensor | None
    groups: int = 1

    def _set_up(self, inputs: int, affine: bool, options: EquiNormOptions) -> None:
        self.options = options
        like: dict[str, Any] = {"device": self.weight.device, "dtype": self.weight.dtype}
        tracked = options.track_running_stats
        count = torch.tensor(0, device=self.weight.device) if tracked else None
        self.gain = nn.Parameter(torch.ones(self.weight.shape[0], **like)) if affine else None
        self.register_buffer("running_v", torch.ones(inputs, **like) if tracked else None)
        self.register_buffer("num_batches_tracked", count)

    def reset_running_stats(self) -> None:
        """Reset the running statistics: ``running_v`` is 1."""
        if self.running_v is not None and self.num_batches_tracked is not None:
            self.running_v.fill_(1)
            self.num_batches_tracked.zero_()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Weights as torch.nn draws them, signs mixed; gain 1, bias 0, no batch seen."""
        super().reset_parameters()  # type: ignore[misc]
        resample_signs_(self.weight)
        if self.bias is not None:
            self.bias.zero_()
        if "running_v" in self._buffers:  # torch.nn calls this before the other attributes exist
            self.reset_running_stats()
            if self.gain is not None:
                self.gain.fill_(1)

    def normalized_weight(self, v: Tensor | None = None) -> Tensor:
        """What the input is convolved with: gain * w'', shape of ``weight``.

        Args:
            v: Input sums divided by r, ``(in_channels,)``; the running ones if None.

        Raises:
            InputError: The layer keeps no running statistics.
        """
        if v is None:
            if self.running_v is None:
                raise InputError(NO_STATISTICS)
            v = seen(self.running_v, self.groups)
        weight = equilibrium(self.weight, v, self.groups, self.options.one_pass)
        return weight if self.gain is None else weight * self._by_output(self.gain)

    def _by_output(self, x: Tensor) -> Tensor:
        """``(out_channels,)`` so that it multiplies ``weight``."""
        return x.reshape(-1, *[1] * (self.weight.ndim - 1))

    @torch.no_grad()
    def folded(self, affine: bool = True) -> nn.Module:
        """The plain layer that computes the same in evaluation mode; weights in float64, rounded once.

        Args:
            affine: With gain and bias; without, the convolution by w'' alone.

        Raises:
            InputError: The layer keeps no running statistics.
        """
        if self.running_v is None:
            raise InputError(NO_STATISTICS)
        v = seen(self.running_v.double(), self.groups)
        weight = equilibrium(self.weight.double(), v, self.groups, self.options.one_pass)
        gain, bias = (self.gain, self.bias) if affine else (None, None)
        made = self.plain(bias=bias is not None)
        plain: Any = made
        plain.weight.copy_(weight if gain is None else weight * self._by_output(gain.double()))
        plain.weight.requires_grad_(self.weight.requires_grad)
        if bias is not None:
            plain.bias.copy_(bias).requires_grad_(bias.requires_grad)
        return made

    def plain(self, bias: bool) -> nn.Module:
        """A layer of ``torch.nn`` with this one's geometry, type, device and mode; weights not yet set."""
        raise NotImplementedError

    def _weight_for(self, x: Tensor) -> Tensor:
        """`normalized_weight` by the statistics that apply to this input."""
        self._require(x)
        if self.running_v is not None and (not self.training or x.numel() == 0):
            return self.normalized_weight()
        v = self.batch_statistics(x)
        if self.training and self.running_v is not None:
            self._track(self.running_v, v.detach().to(self.running_v.dtype))
        return self.normalized_weight(v)

    def batch_statistics(self, x: Tensor) -> Tensor:
        """V / r of this input, ``(in_channels,)``, in float32 at least."""
        options, axis = self.options, self._channel_axis(x)
        part = first_samples(x, options.stats_fraction) if axis else x
        v, r = input_sums(part, axis, options.signed_inputs), self._outputs(part)
        if options.synchronise and self.training:
            return torch.div(*over_ranks(v, r, options.process_group))
        return v / r

    def _channel_axis(self, x: Tensor) -> int:
        return x.ndim - self.weight.ndim + 1

    def _outputs(self, x: Tensor) -> int:
        """r: output entries per channel, times the strides."""
        raise NotImplementedError

    @torch.no_grad()
    def _track(self, running: Tensor, v: Tensor) -> None:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        if self.options.momentum is None:
            running.add_((v - running) / self.num_batches_tracked)
        else:
            running.lerp_(v, self.options.momentum)

    def _require(self, x: Tensor) -> None:
        axis, space, channels = (
            self._channel_axis(x),
            self.weight.ndim - 2,
            self.weight.shape[1] * self.groups,
        )
        if axis < 0 or (axis > 1 and space) or x.shape[axis] != channels:
            shape = f"([batch,] {channels}, {space} sizes)" if space else f"(..., {channels})"
            raise InputError(f"{type(self).__name__} takes an input of shape {shape}, got {tuple(x.shape)}")

    def extra_repr(self) -> str:
        parts = [super().extra_repr()]
        parts += [f"{name}={item}" for name, item in vars(self.options).items() if item != _DEFAULTS[name]]
        return ", ".join(parts)


_DEFAULTS = vars(EquiNormOptions())
