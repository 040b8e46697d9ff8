"""Which ATen operators torch itself decomposes before they are lowered.

torch can write most of its operators in terms of simpler ones.  That is requested wherever there is no
lowering; an operator with one is not decomposed, because its rule leaves more freedom than those of its
components would.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import fx
from torch._C import DispatchKey
from torch._ops import OpOverload
from torch.export import ExportedProgram, default_decompositions

from graphnorm.frontends.torch.aten.table import LOWERINGS, table_name
from graphnorm.frontends.torch.inplace import functional, hidden_views


@cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """Operator -> its definition in terms of others, for ``ExportedProgram.run_decompositions``."""
    return {operator: how for operator, how in _all_known().items() if _has_no_lowering(operator)}


@cache
def _all_known() -> dict[Any, Callable[..., Any]]:
    table: Any = default_decompositions()
    return dict(table.items())


def can_be_simpler(program: ExportedProgram) -> bool:
    """Whether a program calls an operator without a lowering that torch can decompose, and may."""
    modules = [m for m in program.graph_module.modules() if isinstance(m, fx.GraphModule)]
    called = {functional(node.target) for module in modules for node in module.graph.nodes}
    unknown = [
        op for op in called if isinstance(op, OpOverload) and _has_no_lowering(op) and _takes_tensors(op)
    ]
    wanted = any(_is_composite(op) or op in decompositions() for op in unknown)
    return wanted and hidden_views(program) <= _all_known().keys()


def _takes_tensors(operator: OpOverload) -> bool:
    """Constants are computed, not lowered."""
    return any("Tensor" in str(argument.type) for argument in operator._schema.arguments)


def _is_composite(operator: OpOverload) -> bool:
    """Whether it is written in terms of others; some of these are always decomposed."""
    return operator.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd)


def _has_no_lowering(operator: object) -> bool:
    return table_name(operator) not in LOWERINGS.table
