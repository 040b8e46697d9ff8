"""Fold evaluation-mode BatchNorm into the layer before it, in an ``fx.GraphModule``.

In evaluation mode BatchNorm is affine per channel.  With s = gamma / sqrt(running_var + eps),

    BN(W x + b) = s (W x + b - running_mean) + beta = W' x + b'
    W' = s W,    b' = s (b - running_mean) + beta

where s runs along the output channels of W: axis 0 of ``(out_channels, in_channels // groups, *kernel)``,
and, group by group, axis 1 of a transposed convolution's ``(in_channels, out_channels // groups, *kernel)``.
All is computed in float64 and rounded once to the type of W.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from torch.nn.utils import parametrize

from graphnorm.errors import InputError
from graphnorm.passes.fx.calls import Calls, has_hooks, require_graph_module

Module = TypeVar("Module", bound=nn.Module)
_NORM_AFTER: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.ConvTranspose1d: nn.BatchNorm1d,
    nn.ConvTranspose2d: nn.BatchNorm2d,
    nn.ConvTranspose3d: nn.BatchNorm3d,
    nn.Linear: nn.BatchNorm1d,
}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(eq=False)
class FoldBatchNormPass(PassBase):
    """Fold each evaluation-mode BatchNorm that directly follows a convolution or linear layer into it.

    Folded pairs are ``call_module`` nodes of plain ``torch.nn`` classes; every other BatchNorm stays, and
    `skipped` says why.  The result has lost those BatchNorms for good: it is for inference.  Folding
    needs the channels on axis 1: a Linear is folded only where its output is known to be a matrix (shape
    metadata, or a flatten before it); a convolution counts as batched unless metadata says otherwise.

    Attributes:
        inplace: Change the given module and its layers (after ``symbolic_trace`` these are the layers of
            the traced model too).  By default the result is a copy, unless there is nothing to fold.
        skipped: After a call, why each BatchNorm left was not folded: ``"bn2: ..."``.

    >>> import torch
    >>> from torch.fx import symbolic_trace
    >>> pair = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
    >>> folded = FoldBatchNormPass()(symbolic_trace(pair)).graph_module
    >>> [type(layer).__name__ for layer in folded.children()]
    ['Conv2d', 'ReLU']
    """

    inplace: bool = False
    skipped: tuple[str, ...] = field(default=(), init=False)

    def requires(self, graph_module: GraphModule) -> None:
        require_graph_module(self, graph_module)

    def call(self, graph_module: GraphModule) -> PassResult:
        """Fold what can be folded.

        Raises:
            InputError: The module is to be copied and cannot be.
        """
        reasons = _reasons(graph_module)
        if None not in reasons:  # don't copy a large model for nothing
            self.skipped = tuple(reason for reason in reasons if reason)
            return PassResult(graph_module, False)
        changed = graph_module if self.inplace else copied(graph_module, type(self).__name__)
        self.skipped = _fold_all(changed)
        modified = len(self.skipped) < len(reasons)
        return PassResult(changed if modified else graph_module, modified)


def copied(module: Module, owner: str) -> Module:
    """A deep copy.

    Raises:
        InputError: There is none; the message names ``owner``, a pass with an option ``inplace``.
    """
    try:
        return copy.deepcopy(module)
    except RuntimeError as error:  # a tensor with a gradient history, as torch.nn.utils.weight_norm leaves
        raise InputError(
            f"the module cannot be copied ({error}): remove its reparametrizations, "
            f"or use {owner}(inplace=True)"
        ) from error


def norm_nodes(calls: Calls) -> list[Node]:
    """Every call of a BatchNorm, in graph order."""
    return [
        node
        for node in calls.graph_module.graph.nodes
        if isinstance(calls.called(node), _NORMS)
        or (node.op == "call_function" and node.target in {F.batch_norm, torch.batch_norm})
    ]


def _reasons(graph_module: GraphModule) -> list[str | None]:
    calls = Calls(graph_module)
    return [_why_not(calls, node) for node in norm_nodes(calls)]


def _fold_all(graph_module: GraphModule) -> tuple[str, ...]:
    """Fold in graph order, so that a second BatchNorm in a row goes too; returns the reasons of the rest."""
    calls = Calls(graph_module)
    reasons = [_why_not(calls, node) or _fold(calls, node) for node in norm_nodes(calls)]
    graph_module.graph.lint()
    graph_module.recompile()
    return tuple(reason for reason in reasons if reason)


def _fold(calls: Calls, norm_node: Node) -> str | None:
    """Fold one pair; the reason if the result does not fit its type."""
    layer_node = norm_node.all_input_nodes[0]
    layer: Any = calls.called(layer_node)
    weight, bias = _folded(layer, calls.called(norm_node))
    if not (weight.isfinite().all() and bias.isfinite().all()):
        return (
            f"{norm_node.target}: the folded weights of {layer_node.target} are not finite in {weight.dtype}"
        )
    trainable = layer.weight.requires_grad
    layer.weight = nn.Parameter(weight, requires_grad=trainable)
    layer.bias = nn.Parameter(bias, requires_grad=trainable)
    norm_node.replace_all_uses_with(layer_node)
    calls.graph_module.graph.erase_node(norm_node)
    calls.graph_module.delete_submodule(str(norm_node.target))
    return None


def _folded(layer: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of ``layer`` followed by ``norm``, on the layer's device and in its type."""
    mean, variance = _exact(norm.running_mean), _exact(norm.running_var)
    gamma = torch.ones_like(mean) if norm.weight is None else _exact(norm.weight)
    beta = torch.zeros_like(mean) if norm.bias is None else _exact(norm.bias)
    bias = torch.zeros_like(mean) if layer.bias is None else _exact(layer.bias)
    weight, scale = _exact(layer.weight), gamma / (variance + norm.eps).sqrt()
    taps = [1] * (weight.ndim - 2)
    if isinstance(layer, _TRANSPOSED):
        by_group = weight.reshape(layer.groups, -1, *weight.shape[1:])  # (groups, in, out, *kernel)
        new_weight = (by_group * scale.reshape(layer.groups, 1, -1, *taps)).reshape(weight.shape)
    else:
        new_weight = weight * scale.reshape(-1, 1, *taps)
    new_bias, like = scale * (bias - mean) + beta, layer.weight
    return new_weight.to(like.device, like.dtype), new_bias.to(like.device, like.dtype)


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _why_not(calls: Calls, norm_node: Node) -> str | None:
    """Why this BatchNorm cannot be folded, None if it can."""
    reason = next(obstacles(calls, norm_node), None)
    name = norm_node.target if norm_node.op == "call_module" else norm_node.name
    return reason and f"{name}: {reason}"


