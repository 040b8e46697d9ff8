"""Bounds of clips as weights, in an exported program.

The program's own graph is edited: a buffer and its placeholder for each bound, and ``clamp`` with tensors
in place of the call.  So everything else stays: dynamic sizes, names, example inputs.
"""

from __future__ import annotations

from itertools import count
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node

from graphnorm.emission.torch_module import rescale_torch
from graphnorm.errors import InputError
from graphnorm.frontends.torch.nodes import scope_of
from graphnorm.frontends.torch.read import read_torch
from graphnorm.passes.fx.clip_calls import clip_call, operand
from graphnorm.rescaling.clips import PINNED_ANYWAY, Rewriting, bounded_clips, movable_clips

_INNER = "its bounds are not numbers, or it lies in an inner graph: rewrite the module and export it again"
_STATE = (InputKind.TOKEN, InputKind.PARAMETER, InputKind.BUFFER)
_ATEN = torch.ops.aten
Model = TypeVar("Model", nn.Module, ExportedProgram)


def rewrite_program(program: ExportedProgram) -> Rewriting:
    """A copy of an exported program whose clips have per-channel bounds where that gives freedom.

    Raises:
        InputError: the program cannot be copied.
    """
    marked = copied(program)
    calls = {f"clip {i}": node.name for i, node in enumerate(marked.graph.nodes) if _mark(node, f"clip {i}")}
    network = read_torch(marked)
    shapes = movable_clips(network)
    scopes = {node.name: node.scope for node in network.nodes}
    fixed = frozenset(name for name in shapes if scopes[name] not in calls)
    if fixed:
        shapes = movable_clips(network, fixed)
    places = {calls[scopes[name]]: shape for name, shape in shapes.items()}
    names = {node.name: scope_of(node) or node.name for node in program.graph.nodes}
    left = tuple(
        f"{names[calls[node.scope]] if node.scope in calls else node.label}: "
        f"{_INNER if node.name in fixed else PINNED_ANYWAY}"
        for node in bounded_clips(network)
        if node.name not in shapes
    )
    if not places:
        return Rewriting(program, (), left)
    model = copied(program)
    for node in list(model.graph.nodes):
        if node.name in places:
            _replace(model, node, places[node.name])
    model.graph.lint()
    model.graph_module.recompile()
    model.validate()  # type: ignore[no-untyped-call]
    return Rewriting(model, tuple(names[name] for name in places), left)


def copied(model: Model) -> Model:
    """A copy to rewrite.

    Raises:
        InputError: there is none.
    """
    try:
        return rescale_torch(model, {})
    except InputError as error:
        raise InputError(
            f"{type(model).__name__} cannot be copied, so its clips cannot be rewritten: "
            f"remove its reparametrizations ({error.__cause__})"
        ) from error


def _mark(node: Node, mark: str) -> bool:
    """Let the mark be the scope of what becomes of a clip when the program is decomposed."""
    if node.op != "call_function" or clip_call(node) is None:
        return False
    node.meta["nn_module_stack"] = {**(node.meta.get("nn_module_stack") or {}), mark: (mark, "clip")}
    return True


def _replace(program: ExportedProgram, node: Node, shape: tuple[int, ...]) -> None:
    """Put clamps with tensors in the place of a clip."""
    clip, new = clip_call(node), operand(node)
    assert clip is not None
    assert new is not None
    fake = new.meta["val"]
    low, high = clip.bounds(shape, fake.dtype, fake.device)
    base = scope_of(node) or node.name
    for name, bound in (("min", low), ("max", high)):
        if bound is None:
            continue
        family: Any = _ATEN.clamp_ if clip.inplace else _ATEN.clamp
        operator, limit = family.default, bound
        if isinstance(bound, Tensor):
            operator, limit = family.Tensor, _buffer(program, f"{base}.{name}", bound, fake.fake_mode)
        with program.graph.inserting_before(node):
            new = program.graph.call_function(
                operator, (new, limit, None) if name == "min" else (new, None, limit)
            )
        new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    program.graph.erase_node(node)
    new.name = node.name


def _buffer(program: ExportedProgram, base: str, bound: Tensor, mode: Any) -> Any:
    """A new buffer's placeholder, after those of the other parameters and buffers."""
    targets = (f"{base}_{i}" if i else base for i in count())
    target = next(name for name in targets if name not in program.state_dict | program.constants)
    specs = program.graph_signature.input_specs
    index = next((i for i, spec in enumerate(specs) if spec.kind not in _STATE), len(specs))
    with program.graph.inserting_before(list(program.graph.nodes)[index]):
        placeholder = program.graph.placeholder("b_" + target.replace(".", "_"))
    placeholder.meta["val"] = mode.from_tensor(bound)
    argument = TensorArgument(name=placeholder.name)
    specs.insert(index, InputSpec(InputKind.BUFFER, argument, target, persistent=True))
    program.state_dict[target] = bound
    return placeholder
