"""EquiNorm layers as a plain layer with a normalisation after it, for comparison.

With s (w + b) the normalized weights under the running statistics,

    EquiNorm(x)_d = gain_d (s (w + b) * x)_d + bias_d = BN(s (w + b) * x)_d

for BatchNorm of mean 0, variance 1, gamma = gain sqrt(1 + eps) and beta = bias: the same function in
evaluation mode.  GroupNorm takes the same weights and affine; its function is another one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.passes.infra.pass_base import PassResult

from graphnorm.errors import InputError
from graphnorm.nn import EquiNormLayer
from graphnorm.passes.fx.equinorm_layers import LayerPass

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(eq=False)
class ConvertToBatchNormPass(LayerPass):
    """Replace each EquiNorm layer by plain layer and BatchNorm: the same function in evaluation mode.

    The two stand in a ``Sequential``.  An `EquiNormLinear` becomes Linear and BatchNorm1d, which take
    matrices only.  Options besides those of `LayerPass`:

    Attributes:
        eps: BatchNorm's.

    >>> from graphnorm.nn import EquiNormLinear
    >>> model = torch.nn.Sequential(EquiNormLinear(4, 2)).eval()
    >>> [type(layer).__name__ for layer in ConvertToBatchNormPass()(model).graph_module[0]]
    ['Linear', 'BatchNorm1d']
    """

    eps: float = 1e-5

    @torch.no_grad()
    def made(self, layer: Any) -> nn.Module:
        """Plain layer and BatchNorm in the EquiNorm layer's mode."""
        kind = _BATCH_NORMS[max(layer.weight.ndim - 3, 0)]
        norm = kind(len(layer.weight), self.eps, layer.options.momentum, affine=layer.gain is not None)
        norm = norm.to(layer.weight.device, layer.weight.dtype)
        _copy_affine(norm, layer.gain, layer.bias)
        if layer.gain is None:
            _tensor(norm.running_var).fill_(1 - self.eps)
        else:
            norm.weight.mul_(math.sqrt(1 + self.eps))
        return nn.Sequential(layer.folded(affine=False), norm).train(layer.training)


@dataclass(eq=False)
class ConvertToGroupNormPass(LayerPass):
    """Replace each EquiNorm layer by plain layer and GroupNorm, and each BatchNorm by GroupNorm.

    Weights and affine are kept, the function is not.  Options besides those of `LayerPass`:

    Attributes:
        groups: Of each GroupNorm; where they do not divide the channels, the greatest common divisor.
        eps: GroupNorm's.

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    >>> norm = ConvertToGroupNormPass(groups=4)(model).graph_module[1]
    >>> type(norm).__name__, norm.num_groups, norm.num_channels
    ('GroupNorm', 4, 8)
    """

    groups: int = 32
    eps: float = 1e-5

    def candidates(self, model: nn.Module) -> dict[str, nn.Module]:
        norms = {path: norm for path, norm in model.named_modules() if type(norm) in _BATCH_NORMS}
        return {**super().candidates(model), **norms}

    def why_not(self, layer: Any) -> str | None:
        return super().why_not(layer) if isinstance(layer, EquiNormLayer) else None

    def call(self, graph_module: Any) -> PassResult:
        """Replace what can be replaced.

        Raises:
            InputError: ``groups`` below 1, or the module is to be copied and cannot be.
        """
        if self.groups < 1:
            raise InputError(f"groups must be 1 or more, got {self.groups}")
        return super().call(graph_module)

    def made(self, layer: Any) -> nn.Module:
        """Plain layer and GroupNorm, or GroupNorm alone, in the layer's mode."""
        if isinstance(layer, EquiNormLayer):
            norm = self._norm(layer.weight, len(layer.weight), layer.gain, layer.bias)
            return nn.Sequential(layer.folded(affine=False), norm).train(layer.training)
        known = next((x for x in (layer.weight, layer.running_mean) if x is not None), None)
        return self._norm(known, layer.num_features, layer.weight, layer.bias).train(layer.training)

    def _norm(self, like: Tensor | None, channels: int, gain: Any, bias: Any) -> nn.Module:
        norm = nn.GroupNorm(math.gcd(self.groups, channels), channels, self.eps, affine=gain is not None)
        norm = norm if like is None else norm.to(like.device, like.dtype)
        _copy_affine(norm, gain, bias)
        return norm


@torch.no_grad()
def _copy_affine(norm: Any, gain: Any, bias: Any) -> None:
    if gain is not None:
        norm.weight.copy_(gain).requires_grad_(gain.requires_grad)
        norm.bias.copy_(bias).requires_grad_(bias.requires_grad)


def _tensor(x: Tensor | None) -> Tensor:
    assert x is not None
    return x
