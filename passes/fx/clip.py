"""Bounds of clips as weights, in torch modules (see `graphnorm.rescaling.clips` for which, and why).

A clip is replaced where it has a place of its own: a submodule that is called once, or, in a
``GraphModule``, a call in its graph.  A shared activation and a functional one have none in an eager
module; it is then traced with ``torch.fx.symbolic_trace``, and the result is a ``GraphModule``.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from graphnorm.errors import InputError
from graphnorm.frontends.torch.read import read_torch
from graphnorm.frontends.torch.state import LOCK
from graphnorm.ir import Graph
from graphnorm.passes.fx.calls import Calls
from graphnorm.passes.fx.clip_calls import ChannelClip, Clip, clip_call, clip_of, operand
from graphnorm.passes.fx.clip_program import copied, rewrite_program
from graphnorm.rescaling.clips import PINNED_ANYWAY, Rewriting, bounded_clips, movable_clips
from graphnorm.verification.rewriting import first_departure

_SHARED = "it is not an activation module that is called once"
_CLOSED = "its bounds are not numbers, it has hooks, or it is called in a module that the graph does not open"


@dataclass(eq=False)
class RewriteClipsPass(PassBase):
    """Make buffers of the bounds of ReLU6, Hardtanh and clamp, one entry per channel; the same to the bit.

    Only clips whose channels could be rescaled then are rewritten, so that `CanonicalizePass` finds more
    freedom.  Takes any ``nn.Module``; one with functional or shared clips comes back as a ``GraphModule``.
    The given module is not changed.

    Attributes:
        example_inputs: Positional arguments of the module; only their shapes and types matter.
        kwargs: Keyword arguments.
        rewritten: After a call, the names of the clips that were rewritten.
        skipped: After a call, why each other bounded clip was left: ``"act: ..."``.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU6(), torch.nn.Linear(8, 2))
    >>> RewriteClipsPass((torch.randn(3, 4),))(model).graph_module[1]
    ChannelClip(min=0.0, max=(8,))
    """

    example_inputs: tuple[Any, ...]
    kwargs: Mapping[str, Any] | None = None
    rewritten: tuple[str, ...] = field(default=(), init=False)
    skipped: tuple[str, ...] = field(default=(), init=False)

    def requires(self, graph_module: nn.Module) -> None:
        if not isinstance(graph_module, nn.Module):
            raise InputError(f"RewriteClipsPass takes a torch module, got {type(graph_module).__name__}")

    def call(self, graph_module: Any) -> PassResult:
        """Rewrite; the given module itself comes back if nothing gains from it.

        Raises:
            InputError: The module cannot be copied.
            ExportError: ``torch.export`` cannot trace it.
        """
        found = rewrite_clips(graph_module, tuple(self.example_inputs), dict(self.kwargs or {}))
        self.rewritten, self.skipped = found.rewritten, found.left
        return PassResult(found.model, found.model is not graph_module)


def rewrite_clips(
    model: nn.Module | ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Rewriting:
    """A copy of a torch model whose clips have per-channel bounds where that gives freedom.

    Raises:
        InputError: the model cannot be copied.
        ExportError: ``torch.export`` cannot trace it.
    """
    if isinstance(model, ExportedProgram):
        return rewrite_program(model)
    found = _survey(model, args, kwargs)
    if isinstance(model, GraphModule) or not found.homeless:
        return _rewritten(found, _CLOSED)
    try:
        traced = _survey(_traced(model), args, kwargs)
    except InputError as error:
        return _rewritten(found, f"{_SHARED}, and {error}")
    departure = first_departure(found.network, traced.network)
    if departure:  # hooks of the model itself, say, which torch.fx does not see
        return _rewritten(found, f"{_SHARED}, and torch.fx traces something else: {departure}")
    return _rewritten(traced if len(traced.shapes) > len(found.shapes) else found, _CLOSED)


@dataclass(frozen=True)
class _Survey:
    """The bounded clips of a module.

    Attributes:
        shapes: path of each clip that gains freedom and has a place -> shape of its bounds.
        homeless: names of nodes that would gain freedom and have no place.
        clips: path of each activation with bounds -> its limits.
        types: path of each that is called once -> type and device of its input.
    """

    model: nn.Module
    network: Graph
    shapes: dict[str, tuple[int, ...]]
    homeless: frozenset[str]
    clips: dict[str, Clip]
    types: dict[str, tuple[torch.dtype, torch.device]]


def _survey(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Survey:
    probe = copied(model)
    separate_calls(probe)
    clips = dict(_own_instances(probe))
    calls = _watched(probe, clips)
    network = read_torch(probe, args, kwargs)
    types = {path: seen[0] for path, seen in calls.items() if len(seen) == 1}
    scopes = {node.name: node.scope for node in network.nodes}
    shapes = movable_clips(network)
    homeless = frozenset(name for name in shapes if scopes[name] not in types)
    if homeless:
        shapes = movable_clips(network, homeless)
    placed = {scopes[name]: shape for name, shape in shapes.items()}
    return _Survey(model, network, placed, homeless, clips, types)


def _rewritten(found: _Survey, reason: str) -> Rewriting:
    """Replace the clips that have a place; ``reason`` is why the homeless ones have none."""
    left = tuple(
        f"{node.label}: {reason if node.name in found.homeless else PINNED_ANYWAY}"
        for node in bounded_clips(found.network)
        if node.scope not in found.shapes
    )
    if not found.shapes:
        return Rewriting(found.model, (), left)
    model = copied(found.model)
    separate_calls(model, found.shapes)
    for path, shape in found.shapes.items():
        parent, _, name = path.rpartition(".")
        clip = found.clips[path]
        new = ChannelClip(*clip.bounds(shape, *found.types[path]), clip.inplace)
        setattr(model.get_submodule(parent), name, new.train(model.get_submodule(path).training))
    return Rewriting(model, tuple(found.shapes), left)


def separate_calls(module: nn.Module, wanted: Container[str] | None = None) -> None:
    """Give clips of a graph that have no module of their own a `ChannelClip`; changes the module.

    Args:
        module: other modules stay as they are.
        wanted: paths of those to separate, as a call without this argument gives them; None: all.
    """
    if not isinstance(module, GraphModule):
        return
    calls, taken = Calls(module), {path for path, _ in module.named_modules(remove_duplicate=False)}
    for node in list(module.graph.nodes):
        called = calls.called(node)
        shared = called is not None and calls.times_called[id(called)] > 1
        clip = clip_call(node) if called is None else clip_of(called) if shared else None
        if clip is None:
            continue
        path = _unused(module, node.name if called is None else str(node.target), taken)
        taken.add(path)
        if wanted is None or path in wanted:
            module.add_submodule(path, ChannelClip(clip.low, clip.high, clip.inplace))
            with module.graph.inserting_before(node):
                new = module.graph.call_module(path, (operand(node),))
            new.meta = {key: item for key, item in node.meta.items() if key != "nn_module_stack"}
            node.replace_all_uses_with(new)
            module.graph.erase_node(node)
    module.graph.lint()
    module.recompile()


def _unused(module: nn.Module, base: str, taken: Container[str]) -> str:
    names = (f"{base}_{i}" if i else base for i in count())
    return next(name for name in names if name not in taken and not hasattr(module, name))


def _own_instances(module: nn.Module) -> Iterator[tuple[str, Clip]]:
    """Path and limits of every activation with bounds; one that has several places is doubled first."""
    for prefix, parent in list(module.named_modules()):
        for name, child in parent._modules.items():
            clip = None if child is None else clip_of(child)
            if clip is not None:
                parent._modules[name] = copy.deepcopy(child)
                yield f"{prefix}.{name}".lstrip("."), clip


def _watched(module: nn.Module, paths: Iterable[str]) -> dict[str, list[tuple[torch.dtype, torch.device]]]:
    """Lists that fill with type and device of the input at each call of a submodule."""
    found: dict[str, list[tuple[torch.dtype, torch.device]]] = {path: [] for path in paths}

    def watch(seen: list[tuple[torch.dtype, torch.device]], called: nn.Module) -> None:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.extend((x.dtype, x.device) for x in (*args, *kwargs.values()) if isinstance(x, Tensor))

        called.register_forward_pre_hook(hook, with_kwargs=True)

    for path, seen in found.items():
        watch(seen, module.get_submodule(path))
    return found


def _traced(model: nn.Module) -> GraphModule:
    try:
        with LOCK:  # torch.fx patches nn.Module meanwhile
            return torch.fx.symbolic_trace(model)
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"torch.fx cannot trace {type(model).__name__}: {first}") from error
