"""Convolution or linear layer and BatchNorm, as one EquiNorm layer.

EquiNorm's w'' = s (w + b) has no v-weighted mean, so that most weights cannot be matched exactly;
`equinorm_fit` finds those nearest in effect.  Gain and bias are the least-squares fit of what the BatchNorm
gave in evaluation mode, layer after layer, each on what the converted layers before it give.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from graphnorm.errors import InputError
from graphnorm.nn import (
    EquiNormConv1d,
    EquiNormConv2d,
    EquiNormConv3d,
    EquiNormLayer,
    EquiNormLinear,
    EquiNormOptions,
)  # fmt: skip
from graphnorm.nn.layers import geometry
from graphnorm.passes.fx.calls import Calls
from graphnorm.passes.fx.equinorm_fit import fit
from graphnorm.passes.fx.equinorm_layers import put, require_module, trace_layers
from graphnorm.passes.fx.fold import copied, norm_nodes, obstacles

_EQUINORM: dict[type[nn.Module], Any] = {
    nn.Conv1d: EquiNormConv1d,
    nn.Conv2d: EquiNormConv2d,
    nn.Conv3d: EquiNormConv3d,
    nn.Linear: EquiNormLinear,
}


class Conversion(NamedTuple):
    """One pair that became an EquiNorm layer.

    Attributes:
        layer: Path of the layer, now an EquiNorm layer.
        norm: Path that the BatchNorm had.
        error: Root mean square of what the fit leaves, over the standard deviation of what BatchNorm gave, on
            the calibration batch; None for a fresh layer.
    """

    layer: str
    norm: str
    error: float | None


@dataclass(eq=False)
class ConvertToEquiNormPass(PassBase):
    """Replace each convolution or linear layer with its BatchNorm by an EquiNorm layer.

    Takes an ``fx.GraphModule`` or any module that ``torch.fx`` can trace; in the latter an ``Identity`` takes
    the place of each BatchNorm.  Pairs are those that `FoldBatchNormPass` folds, transposed convolutions
    apart.

    Attributes:
        calibration: Positional arguments of one forward pass.  Layers are fitted to the function in
            evaluation mode on it; where an input has negative entries the layer gets ``signed_inputs``.
        fresh: New weights instead of the given ones, for training from scratch; the fit is left out, and
            ``calibration`` may be None.
        options: Of all EquiNorm layers; momentum None stands for each BatchNorm's own.
        inplace: Change the given module instead of a copy.
        converted: After a call, the pairs that were replaced.
        skipped: After a call, why each BatchNorm left was not: ``"bn2: ..."``.

    >>> import torch
    >>> pair = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
    >>> converted = ConvertToEquiNormPass(fresh=True)(pair).graph_module
    >>> [type(layer).__name__ for layer in converted]
    ['EquiNormConv2d', 'Identity', 'ReLU']
    """

    calibration: tuple[Any, ...] | None = None
    fresh: bool = False
    options: EquiNormOptions = field(default_factory=EquiNormOptions)
    inplace: bool = False
    converted: tuple[Conversion, ...] = field(default=(), init=False)
    skipped: tuple[str, ...] = field(default=(), init=False)

    def requires(self, graph_module: nn.Module) -> None:
        require_module(self, graph_module)

    def call(self, graph_module: Any) -> PassResult:
        """Replace what can be replaced.

        Raises:
            InputError: Neither ``calibration`` nor ``fresh``, a fit without ``track_running_stats``, or a
                model that cannot be traced or copied.
        """
        if self.calibration is None and not self.fresh:
            raise InputError(
                "give calibration=(inputs, ...) to fit the layers on, or fresh=True for new weights"
            )
        if not (self.fresh or self.options.track_running_stats):
            raise InputError("layers without running statistics cannot be fitted: use fresh=True")
        pairs, self.skipped = _pairs(trace_layers(graph_module))
        self.converted = ()
        if not pairs:
            return PassResult(graph_module, False)
        copy = graph_module if self.inplace and self.fresh else copied(graph_module, type(self).__name__)
        original, changed = (copy, graph_module) if self.inplace else (graph_module, copy)
        layers = {layer: self._replace(changed, layer, norm) for layer, norm in pairs.items()}
        errors: dict[str, float] = {}
        if self.calibration is not None:
            errors = fit(None if self.fresh else original, changed, pairs, layers, self.calibration)
        self.converted = tuple(Conversion(layer, norm, errors.get(layer)) for layer, norm in pairs.items())
        return PassResult(changed, True)

    def _replace(self, model: Any, layer_path: str, norm_path: str) -> EquiNormLayer:
        layer, norm = model.get_submodule(layer_path), model.get_submodule(norm_path)
        new = self._made(layer, norm)
        put(model, layer, new)
        if not isinstance(model, GraphModule):
            put(model, norm, nn.Identity())
            return new
        (node,) = (n for n in model.graph.nodes if n.op == "call_module" and n.target == norm_path)
        node.replace_all_uses_with(node.all_input_nodes[0])
        model.graph.erase_node(node)
        model.delete_submodule(norm_path)
        model.recompile()
        return new

    @torch.no_grad()
    def _made(self, layer: Any, norm: Any) -> EquiNormLayer:
        options = vars(self.options)
        if self.options.momentum is None:
            options = {**options, "momentum": norm.momentum}
        affine = norm.affine or not self.fresh  # the fit needs gain and bias
        new: Any = _EQUINORM[type(layer)](**geometry(layer), affine=affine, **options)
        if not self.fresh:
            new.weight.copy_(layer.weight)
        for parameter in new.parameters():
            parameter.requires_grad_(layer.weight.requires_grad)
        made: EquiNormLayer = new.train(layer.training)
        return made


def _pairs(traced: GraphModule) -> tuple[dict[str, str], tuple[str, ...]]:
    """Path of each layer to that of its BatchNorm, and why other BatchNorms have no part in it."""
    calls = Calls(traced)
    pairs, skipped = {}, []
    for node in norm_nodes(calls):
        layer = node.all_input_nodes[0]
        reason = next(_obstacles(calls, node), None)
        if reason is None:
            pairs[str(layer.target)] = str(node.target)
        else:
            skipped.append(f"{node.target if node.op == 'call_module' else node.name}: {reason}")
    return pairs, tuple(skipped)


def _obstacles(calls: Calls, norm_node: Any) -> Iterator[str]:
    yield from obstacles(calls, norm_node, evaluated=False)
    layer = calls.called(norm_node.all_input_nodes[0])
    if type(layer) not in _EQUINORM:
        yield f"there is no EquiNorm layer for {type(layer).__name__}"
