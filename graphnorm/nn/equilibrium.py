r"""The weight transform of equilibrium normalization (Defazio & Bottou 2018).

With w of shape ``(out, in, *kernel)``, n taps per kernel, and v_c the sum of input channel c over batch and
space, divided by r = batch * prod(output size) * prod(stride) (all formulas depend on v / r only),

    b_d      = - sum_c v_c sum_jk w_dcjk / (n sum_c v_c)
    two-pass:  s_d = 1 / sum_c v_c sum_jk max(w_dcjk + b_d, 0)
    one-pass:  s_d = 1 / sum_c v_c (sum_jk max(w_dcjk, 0) + b_d #{jk: w_dcjk > 0})
    w''_dcjk = s_d (w_dcjk + b_d)

so that, up to borders, the output's mean is 0 and its positive part sums to 1 per entry (in one pass: of the
weights that were positive before b_d was added).  In a grouped convolution the sums run over the channels of
d's group.

Both denominators are non-negative if v is.  Where one is 0, no formula holds; the rule is

* v_c < 0 counts as 0;
* all v_c of a group are 0 (or so small that 1 / v^2 overflows: 1e-19 in float32): b_d = 0 and w'' = 0, the
  output is the affine's bias.  Running statistics that are all 0 count as 1 instead, see `seen`: in
  evaluation a group that never saw a signal still passes one on;
* the denominator of s_d is below 64 machine epsilons of the kernel's mass sum_c v_c sum_jk |w_dcjk| (a
  constant kernel; in one pass, a kernel of one sign): the mass takes its place.

The rule commutes with every rescaling that the formulas commute with: it compares quantities of equal
scale and fills in zeros only.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDING = 64  # machine epsilons within which a denominator is nothing but rounding


def equilibrium(weight: Tensor, v: Tensor, groups: int = 1, one_pass: bool = False) -> Tensor:
    """The normalized weights w''.

    Args:
        weight: ``(out_channels, in_channels // groups, *kernel)``; a matrix is a kernel of one tap.
        v: ``(in_channels,)``, input sums divided by r; differentiable like the weights.
        groups: as the convolution's.
        one_pass: read the weights once for both statistics.

    Returns:
        Shape and type of ``weight``; computed in float32 at least, by operators that autocast leaves alone.
    """
    exact = torch.promote_types(weight.dtype, torch.float32)
    w = weight.to(exact).reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    u = v.to(exact).clamp_min(0).reshape(groups, 1, weight.shape[1])
    shift = -(u * w.sum(3)).sum(2) * _reciprocal(w.shape[3] * u.sum(2))
    shift = shift[:, :, None, None]
    if one_pass:
        positive = w.clamp_min(0).sum(3) + shift[..., 0] * (w > 0).to(exact).sum(3)
    else:
        positive = (w + shift).clamp_min(0).sum(3)
    denominator, mass = (u * positive).sum(2), (u * w.abs().sum(3)).sum(2)
    sound = denominator > _ROUNDING * torch.finfo(exact).eps * mass
    scale = _reciprocal(torch.where(sound, denominator, mass))
    return (scale[:, :, None, None] * (w + shift)).reshape(weight.shape).to(weight.dtype)


def seen(v: Tensor, groups: int) -> Tensor:
    """Running statistics ``(in_channels,)``, with 1 for all channels of a group that has none above 0.

    The 1 also keeps the statistics in place when a model is rescaled: were they free, every gain could shrink
    along with them without limit, and the objective would have no minimum.
    """
    by_group = v.reshape(groups, -1)
    known = by_group.clamp_min(0).sum(1, keepdim=True) > 0
    return torch.where(known, by_group, 1.0).reshape(v.shape)


def _reciprocal(x: Tensor) -> Tensor:
    """1 / x of x >= 0; 0, with derivative 0, where the derivative 1 / x^2 is not finite.

    The only constant is infinity, which no rescaling changes.
    """
    usable = x.square().reciprocal() < torch.inf
    return torch.where(usable, x, torch.inf).reciprocal()
