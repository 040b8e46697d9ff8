"""Signs of weights at initialisation: no output kernel of one sign only."""

from __future__ import annotations

import torch
from torch import Tensor


def one_signed(weight: Tensor) -> Tensor:
    """Mask ``(out_channels,)`` of the kernels with two weights or more that are not 0, all of one sign."""
    rows = weight.reshape(weight.shape[0], -1)
    positive, negative = (rows > 0).sum(1), (rows < 0).sum(1)
    return (positive + negative > 1) & ((positive == 0) | (negative == 0))


@torch.no_grad()
def resample_signs_(weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Redraw the signs of one-signed kernels in place, until each has both; magnitudes stay.

    A kernel of one weight cannot have both signs and stays as it is.  One pass over a one-signed kernel has
    no s_d (Defazio & Bottou 2018).

    Args:
        weight: ``(out_channels, ...)``, changed in place.
        generator: for the signs; None: torch's own.

    Returns:
        The weight.

    >>> weight = resample_signs_(torch.ones(3, 4))
    >>> bool(((weight > 0).any(1) & (weight < 0).any(1)).all())
    True
    """
    if weight.is_meta:
        return weight
    while (mask := one_signed(weight)).any():
        signs = torch.rand(weight[mask].shape, generator=generator, device=weight.device) < 0.5
        weight[mask] = torch.where(signs, weight[mask], -weight[mask])
    return weight
