"""The vocabulary of random networks: layers with the shapes of their parameters and of what they take.

Values have shape (rows, channels) or (rows, channels, length).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, ...]
Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Layer:
    """One word: how many operands, the shapes of its parameters, and what it computes."""

    arity: int
    apply: Callable[..., Tensor]
    parameters: Callable[[Shape], dict[str, Shape]] = lambda shape: {}
    fits: Callable[..., bool] = lambda *shapes: True


def no_parameters(apply: Callable[[Tensor], Tensor], fits: Callable[[Shape], bool] = lambda s: True) -> Layer:
    return Layer(1, lambda p, x: apply(x), fits=fits)


def pair(apply: Callable[[Tensor, Tensor], Tensor], fits: Callable[[Shape, Shape], bool]) -> Layer:
    return Layer(2, lambda p, x, y: apply(x, y), fits=fits)


def equal(a: Shape, b: Shape) -> bool:
    return a == b


def per_channel(x: Tensor, values: Tensor) -> Tensor:
    """One value a channel, ready to broadcast."""
    return values.reshape(-1, *(1,) * (x.ndim - 2))


def is_sequence(shape: Shape) -> bool:
    return len(shape) == 3


def is_even(shape: Shape) -> bool:
    return shape[1] % 2 == 0


def linear(p: Parameters, x: Tensor) -> Tensor:
    return F.linear(x, p["w"], p.get("b"))


def batch_norm(p: Parameters, x: Tensor) -> Tensor:
    return F.batch_norm(x, p["mean"], p["var"], p["gain"], p["bias"], eps=0.5)


def sized(**shapes: Callable[[Shape], Shape]) -> Callable[[Shape], dict[str, Shape]]:
    return lambda shape: {name: function(shape) for name, function in shapes.items()}


def channels(s: Shape) -> Shape:
    return (s[1],)


def last(s: Shape) -> Shape:
    return (s[-1],)


VOCABULARY: dict[str, Layer] = {
    # elementwise
    "relu": no_parameters(F.relu),
    "leaky_relu": no_parameters(F.leaky_relu),
    "abs": no_parameters(torch.abs),
    "square": no_parameters(torch.square),
    "root": no_parameters(lambda x: x.abs().sqrt()),
    "tanh": no_parameters(torch.tanh),
    "gelu": no_parameters(F.gelu),
    "clamp": no_parameters(lambda x: x.clamp(-0.7, 1.3)),
    "clamp_at_zero": no_parameters(lambda x: x.clamp(min=0.0)),
    "plus_one": no_parameters(lambda x: x + 1.0),
    # movement
    "transpose": no_parameters(lambda x: x.mT, is_sequence),
    "flatten": no_parameters(lambda x: x.flatten(1), is_sequence),
    "fold_channels": no_parameters(
        lambda x: torch.unflatten(x, 1, (2, -1)), lambda s: len(s) == 2 and is_even(s)
    ),
    "flip": no_parameters(lambda x: x.flip(1)),
    "first_half": no_parameters(lambda x: x.chunk(2, 1)[0], lambda s: is_even(s) and s[1] > 2),
    "repeat": no_parameters(lambda x: x.unsqueeze(-1).expand(-1, -1, 2), lambda s: len(s) == 2),
    "pad": no_parameters(lambda x: F.pad(x, (1, 0))),
    "shuffle": no_parameters(
        lambda x: torch.unflatten(x, 1, (2, -1)).transpose(1, 2).flatten(1, 2),
        lambda s: is_even(s) and s[1] > 2,
    ),
    # reductions
    "mean": no_parameters(lambda x: x.mean(-1), is_sequence),
    "max": no_parameters(lambda x: x.amax(-1), is_sequence),
    "pool": no_parameters(lambda x: F.avg_pool1d(x, 2, 1), lambda s: is_sequence(s) and s[2] > 1),
    "cumsum": no_parameters(lambda x: x.cumsum(-1)),
    "softmax": no_parameters(lambda x: torch.softmax(x, -1), lambda s: s[-1] > 1),
    "unit_length": no_parameters(lambda x: x / x.norm(dim=1, keepdim=True), lambda s: s[1] > 1),
    "glu": no_parameters(lambda x: F.glu(x, 1), lambda s: is_even(s) and s[1] > 2),
    # layers
    "linear2": Layer(1, linear, sized(w=lambda s: (2, s[-1]), b=lambda s: (2,))),
    "linear3": Layer(1, linear, sized(w=lambda s: (3, s[-1]), b=lambda s: (3,))),
    "linear4": Layer(1, linear, sized(w=lambda s: (4, s[-1]))),
    "linear_with_gain": Layer(
        1, lambda p, x: F.linear(x, p["w"] * p["g"]), sized(w=lambda s: (3, s[-1]), g=lambda s: (3, 1))
    ),
    "linear_low_rank": Layer(
        1,
        lambda p, x: F.linear(x, p["w"] + p["l"] @ p["r"]),
        sized(w=lambda s: (3, s[-1]), l=lambda s: (3, 1), r=lambda s: (1, s[-1])),
    ),
    "linear_outer": Layer(
        1, lambda p, x: F.linear(x, torch.outer(p["u"], p["v"])), sized(u=lambda s: (3,), v=last)
    ),
    "there_and_back": Layer(
        1, lambda p, x: F.linear(F.linear(x, p["w"]), p["w"].t()), sized(w=lambda s: (2, s[-1]))
    ),
    "linear_normed": Layer(
        1,
        lambda p, x: F.linear(x, p["g"] * p["w"] / p["w"].norm(dim=1, keepdim=True)),
        sized(w=lambda s: (2, s[-1]), g=lambda s: (2, 1)),
        fits=lambda s: s[-1] > 1,
    ),
    "conv": Layer(
        1, lambda p, x: F.conv1d(x, p["w"], p["b"], padding=1),
        sized(w=lambda s: (2, s[1], 2), b=lambda s: (2,)), is_sequence,
    ),
    "depthwise": Layer(
        1, lambda p, x: F.conv1d(x, p["w"], groups=x.shape[1], padding=1),
        sized(w=lambda s: (s[1], 1, 2)), is_sequence,
    ),
    "gain": Layer(1, lambda p, x: x * per_channel(x, p["g"]), sized(g=channels)),
    "bias": Layer(1, lambda p, x: x + per_channel(x, p["b"]), sized(b=channels)),
    "scalar": Layer(1, lambda p, x: x * p["g"], sized(g=lambda s: (1,))),
    "prelu": Layer(1, lambda p, x: F.prelu(x, p["slope"]), sized(slope=channels)),
    "batch_norm": Layer(1, batch_norm, sized(mean=channels, var=channels, gain=channels, bias=channels)),
    "layer_norm": Layer(
        1, lambda p, x: F.layer_norm(x, x.shape[-1:], p["gain"], p["bias"], eps=0.5),
        sized(gain=last, bias=last), lambda s: s[-1] > 1,
    ),
    "rms_norm": Layer(1, lambda p, x: F.rms_norm(x, x.shape[-1:], p["gain"], eps=0.5), sized(gain=last)),
    "group_norm": Layer(
        1, lambda p, x: F.group_norm(x, 1, p["gain"], p["bias"], eps=0.5),
        sized(gain=channels, bias=channels), lambda s: s[1] > 1,
    ),
    # two branches
    "add": pair(torch.add, equal),
    "mul": pair(torch.mul, equal),
    "maximum": pair(torch.maximum, equal),
    "divide": pair(lambda x, y: x / y.abs(), equal),
    "concat": pair(lambda x, y: torch.cat([x, y], 1), lambda a, b: a[:1] + a[2:] == b[:1] + b[2:]),
    "attend": pair(lambda x, y: x @ y.mT, lambda a, b: is_sequence(a) and is_sequence(b) and a[2] == b[2]),
    "mix": pair(lambda x, y: x @ y, lambda a, b: is_sequence(a) and is_sequence(b) and a[2] == b[1]),
}  # fmt: skip
