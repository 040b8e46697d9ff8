"""Subclasses of BatchNorm that add an activation, as plain BatchNorm and what follows.

Libraries of models fuse the two into one class (``BatchNormAct2d`` of timm), which ``torch.fx`` traces into a
call of ``batch_norm`` as a function; passes look for modules.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import nn
from torch.fx import Graph
from torch.nn.utils import parametrize

from graphnorm.errors import InputError
from graphnorm.frontends.torch.state import alone
from graphnorm.passes.fx.calls import has_hooks
from graphnorm.passes.fx.equinorm_layers import LayerPass, trace_layers

_PLAIN: dict[type[nn.Module], int] = {nn.BatchNorm1d: 3, nn.BatchNorm2d: 4, nn.BatchNorm3d: 5}  # input ranks


@dataclass(eq=False)
class SplitNormPass(LayerPass):
    """Replace each subclass of BatchNorm that is BatchNorm, then other modules, by a ``Sequential`` of them.

    Run it before ``torch.fx.symbolic_trace``, `FoldBatchNormPass` or `ConvertToEquiNormPass`.  The function
    and the tensors are the same, in training too; names in the state dict are not: ``bn1.weight`` becomes
    ``bn1.0.weight``.  Options: `LayerPass`.

    >>> class NormAct(nn.BatchNorm2d):  # as timm's BatchNormAct2d
    ...     def __init__(self, channels):
    ...         super().__init__(channels)
    ...         self.act = nn.ReLU()
    ...
    ...     def forward(self, x):
    ...         if self.training:
    ...             self.num_batches_tracked.add_(1)
    ...         state = self.running_mean, self.running_var, self.weight, self.bias
    ...         x = nn.functional.batch_norm(x, *state, self.training, self.momentum, self.eps)
    ...         return self.act(x)
    >>> split = SplitNormPass()(nn.Sequential(NormAct(3))).graph_module
    >>> [type(layer).__name__ for layer in split[0]]
    ['BatchNorm2d', 'ReLU']
    """

    def candidates(self, model: nn.Module) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = dict(model.named_modules())
        return {
            path: norm
            for path, norm in modules.items()
            if isinstance(norm, tuple(_PLAIN)) and type(norm) not in _PLAIN
        }

    def why_not(self, layer: Any) -> str | None:
        if parametrize.is_parametrized(layer):
            return "it is parametrized"
        if has_hooks(layer):
            return "it has hooks"
        if layer.running_mean is not None and layer.running_mean.is_meta:
            return "it has no data (meta device)"
        try:
            parts = _parts(layer)
        except InputError as error:
            return str(error)
        if parts is None:
            return f"{type(layer).__name__} does more than BatchNorm and a row of modules"
        if not all(_same(layer, parts, training) for training in (False, True)):
            return f"{type(layer).__name__} computes something else than BatchNorm and what follows"
        return None

    def made(self, layer: Any) -> nn.Module:
        parts = _parts(layer)
        assert parts is not None  # `why_not` has looked
        return parts


def _parts(layer: Any) -> nn.Sequential | None:
    """The row of modules that this one seems to be, sharing its tensors; None if it has another form.

    Raises:
        InputError: ``torch.fx`` cannot trace it.
    """
    after = _after_norm(trace_layers(copy.deepcopy(layer).eval()).graph)
    if after is None:
        return None
    plain = next(kind for kind in _PLAIN if isinstance(layer, kind))
    tracked = layer.running_mean is not None
    norm: Any = plain(layer.num_features, layer.eps, layer.momentum, False, tracked)
    norm.affine, norm.weight, norm.bias = layer.weight is not None, layer.weight, layer.bias
    if tracked:
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            norm.register_buffer(name, getattr(layer, name))
    named = dict(layer.named_modules())
    row = nn.Sequential(norm.train(layer.training), *(named[path] for path in after))
    row.training = layer.training
    return row


def _after_norm(graph: Graph) -> list[str] | None:
    """Paths of the modules called one after another on the BatchNorm's output; None if there is more."""
    norms = [node for node in graph.nodes if node.target in {F.batch_norm, torch.batch_norm}]
    if len(norms) != 1 or norms[0].args[0] not in graph.find_nodes(op="placeholder"):
        return None
    node, paths = norms[0], list[str]()
    while len(node.users) == 1:
        (node,) = node.users
        if node.op == "output":
            return paths
        if node.op != "call_module" or len(node.all_input_nodes) != 1:
            return None
        paths.append(str(node.target))
    return None


def _same(layer: Any, parts: nn.Sequential, training: bool) -> bool:
    """Whether outputs, and statistics afterwards, are the same on a random batch, bit for bit."""
    one, other = (copy.deepcopy(module).train(training) for module in (layer, parts))
    rank = next(rank for kind, rank in _PLAIN.items() if isinstance(layer, kind))
    like = next((x for x in (layer.weight, layer.running_mean) if x is not None), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, layer.num_features, *[3] * (rank - 2), generator=generator).to(like)
    with alone(str(x.device)), torch.no_grad():
        first = one(x)
    with alone(str(x.device)), torch.no_grad():
        second = other(x)
    buffers = zip(one.buffers(recurse=False), other[0].buffers(recurse=False), strict=True)
    return torch.equal(first, second) and all(torch.equal(a, b) for a, b in buffers)
