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
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from torch.nn.utils import parametrize

from graphnorm.errors import InputError

_NORM_AFTER: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.ConvTranspose1d: nn.BatchNorm1d,
    nn.ConvTranspose2d: nn.BatchNorm2d,
    nn.ConvTranspose3d: nn.BatchNorm3d,
    nn.Linear: nn.BatchNorm1d,
}
_LAYERS = tuple(_NORM_AFTER)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_NORM_FUNCTIONS: tuple[Callable[..., Any], ...] = (F.batch_norm, torch.batch_norm)

_SAME_RANK_MODULES = (
    *(nn.BatchNorm1d, nn.Linear, nn.Identity, nn.Dropout, nn.LayerNorm),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish),
)
_SAME_RANK_FUNCTIONS: tuple[Callable[..., Any], ...] = (F.relu, torch.relu, F.gelu, F.silu, F.dropout)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(eq=False)
class FoldBatchNormPass(PassBase):
    """Fold each evaluation-mode BatchNorm that directly follows a convolution or linear layer into it.

    Folded pairs are ``call_module`` nodes of plain ``torch.nn`` classes; every other BatchNorm stays, and
    `skipped` says why.  The result has lost those BatchNorms for good: it is for inference.  Folding
    needs the channels on axis 1: a Linear is folded only where its output is known to be a matrix (shape
    metadata, or a flatten before it); a Conv1d counts as batched unless metadata says otherwise.

    Attributes:
        inplace: Change the given module and its layers (with ``symbolic_trace`` these are the layers of
            the traced model too).  By default the result is a copy, unless there is nothing to fold.
        skipped: After a call, why each BatchNorm left was not folded: ``"bn2: ..."``.
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
        calls = _Calls(graph_module)
        reasons = [calls.why_not(node) for node in calls.norms]
        if None not in reasons:
            self.skipped = tuple(reason for reason in reasons if reason)
            return PassResult(graph_module, False)
        changed = graph_module if self.inplace else _copied(graph_module)
        self.skipped = _fold_all(changed)
        modified = len(self.skipped) < len(reasons)
        return PassResult(changed if modified else graph_module, modified)


def require_graph_module(owner: PassBase, module: object) -> None:
    """Refuse what is no GraphModule.

    Raises:
        InputError: It is something else; the message says how to trace it.
    """
    if not isinstance(module, GraphModule):
        raise InputError(
            f"{type(owner).__name__} takes a torch.fx.GraphModule, got {type(module).__name__}: "
            "trace it first with torch.fx.symbolic_trace(model)"
        )


def _copied(graph_module: GraphModule) -> GraphModule:
    try:
        return copy.deepcopy(graph_module)
    except RuntimeError as error:  # a tensor attribute with a gradient history, as torch.nn.utils.weight_norm's
        raise InputError(
            f"the module cannot be copied ({error}): remove its reparametrizations, "
            "or use FoldBatchNormPass(inplace=True)"
        ) from error


def _fold_all(graph_module: GraphModule) -> tuple[str, ...]:
    """Fold in graph order, so that a second BatchNorm in a row is folded too; the reasons of the rest."""
    calls = _Calls(graph_module)
    skipped = []
    for node in calls.norms:
        reason = calls.why_not(node) or _fold(calls, node)
        if reason:
            skipped.append(reason)
    graph_module.graph.lint()
    graph_module.recompile()
    return tuple(skipped)


def _fold(calls: _Calls, norm_node: Node) -> str | None:
    layer_node = norm_node.all_input_nodes[0]
    layer, norm = calls.modules[str(layer_node.target)], calls.modules[str(norm_node.target)]
    weight, bias = folded(layer, norm)
    if not (weight.isfinite().all() and bias.isfinite().all()):
        return f"{norm_node.target}: the folded weights of {layer_node.target} are not finite in {weight.dtype}"
    trainable = calls.parameter(layer, "weight").requires_grad
    layer.weight = nn.Parameter(weight, requires_grad=trainable)
    layer.bias = nn.Parameter(bias, requires_grad=trainable)
    norm_node.replace_all_uses_with(layer_node)
    calls.graph_module.graph.erase_node(norm_node)
    calls.graph_module.delete_submodule(str(norm_node.target))
    return None


def folded(layer: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of ``layer`` followed by ``norm``, on the layer's device and in its type."""
    mean, variance = _exact(norm.running_mean), _exact(norm.running_var)
    gamma = torch.ones_like(mean) if norm.weight is None else _exact(norm.weight)
    beta = torch.zeros_like(mean) if norm.bias is None else _exact(norm.bias)
    bias = torch.zeros_like(mean) if layer.bias is None else _exact(layer.bias)
    weight, scale = _exact(layer.weight), gamma / (variance + norm.eps).sqrt()
    if isinstance(layer, _TRANSPOSED):
        groups, taps = int(layer.groups), [1] * (weight.ndim - 2)
        by_group = weight.unflatten(0, (groups, -1))  # (groups, in // groups, out // groups, *kernel)
        new_weight = (by_group * scale.reshape(groups, 1, -1, *taps)).flatten(0, 1)
    else:
        new_weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    new_bias = scale * (bias - mean) + beta
    like = layer.weight
    return new_weight.to(like.device, like.dtype), new_bias.to(like.device, like.dtype)


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


