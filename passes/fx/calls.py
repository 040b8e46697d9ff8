"""Who calls which module, who holds which tensor, and what rank a value has, in a ``GraphModule``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassBase

from graphnorm.errors import InputError

_SAME_RANK_MODULES: frozenset[type[nn.Module]] = frozenset({
    *(nn.BatchNorm1d, nn.Linear, nn.LayerNorm, nn.Identity, nn.Dropout),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish),
})  # fmt: skip
_SAME_RANK_FUNCTIONS: frozenset[Callable[..., Any]] = frozenset(
    {F.relu, torch.relu, F.gelu, F.silu, F.dropout}
)
_MATRIX_AXES: tuple[tuple[Any, Any], ...] = (
    ((1,), {}),
    ((1, -1), {}),
    ((), {"start_dim": 1}),
)  # flatten's argument that keeps axis 0
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Calls:
    """The modules and tensors of one ``GraphModule``, and how often each is used.

    Attributes:
        modules: By every path they have.
        times_called: By ``id`` of the module, calls of a module around it included.
        times_held: By ``id`` of the tensor: modules that have it and ``get_attr`` nodes that read it.
    """

    def __init__(self, graph_module: GraphModule) -> None:
        self.graph_module = graph_module
        self.modules: Mapping[str, nn.Module] = dict(graph_module.named_modules(remove_duplicate=False))
        self.times_called: Counter[int] = Counter()
        self.times_held: Counter[int] = Counter()
        for module in graph_module.modules():
            self.times_held.update(id(tensor) for tensor in module.parameters(recurse=False))
            self.times_held.update(id(tensor) for tensor in module.buffers(recurse=False))
        for node in graph_module.graph.nodes:
            self._count(node)

    def _count(self, node: Node) -> None:
        used: Any = self.called(node)
        if node.op == "get_attr":
            used = self.graph_module
            for name in str(node.target).split("."):
                used = getattr(used, name)
        if isinstance(used, nn.Module):
            self.times_called.update(id(module) for module in used.modules())
        elif isinstance(used, Tensor):
            self.times_held[id(used)] += 1

    def called(self, node: Node) -> nn.Module | None:
        """The module that this node calls, if it calls one."""
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def rank(self, node: Node) -> int | None:
        """The rank of a value, if shape metadata or the operators that lead to it tell."""
        while True:
            known = node.meta.get("tensor_meta", node.meta.get("val"))
            shape = getattr(known, "shape", None)
            if shape is not None:
                return len(shape)
            if self._makes_matrix(node):
                return 2
            module = self.called(node)
            keeps_rank = type(module) in _SAME_RANK_MODULES or (
                node.op == "call_function" and node.target in _SAME_RANK_FUNCTIONS
            )
            if not keeps_rank or not node.all_input_nodes:
                return None
            node = node.all_input_nodes[0]

    def _makes_matrix(self, node: Node) -> bool:
        module = self.called(node)
        if isinstance(module, nn.Flatten):
            return (module.start_dim, module.end_dim) == (1, -1)
        if (node.op, node.target) in {("call_function", torch.flatten), ("call_method", "flatten")}:
            return (node.args[1:], node.kwargs) in _MATRIX_AXES
        return node.op == "call_method" and node.target in {"view", "reshape"} and len(node.args) == 3


def has_hooks(module: nn.Module) -> bool:
    """Whether calling the module does more than its class says."""
    return any(getattr(module, hooks) for hooks in _HOOKS)


def require_graph_module(owner: PassBase, module: object) -> None:
    """Refuse other models than a ``GraphModule``.

    Raises:
        InputError: It is not one; the message says how to trace it.
    """
    if not isinstance(module, GraphModule):
        raise InputError(
            f"{type(owner).__name__} takes a torch.fx.GraphModule, got {type(module).__name__}: "
            "trace it first with torch.fx.symbolic_trace(model)"
        )
