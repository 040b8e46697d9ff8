"""What the EquiNorm passes share: which layers a model calls, and other modules in their places.

The passes take an ``fx.GraphModule`` or any other module.  The latter is traced to see which layer feeds
which, and changed by path: its class and code stay.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.fx import GraphModule, Tracer
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from torch.nn.utils import parametrize

from graphnorm.errors import InputError
from graphnorm.frontends.torch.state import LOCK
from graphnorm.nn import EquiNormConv1d, EquiNormConv2d, EquiNormConv3d, EquiNormLayer, EquiNormLinear
from graphnorm.passes.fx.calls import has_hooks
from graphnorm.passes.fx.fold import copied

_KINDS = (EquiNormConv1d, EquiNormConv2d, EquiNormConv3d, EquiNormLinear)


class LayerTracer(Tracer):
    """A ``torch.fx`` tracer to which EquiNorm layers are leaves, as those of ``torch.nn`` are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, EquiNormLayer) or super().is_leaf_module(m, module_qualified_name)


def trace_layers(model: nn.Module) -> GraphModule:
    """The graph of a model's layers, EquiNorm layers in one piece; a GraphModule is that itself.

    Arguments that have a default are left at it.

    Raises:
        InputError: ``torch.fx`` cannot trace the model.
    """
    if isinstance(model, GraphModule):
        return model
    parameters = inspect.signature(model.forward).parameters
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    try:
        with LOCK:  # torch.fx patches nn.Module meanwhile
            return GraphModule(model, LayerTracer().trace(model, defaults), type(model).__name__)
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"torch.fx cannot trace {type(model).__name__}: {first}") from error


def equinorm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Each EquiNorm layer once, by its first path."""
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, EquiNormLayer)}


def why_not_plain(layer: EquiNormLayer) -> str | None:
    """Why a layer is more than its class and tensors, and must not be replaced; empty if it is not."""
    if layer.running_v is None:
        return "it has no running statistics"
    if layer.weight.is_meta:
        return "it has no data (meta device)"
    if type(layer) not in _KINDS:
        return f"it is a {type(layer).__name__}, a subclass whose forward may differ"
    if parametrize.is_parametrized(layer):
        return "it is parametrized"
    return "it has hooks" if has_hooks(layer) else None


def put(model: Any, old: nn.Module, new: nn.Module) -> Any:
    """``new`` wherever the model holds ``old``, in place; ``new`` itself if the model is ``old``."""
    if model is old:
        return new
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            model.set_submodule(path, new)
    return model


@dataclass(eq=False)
class LayerPass(PassBase):
    """Base of passes that put other modules in the places of single ones.

    Takes an ``fx.GraphModule`` or any module, and returns one of the same class.

    Attributes:
        inplace: Change the given module; by default the result is a copy, unless there is nothing to replace.
        replaced: After a call, the paths of the modules that were replaced.
        skipped: After a call, why each other candidate was left: ``"conv1: ..."``.
    """

    inplace: bool = False
    replaced: tuple[str, ...] = field(default=(), init=False)
    skipped: tuple[str, ...] = field(default=(), init=False)

    def requires(self, graph_module: nn.Module) -> None:
        require_module(self, graph_module)

    def candidates(self, model: nn.Module) -> dict[str, nn.Module]:
        """By path, the modules that could be replaced: by default the EquiNorm layers."""
        return equinorm_layers(model)

    def why_not(self, layer: Any) -> str | None:
        """Why a candidate stays."""
        return why_not_plain(layer)

    def made(self, layer: Any) -> nn.Module:
        """The replacement of a candidate."""
        raise NotImplementedError

    def call(self, graph_module: Any) -> PassResult:
        """Replace what can be replaced.

        Raises:
            InputError: The module is to be copied and cannot be.
        """
        reasons = {path: self.why_not(layer) for path, layer in self.candidates(graph_module).items()}
        self.replaced = tuple(path for path, reason in reasons.items() if reason is None)
        self.skipped = tuple(f"{path or 'the model'}: {reason}" for path, reason in reasons.items() if reason)
        if not self.replaced:
            return PassResult(graph_module, False)
        changed: Any = graph_module if self.inplace else copied(graph_module, type(self).__name__)
        for path in self.replaced:
            layer = changed.get_submodule(path)
            changed = put(changed, layer, self.made(layer))
        return PassResult(changed, True)


def require_module(owner: PassBase, module: object) -> None:
    """Refuse anything but a module.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"{type(owner).__name__} takes a torch.nn.Module, got {type(module).__name__}")


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Modes of all modules back to what they were afterwards."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
