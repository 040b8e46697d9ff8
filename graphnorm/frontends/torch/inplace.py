"""In-place operators of an exported program, read as the functional operators that they stand for.

`run_decompositions` makes a program functional at the cost of tracing it a second time.  Most programs
need none of it: their in-place operators write to a tensor that a kernel has just allocated and of which
no other view exists.  Later readers of that tensor then see the new value, which the walk over the graph does
in any case.  Everything else is left to `run_decompositions`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable

import torch
from torch import fx
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

# Composite operators whose result is always a new tensor.
_ALWAYS_NEW = frozenset({
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear",
    "batch_norm", "layer_norm", "group_norm", "instance_norm", "max_pool1d", "max_pool2d", "max_pool3d",
    "avg_pool1d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "matmul", "softmax",
    "log_softmax", "scaled_dot_product_attention", "pad", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d",
    "upsample_bicubic2d", "lstm", "gru", "rnn_relu", "rnn_tanh", "cross_entropy_loss", "silu", "relu6",
    "selu", "fused_moving_avg_obs_fake_quant",
})  # fmt: skip
_UPDATES_STATISTICS = {"batch_norm": 5, "instance_norm": 5}  # position of the flag that makes them write
_DROPOUTS = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"})
_REPLACES_STORAGE = frozenset({"set_", "resize_", "resize_as_"})
_UNDECLARED_VIEWS = frozenset({"unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk"})
_SHARES_STORAGE = _UNDECLARED_VIEWS | frozenset({"_unsafe_view", "_reshape_alias", "lift_fresh", "alias"})


def is_functional_enough(program: ExportedProgram) -> bool:
    """Whether the walk over the graph can read a program as it is."""
    if any(spec.kind is not OutputKind.USER_OUTPUT for spec in program.graph_signature.output_specs):
        return _mutations(program.graph) == [] and _regions_are_functional(program)
    if program.range_constraints or not _regions_are_functional(program):
        return False  # sizes that vary: views of them are clearer after decomposition
    storages = Storages(program.graph)
    harmless = all(_is_harmless(node, storages) for node in _mutations(program.graph))
    return harmless and not _updates_statistics(program)


@functools.cache
def functional(target: object) -> object:
    """The functional operator of an in-place one; any other target as it is."""
    if not isinstance(target, OpOverload) or not target._schema.is_mutable or not _returns_first(target):
        return target
    namespace, _, name = target._schema.name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    overload = getattr(packet, target._overloadname, None)
    if not name.endswith("_") or name in _REPLACES_STORAGE or not isinstance(overload, OpOverload):
        return target
    if _same_arguments(target, overload) and (name == "detach_" or not _declares_views(overload)):
        return overload
    return target


def _returns_first(target: OpOverload) -> bool:
    """Whether an operator that writes returns its first argument, one tensor (``_foreach_`` take lists)."""
    arguments, results = target._schema.arguments, target._schema.returns
    returned = [str(result.type) for result in results]
    return bool(arguments) and returned == ["Tensor"] == [str(arguments[0].type)]


def is_in_place(node: fx.Node) -> bool:
    """Whether a node writes to its first argument and returns it."""
    return isinstance(node.target, OpOverload) and functional(node.target) is not node.target


def _same_arguments(one: OpOverload, other: OpOverload) -> bool:
    first, second = one._schema.arguments, other._schema.arguments
    return [a.name for a in first] == [a.name for a in second] and not other._schema.is_mutable


def _mutations(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that write; `detach_` is marked so, and changes no entry."""
    calls = [node for node in graph.nodes if isinstance(node.target, OpOverload)]
    return [n for n in calls if n.target._schema.is_mutable and _base(n.target) != "detach_"]


def _written(node: fx.Node) -> list[fx.Node]:
    """The argument that a node writes to, by its schema; not always the first."""
    assert isinstance(node.target, OpOverload)
    found: list[object] = []
    for index, formal in enumerate(node.target._schema.arguments):
        if formal.alias_info is not None and formal.alias_info.is_write:
            given = node.args[index] if index < len(node.args) else node.kwargs.get(formal.name)
            found += given if isinstance(given, (list, tuple)) else [given]
    return [item for item in found if isinstance(item, fx.Node)]


def _regions_are_functional(program: ExportedProgram) -> bool:
    """Bodies of higher-order operators may only switch a mode, and write nothing."""
    modules = [m for m in program.graph_module.modules() if isinstance(m, fx.GraphModule)]
    inner = [m.graph for m in modules if m is not program.graph_module]
    higher = [n for m in modules for n in m.graph.nodes if isinstance(n.target, HigherOrderOperator)]
    return not any(_mutations(graph) for graph in inner) and all(
        str(node.target) == "wrap_with_set_grad_enabled" for node in higher
    )


