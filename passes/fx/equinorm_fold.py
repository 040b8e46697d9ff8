"""Fold evaluation-mode EquiNorm layers into plain ones.

With running statistics w'' does not depend on the input: the layer is the convolution by gain * w''.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from graphnorm.passes.fx.equinorm_layers import LayerPass


@dataclass(eq=False)
class FoldEquiNormPass(LayerPass):
    """Replace each evaluation-mode EquiNorm layer by the plain layer that computes the same.

    The result is for inference, and exports as plain convolutions.  Options: `LayerPass`.

    >>> import torch
    >>> from graphnorm.nn import EquiNormLinear
    >>> FoldEquiNormPass()(torch.nn.Sequential(EquiNormLinear(4, 2)).eval()).graph_module[0]
    Linear(in_features=4, out_features=2, bias=True)
    """

    def why_not(self, layer: Any) -> str | None:
        return (
            "it is in training mode; call eval() on the model" if layer.training else super().why_not(layer)
        )

    def made(self, layer: Any) -> nn.Module:
        plain: nn.Module = layer.folded()
        return plain
