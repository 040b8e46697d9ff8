"""Numbers of an exported program that vary with the sizes of its inputs, as expressions in these sizes.

Rules see the numbers at the example's sizes.  Two programs compute them alike at all sizes if the expressions
are the same; where they are not, polynomials that agree at several sizes agree at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import fx

from graphnorm.frontends.torch.nodes import Symbol, operator_name
from graphnorm.ir import Node

# Calls on known tensors of variable size that fill, add, multiply and move.
_EVEN = (
    "_to_copy.", "add.", "alias.", "arange.", "cat.", "clone.", "detach.", "expand.", "full.", "mul.",
    "new_full.", "new_ones.", "new_zeros.", "ones.", "ones_like.", "permute.", "reshape.", "squeeze.", "sub.",
    "t.", "transpose.", "unsqueeze.", "view.", "zeros.", "zeros_like.",
)  # fmt: skip


class Sizing:
    """Expressions in the sizes of a program's inputs, as nodes that take no part in it.

    Attributes:
        nodes: one for each call that takes such numbers; its outputs are the call's.
        uneven: the first call whose numbers are no polynomials, or that makes a table of them otherwise.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.uneven = ""
        self._names: dict[Any, str] = {}

    def read(self, name: str, tensor: torch.Tensor) -> tuple[str, ...]:
        """The symbols of an input's axes, "" where the size is fixed."""
        found: list[str] = []
        for axis, size in enumerate(tensor.shape):
            if isinstance(size, torch.SymInt):
                expression = size.node.expr
                if expression.is_Symbol:
                    self._names.setdefault(expression, f"{name}[{axis}]")
                found.append(self._text(expression))
            else:
                found.append("")
        return tuple(found)

    def record(self, node: fx.Node, results: Sequence[str]) -> None:
        """A call, if it takes numbers that vary and its results are tensors."""
        numbers = [source.meta["val"] for source in node.all_input_nodes if _is_symbol(source)]
        if not numbers or _is_symbol(node):
            return
        expressions = [number.node.expr for number in numbers]
        if not all(isinstance(e, sympy.Expr) and e.is_polynomial(*e.free_symbols) for e in expressions):
            self.uneven = self.uneven or _label(node)
        texts = tuple(self._text(expression) for expression in expressions)
        name = f"{node.name}.sizes"
        self.nodes.append(
            Node(name, operator_name(node.target), (), tuple(results), {"sizes": texts}, _label(node))
        )

    def fold(self, node: fx.Node, overload: str) -> None:
        """A call whose result is known and varies."""
        if not overload.startswith(_EVEN):
            self.uneven = self.uneven or _label(node)

    def _text(self, expression: Any) -> str:
        return str(expression.xreplace({s: type(s)(name) for s, name in self._names.items()}))


def _is_symbol(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Symbol)


def _label(node: fx.Node) -> str:
    return f"{operator_name(node.target)} {node.name}"
