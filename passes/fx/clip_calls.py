"""A clip with one bound per channel, and which calls of an ``fx.Graph`` cut at numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import Node

from graphnorm.rescaling.clips import is_bound

Limit = int | float | None
ACTIVATIONS = (nn.ReLU6, nn.Hardtanh)  # these classes themselves: a subclass may compute something else
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class ChannelClip(nn.Module):
    """``min(max(x, min), max)``, where a bound is a buffer, a number, or None for no bound.

    A buffer broadcasts to the input, ``(channels, 1, 1)`` for images.  NaN stays NaN, as in ``torch.clamp``.

    Args:
        min: lower bound; None: none.
        max: upper bound; None: none.
        inplace: write into the input.

    >>> import torch
    >>> ChannelClip(0.0, torch.tensor([1.0, 6.0]))(torch.tensor([-1.0, 7.0]))
    tensor([0., 6.])
    """

    min: Any
    max: Any

    def __init__(self, min: Tensor | Limit = None, max: Tensor | Limit = None, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace
        for name, bound in (("min", min), ("max", max)):
            if isinstance(bound, Tensor):
                self.register_buffer(name, bound)
            else:
                setattr(self, name, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Clip; the result has the type of `x`."""
        if not isinstance(self.min, Tensor) and not isinstance(self.max, Tensor):
            out = torch.clamp(x, self.min, self.max)
        else:
            out = x
            for name in ("min", "max"):
                bound = getattr(self, name)
                if bound is not None:
                    typed = bound.to(x.dtype) if isinstance(bound, Tensor) else bound
                    out = torch.clamp(out, **{name: typed})
        return x.copy_(out) if self.inplace else out

    def extra_repr(self) -> str:
        shown = {name: getattr(self, name) for name in ("min", "max")}
        texts = [
            f"{name}={tuple(b.shape) if isinstance(b, Tensor) else b}"
            for name, b in shown.items()
            if b is not None
        ]
        return ", ".join(texts + ["inplace=True"] * self.inplace)


@dataclass(frozen=True)
class Clip:
    """Limits of a clip that are numbers, at least one of them one that a rescaling would have to move."""

    low: Limit
    high: Limit
    inplace: bool

    def bounds(
        self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> tuple[Tensor | Limit, Tensor | Limit]:
        """The limits, as tensors where they must move with the channels: 0 stays a number."""
        low, high = (
            torch.full(shape, limit, dtype=dtype, device=device)
            if limit is not None and is_bound(limit)
            else limit
            for limit in (self.low, self.high)
        )
        return low, high


def clip_of(module: nn.Module) -> Clip | None:
    """What a module clips, if it is a plain activation with bounds."""
    if type(module) is ChannelClip:
        return _clip(module.min, module.max, module.inplace)
    if type(module) not in ACTIVATIONS or any(getattr(module, hooks) for hooks in HOOKS):
        return None
    assert isinstance(module, nn.Hardtanh)
    return _clip(module.min_val, module.max_val, module.inplace)


def clip_call(node: Node) -> Clip | None:
    """What a function or method call clips, if its bounds are numbers."""
    name = _name(node)
    if name is None or operand(node) is None:
        return None
    kwargs = {key: value for key, value in node.kwargs.items() if key != "input"}
    try:
        low, high, inplace = _FORMS[name.removesuffix("_")](*node.args[1:], **kwargs)
    except TypeError:
        return None  # out= and the like
    return _clip(low, high, inplace or name.endswith("_"))


def operand(node: Node) -> Node | None:
    """What a call clips."""
    found = node.args[0] if node.args else node.kwargs.get("input")
    return found if isinstance(found, Node) else None


def _clip(low: Any, high: Any, inplace: Any) -> Clip | None:
    """None if a limit is not a number, or if no limit would be rescaled."""
    limits: list[Limit] = []
    for limit, unbounded in ((low, -torch.inf), (high, torch.inf)):
        if limit is not None and type(limit) not in (int, float):
            return None
        limits.append(None if limit == unbounded else limit)  # an integer stays one: so does the result
    if not isinstance(inplace, bool) or not any(map(is_bound, limits)):
        return None
    return Clip(limits[0], limits[1], inplace)


Limits = tuple[Any, Any, Any]


def _relu6(inplace: Any = False) -> Limits:
    return 0.0, 6.0, inplace


def _hardtanh(min_val: Any = -1.0, max_val: Any = 1.0, inplace: Any = False) -> Limits:
    return min_val, max_val, inplace


def _clamp(min: Any = None, max: Any = None) -> Limits:
    return min, max, False


def _clamp_min(min: Any) -> Limits:
    return min, None, False


def _clamp_max(max: Any) -> Limits:
    return None, max, False


_FORMS: dict[str, Callable[..., Limits]] = {
    "relu6": _relu6, "hardtanh": _hardtanh, "clamp": _clamp, "clip": _clamp, "clamp_min": _clamp_min,
    "clamp_max": _clamp_max,
}  # fmt: skip
_FUNCTIONS = {F.relu6, F.hardtanh, F.hardtanh_} | {
    getattr(torch, name + suffix)
    for name in ("clamp", "clip", "clamp_min", "clamp_max")
    for suffix in ("", "_")
}


def _name(node: Node) -> str | None:
    """``clamp_`` of ``x.clamp_``, ``torch.clamp_`` and ``aten.clamp_.default``, None for other calls."""
    target = node.target
    if node.op == "call_method":
        name = str(target)
    elif node.op != "call_function":
        return None
    elif isinstance(target, OpOverload):
        name = target._schema.name.removeprefix("aten::") if target._overloadname == "default" else ""
    else:
        name = getattr(target, "__name__", "") if target in _FUNCTIONS else ""
    return name if name.removesuffix("_") in _FORMS else None