class _Calls:
    """Who calls which module and who holds which tensor, in one GraphModule."""

    def __init__(self, graph_module: GraphModule) -> None:
        self.graph_module = graph_module
        self.modules: dict[str, nn.Module] = dict(graph_module.named_modules(remove_duplicate=False))
        self.times_called: Counter[int] = Counter()
        self.times_held: Counter[int] = Counter(
            id(tensor)
            for module in graph_module.modules()
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
        )
        self.norms: list[Node] = []
        for node in graph_module.graph.nodes:
            self._record(node)

    def _record(self, node: Node) -> None:
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            self.times_called.update(id(inner) for inner in module.modules())
            if isinstance(module, _NORMS):
                self.norms.append(node)
        elif node.op == "get_attr":
            held: Any = self.graph_module
            for name in str(node.target).split("."):
                held = getattr(held, name)
            self.times_held[id(held)] += 1
            if isinstance(held, nn.Module):
                self.times_called.update(id(inner) for inner in held.modules())
        elif node.op == "call_function" and node.target in _NORM_FUNCTIONS:
            self.norms.append(node)

    @staticmethod
    def parameter(module: nn.Module, name: str) -> Tensor:
        found = getattr(module, name)
        assert isinstance(found, Tensor)  # noqa: S101
        return found

    def why_not(self, norm_node: Node) -> str | None:
        """Why this BatchNorm cannot be folded, None if it can."""
        reason = next(self._obstacles(norm_node), None)
        name = norm_node.target if norm_node.op == "call_module" else norm_node.name
        return reason and f"{name}: {reason}"

    def _obstacles(self, norm_node: Node) -> Iterator[str]:
        if norm_node.op != "call_module":
            yield "batch_norm is called as a function; only BatchNorm modules are folded"
            return
        layer_node, norm = norm_node.all_input_nodes[0], self.modules[str(norm_node.target)]
        layer = self.modules.get(str(layer_node.target)) if layer_node.op == "call_module" else None
        if not isinstance(layer, _LAYERS):
            yield f"its input {layer_node.name} is not the output of a convolution or linear layer"
            return
        yield from self._pair_obstacles(str(layer_node.target), layer, norm)
        if len(layer_node.users) > 1:
            others = ", ".join(user.name for user in layer_node.users if user is not norm_node)
            yield f"the output of {layer_node.target} is also used by {others}"
        rank = self._rank(layer_node)
        if rank is None and isinstance(layer, nn.Linear):
            yield (
                f"the rank of {layer_node.target}'s output is unknown (BatchNorm's channels are axis 1); run "
                "torch.fx.passes.shape_prop.ShapeProp(graph_module).propagate(*example_inputs) first"
            )
        expected = layer.weight.ndim
        if rank is not None and rank != expected:
            yield f"the output of {layer_node.target} has rank {rank}, not {expected}: its channels are not axis 1"

    def _pair_obstacles(self, target: str, layer: Any, norm: Any) -> Iterator[str]:
        for name, module in ((target, layer), ("it", norm)):
            if parametrize.is_parametrized(module):
                yield f"{name} is parametrized"
            if any(getattr(module, hooks) for hooks in _HOOKS):
                yield f"{name} has hooks"
            if self.times_called[id(module)] > 1:
                yield f"{name} is called more than once"
        if type(layer) not in _NORM_AFTER:
            yield f"{target} is a {type(layer).__name__}, a subclass whose forward may differ"
        elif type(norm) is not _NORM_AFTER[type(layer)]:
            yield f"a {type(layer).__name__} takes a {_NORM_AFTER[type(layer)].__name__}, not a {type(norm).__name__}"
        if norm.training:
            yield "it is in training mode; call eval() on the model"
        if norm.running_mean is None or norm.running_var is None:
            yield "it has no running statistics"
        for name in ("weight", "bias"):
            tensor = getattr(layer, name)
            if tensor is not None and self.times_held[id(tensor)] > 1:
                yield f"the {name} of {target} is shared"
        if layer.weight.is_meta or norm.running_mean.is_meta:
            yield f"{target} has no data (meta device)"
        if not layer.weight.is_floating_point():
            yield f"the weight of {target} is {layer.weight.dtype}"
        channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        if norm.num_features != channels:
            yield f"it has {norm.num_features} channels, {target} has {channels}"

    def _rank(self, node: Node) -> int | None:
        """The rank of a value if metadata or the operators that lead to it tell."""
        while True:
            known = node.meta.get("tensor_meta", node.meta.get("val"))
            if hasattr(known, "shape"):
                return len(known.shape)
            if node.op == "call_module":
                module = self.modules[str(node.target)]
                if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
                    return 2
                keeps = isinstance(module, _SAME_RANK_MODULES)
            elif node.target in {torch.flatten, "flatten"}:
                return 2 if node.args[1:] in {(1,), (1, -1)} and not node.kwargs else None
            else:
                keeps = node.op == "call_function" and node.target in _SAME_RANK_FUNCTIONS
            if not keeps or not node.all_input_nodes:
                return None
            node = node.all_input_nodes[0]
