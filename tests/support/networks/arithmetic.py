"""Constants, powers, quotients, contractions of branches, saturating functions, losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.networks.common import ROWS, Function, Inputs, Network, linear, normal, parameter
from tests.support.networks.selection import beside, one, two


def with_target(inputs: Inputs, target: Callable[[torch.Generator], Tensor]) -> Inputs:
    return lambda generator: (*inputs(generator), target(generator))


def supervised(loss: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    """A loss inside the network, one value a row."""
    return Function(lambda s, x, y: loss(s.b(F.relu(s.a(x))), y), a=linear(3, 4), b=linear(4, 2))


BIG = normal(4, 3, size=1.5)
NUMBERS = with_target(ROWS, lambda g: torch.randn(4, 2, generator=g, dtype=torch.float64))
CLASSES = with_target(ROWS, lambda g: torch.randint(0, 2, (4,), generator=g))

NETWORKS: dict[str, Network] = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)),
        normal(3, 3),
    ),
    "add_zero": (lambda: one(lambda y: y + torch.zeros(4, dtype=y.dtype)), ROWS),
    "add_one": (lambda: one(lambda y: F.relu(y + 1.0)), ROWS),
    "add_some": (lambda: one(lambda y: y + torch.tensor([0.0, 1.0, 0.0, 2.0], dtype=y.dtype)), ROWS),
    "times_constant": (lambda: one(lambda y: y * torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=y.dtype)), ROWS),
    "times_some": (lambda: beside(lambda y: y * torch.tensor([1.0, 0.0, 0.5, 0.0], dtype=y.dtype), 4), ROWS),
    "divided_by_constant": (lambda: one(lambda y: y / 3.0), ROWS),
    "divided_by_branch": (lambda: two(lambda a, b: a / b.abs()), ROWS),
    "divided_by_self": (lambda: one(lambda y: y / (y + 0.5)), ROWS),
    "divided_by_sum": (lambda: two(lambda a, b: F.relu(a) / b.abs().sum(-1, keepdim=True)), ROWS),
    "reciprocal": (lambda: two(lambda a, b: F.relu(a) * b.abs().reciprocal()), ROWS),
    "square_root": (lambda: two(lambda a, b: a.abs().sqrt() * b), ROWS),
    "inverse_square_root": (lambda: two(lambda a, b: F.relu(a) * b.square().rsqrt()), ROWS),
    "cube": (lambda: one(lambda y: y**3), ROWS),
    "fractional_power": (lambda: two(lambda a, b: a.abs() ** 1.5 + b), ROWS),
    "powers_by_channel": (
        lambda: beside(lambda y: y.abs() ** torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=y.dtype), 4), ROWS
    ),
    "powers_with_zero": (
        lambda: one(lambda y: y.abs() ** torch.tensor([0.0, 2.0, 2.0, 1.5], dtype=y.dtype)), ROWS
    ),
    "powers_by_row_and_channel": (
        lambda: one(lambda y: y.abs() ** torch.tensor([[1.0], [2.0], [1.0], [3.0]], dtype=y.dtype)), ROWS
    ),
    "power_of_branch": (lambda: two(lambda a, b: a.abs() ** b), ROWS),
    "branch_to_base": (lambda: one(lambda y: 2.0**y), ROWS),
    "abs": (lambda: one(lambda y: (y - 0.0).abs()), ROWS),
    "abs_of_difference": (lambda: two(lambda a, b: (a - b).abs()), ROWS),
    "clamp_min_zero": (lambda: two(lambda a, b: a.clamp(min=0) + b), ROWS),
    "clamp_bounds": (lambda: two(lambda a, b: a.clamp(-0.7, 1.3) * b), BIG),
    "clamp_to_branch": (lambda: two(lambda a, b: torch.clamp(a, min=b)), ROWS),
    "max_over_channels": (lambda: one(lambda y: y / y.amax(-1, keepdim=True)), normal(4, 3, size=3.0)),
    "softmax": (lambda: one(lambda y: torch.softmax(y, -1)), ROWS),
    "log_sum_exp": (lambda: one(lambda y: torch.logsumexp(y, -1, keepdim=True) + y), ROWS),
    "softplus": (lambda: one(F.softplus), ROWS),
    "celu": (lambda: two(lambda a, b: F.celu(a) * F.relu(b)), ROWS),
    "hardtanh": (lambda: two(lambda a, b: F.hardtanh(a) * F.relu(b)), BIG),
    "rrelu": (lambda: one(lambda y: F.rrelu(y - 2.0 * y.flip(1))), ROWS),
    "product_over_channels": (lambda: one(lambda y: (y + y.flip(0) * 0.5).prod(-1, keepdim=True), 1), ROWS),
    "variance": (lambda: one(lambda y: torch.cat([y, y.var(-1, keepdim=True)], -1), 5), ROWS),
    "norm_over_channels": (lambda: one(lambda y: y.norm(dim=-1, keepdim=True), 1), ROWS),
    "hypotenuse": (lambda: two(lambda a, b: torch.hypot(a, b)), ROWS),
    "angle": (lambda: two(lambda a, b: torch.atan2(a, b)), ROWS),
    "lerp": (lambda: two(lambda a, b: torch.lerp(a, b, 0.3)), ROWS),
    "einsum_outer": (
        lambda: Function(
            lambda s, x: s.c(torch.einsum("ni,nj->nij", s.a(x), F.relu(s.b(x))).flatten(1)),
            a=linear(3, 2), b=linear(3, 2), c=linear(4, 2),
        ),
        ROWS,
    ),
    "einsum_three": (
        lambda: Function(
            lambda s, x: s.c(torch.einsum("ni,nj,ijk->nk", F.relu(s.a(x)), F.relu(s.b(x)), s.core)),
            a=linear(3, 2), b=linear(3, 2), core=parameter(2, 2, 3), c=linear(3, 2),
        ),
        ROWS,
    ),
    "bilinear_module": (
        lambda: Function(
            lambda s, x: s.c(F.relu(s.m(F.relu(s.a(x)), F.relu(s.b(x))))),
            a=linear(3, 2), b=linear(3, 2), m=nn.Bilinear(2, 2, 3), c=linear(3, 2),
        ),
        ROWS,
    ),
    "gram": (
        lambda: Function(
            lambda s, x: s.c((F.relu(s.a(x)).mT @ F.relu(s.a(x))).flatten(1)), a=linear(3, 2), c=linear(4, 2)
        ),
        normal(3, 3, 3),
    ),
    "mixer": (  # matrices along both axes
        lambda: Function(
            lambda s, x: s.c(F.relu(s.t(F.relu(s.a(x)).mT)).mT),
            a=linear(3, 3), t=linear(2, 3), c=linear(3, 2),
        ),
        normal(2, 2, 3),
    ),
    "matrix_from_left": (
        lambda: Function(
            lambda s, x: s.c(F.relu(s.w @ F.relu(s.a(x)))), a=linear(3, 3), w=parameter(4, 2), c=linear(3, 2)
        ),
        normal(2, 2, 3),
    ),
    "loss_squared": (lambda: supervised(lambda p, y: F.mse_loss(p, y, reduction="none")), NUMBERS),
    "loss_mean": (lambda: supervised(F.mse_loss), NUMBERS),
    "loss_cross_entropy": (lambda: supervised(lambda p, y: F.cross_entropy(p, y, reduction="none")), CLASSES),
    "loss_nll": (
        lambda: supervised(lambda p, y: F.nll_loss(F.log_softmax(p, -1), y, reduction="none")), CLASSES
    ),
    "loss_huber": (lambda: supervised(lambda p, y: F.smooth_l1_loss(p, y, reduction="none")), NUMBERS),
    "loss_binary": (
        lambda: supervised(lambda p, y: F.binary_cross_entropy_with_logits(p, y.sigmoid(), reduction="none")),
        NUMBERS,
    ),
}  # fmt: skip