def obstacles(calls: Calls, norm_node: Node, evaluated: bool = True) -> Iterator[str]:
    """All obstacles; a later test may rely on the earlier ones, so only the first is used.

    Without ``evaluated`` the pair is judged as layers, and the state of the BatchNorm does not matter.
    """
    if norm_node.op != "call_module":
        yield "batch_norm is called as a function, and passes read modules; use SplitNormPass before tracing"
    layer_node = norm_node.all_input_nodes[0]
    norm: Any = calls.called(norm_node)
    layer: Any = calls.called(layer_node)
    target = str(layer_node.target)
    if not isinstance(layer, tuple(_NORM_AFTER)):
        yield f"its input {layer_node.name} is not the output of a convolution or linear layer"
        return
    named: tuple[tuple[str, Any], ...] = ((target, layer), ("it", norm))
    for name, module in named:
        if parametrize.is_parametrized(module):
            yield f"{name} is parametrized"
        if has_hooks(module):
            yield f"{name} has hooks"
        if calls.times_called[id(module)] > 1:
            yield f"{name} is called more than once"
    yield from _mismatches(target, layer, norm, evaluated)
    for name in ("weight", "bias"):
        if calls.times_held[id(getattr(layer, name))] > 1:
            yield f"the {name} of {target} is shared"
    if len(layer_node.users) > 1:
        others = ", ".join(user.name for user in layer_node.users if user is not norm_node)
        yield f"the output of {target} is also used by {others}"
    rank = calls.rank(layer_node)
    if rank is None and isinstance(layer, nn.Linear):
        yield (
            f"the rank of {target}'s output is unknown, and BatchNorm's channels are axis 1; run "
            "torch.fx.passes.shape_prop.ShapeProp(graph_module).propagate(*example_inputs) first"
        )
    if rank not in {None, layer.weight.ndim}:
        yield f"the output of {target} has rank {rank}, not {layer.weight.ndim}: channels are not axis 1"


def _mismatches(target: str, layer: Any, norm: Any, evaluated: bool) -> Iterator[str]:
    """What about the two modules themselves is in the way."""
    kind = type(layer)
    if kind not in _NORM_AFTER:
        yield f"{target} is a {kind.__name__}, a subclass whose forward may differ"
    if type(norm) is not _NORM_AFTER[kind]:
        yield f"{kind.__name__} takes {_NORM_AFTER[kind].__name__}, it is {type(norm).__name__}"
    if norm.training and evaluated:
        yield "it is in training mode; call eval() on the model"
    if evaluated and (norm.running_mean is None or norm.running_var is None):
        yield "it has no running statistics"
    if layer.weight.is_meta or (norm.running_mean is not None and norm.running_mean.is_meta):
        yield f"{target} or it has no data (meta device)"
    if not layer.weight.is_floating_point():
        yield f"the weight of {target} is {layer.weight.dtype}"
    channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    if norm.num_features != channels:
        yield f"it has {norm.num_features} channels, {target} has {channels}"