def _updates_statistics(program: ExportedProgram) -> bool:
    for node in program.graph.nodes:
        name = _base(node.target) if isinstance(node.target, OpOverload) else ""
        flag = _UPDATES_STATISTICS.get(name)
        if flag is not None and len(node.args) > flag and node.args[flag] and node.args[3] is not None:
            return True
    return False


def hidden_views(program: ExportedProgram) -> set[OpOverload]:
    """Composite operators that may return a view, undeclared, of a tensor that is written in place.

    `run_decompositions` would take their results for new tensors, and miss what is written through them.
    """
    shared: set[fx.Node] = set()
    pending = [written for node in _mutations(program.graph) for written in _written(node)]
    while pending:
        node = pending.pop()
        if node not in shared:
            shared.add(node)
            pending += [user for user in node.users if not _makes_new_tensor(user)]
            pending += [] if _makes_new_tensor(node) else node.all_input_nodes[:1]
    targets = {node.target for node in shared if isinstance(node.target, OpOverload)}
    return {op for op in targets if _hides_view(op)}


def undeclared_views(operators: Iterable[OpOverload]) -> set[OpOverload]:
    """Those whose definition in terms of others doesn't say either that they return views."""
    return {op for op in operators if _base(op) in _UNDECLARED_VIEWS}


def _hides_view(op: OpOverload) -> bool:
    composite = _is_composite(op) and not _declares_views(op) and not _is_new(op)
    return composite or _base(op) in _UNDECLARED_VIEWS


def without_idle_dropout(program: ExportedProgram) -> ExportedProgram:
    """The same program, in which dropout in evaluation mode is its operand; outputs keep theirs."""
    graph = copy.deepcopy(program.graph)
    restore_names(program.graph, graph)
    results = set(graph.output_node().all_input_nodes)
    for node in list(graph.nodes):
        if _is_idle_dropout(node) and node not in results:
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.erase_node(node)
    module = fx.GraphModule(program.graph_module, graph)
    return program._update(module, program.graph_signature)


def restore_names(old: fx.Graph, new: fx.Graph) -> None:
    """Undo a side effect of deepcopy: it renames nodes whose names are Python builtins (``input``)."""
    for one, other in zip(old.nodes, new.nodes, strict=True):
        if other.name != one.name:
            other.name = one.name


def _is_harmless(node: fx.Node, storages: Storages) -> bool:
    """Whether the tensor that a node writes to is new and has no other view."""
    if not is_in_place(node):
        return False
    names = storages.names(node)
    if names[0].op != "call_function" or not _makes_new_tensor(names[0]):
        return False
    readers = {user for name in names for user in name.users if user < node}
    return all(_makes_new_tensor(user) or _is_same_tensor(user) for user in readers)


class Storages:
    """Which nodes of a graph name one tensor: its maker, those that write to it, those that pass it on."""

    def __init__(self, graph: fx.Graph) -> None:
        self._names: dict[fx.Node, list[fx.Node]] = {}
        for node in graph.nodes:
            if _is_same_tensor(node):
                self._names.setdefault(_root(node), []).append(node)

    def names(self, node: fx.Node) -> list[fx.Node]:
        """All names of the tensor that `node` writes to: its maker first."""
        root = _root(node)
        return [root, *self._names[root]]


def _root(node: fx.Node) -> fx.Node:
    while _is_same_tensor(node):
        node = node.all_input_nodes[0]
    return node


def _is_same_tensor(node: fx.Node) -> bool:
    """Whether a node returns its first argument itself: in-place operators, dropout in evaluation mode."""
    if not isinstance(node.target, OpOverload) or not isinstance(
        node.args[0] if node.args else None, fx.Node
    ):
        return False
    return _is_idle_dropout(node) or is_in_place(node)


def _is_idle_dropout(node: fx.Node) -> bool:
    return _is_dropout(node) and (node.args[2] is False or bool(node.args[1] == 0))


def _is_dropout(node: fx.Node) -> bool:
    named = isinstance(node.target, OpOverload) and _base(node.target) in _DROPOUTS
    return named and len(node.args) == 3


def _makes_new_tensor(node: fx.Node) -> bool:
    target = node.target
    if _is_dropout(node) and isinstance(node.args[1], float) and node.args[1] > 0 and node.args[2] is True:
        return True
    return isinstance(target, OpOverload) and _is_new(target)


def _is_new(target: OpOverload) -> bool:
    """Whether an operator always returns a tensor of its own."""
    if _base(target) in _SHARES_STORAGE or _declares_views(target):
        return False
    return not _is_composite(target) or _base(target) in _ALWAYS_NEW


def _base(target: OpOverload) -> str:
    return target._schema.name.partition("::")[2]


def _declares_views(target: OpOverload) -> bool:
    return any(result.alias_info is not None for result in target._schema.returns)


def _is_composite(target: OpOverload) -> bool:
    key = "CompositeImplicitAutograd"
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), key))  # type: ignore[no-untyped-call]
