"""Higher-order operators of torch: their bodies join the graph, connected as those of ONNX's control flow.

    cond                  Choice(condition, then, else)
    while_loop, scan,     State(initial value), Iterate(sequence) before the body;
    map                   Control(condition), Carried(value before, value after), Stack(element) after it

Regions that only switch a mode or mark a piece of the program are inlined without glue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor, fx

from graphnorm.frontends.torch.nodes import Symbol, listed, scope_of, source_of, value_or_none
from graphnorm.ir import Array, Node, Value


class Builder(Protocol):
    """The interface of the graph that a region joins."""

    known: dict[str, Tensor]

    def unique(self, name: str) -> str:
        """A name that no value has yet."""

    def literal(self, name: str, array: Array) -> str:
        """The name of a constant."""

    def add(self, node: Node, result: Value | None) -> None:
        """Emit a node with at most one result."""

    def inline(self, body: fx.GraphModule, operands: Sequence[Any]) -> Any:
        """Walk a body in place; what it yields."""


# Operator -> the body and its operands, from the operator's positional arguments.
MARKED: dict[str, Callable[..., tuple[fx.GraphModule, Sequence[Any]]]] = {
    "wrap_with_set_grad_enabled": lambda enabled, body, *operands: (body, operands),
    "wrap_with_autocast": lambda device, dtype, enabled, cached, body, *operands: (body, operands),
    "tag_activation_checkpoint": lambda body, *operands: (body, operands),
    "invoke_subgraph": lambda body, name, *operands: (body, operands),
    "hints_wrapper": lambda body, operands, named: (body, operands),
    "strict_mode": lambda body, operands: (body, operands),
}


@dataclass(frozen=True)
class Region:
    """One call of a higher-order operator."""

    builder: Builder
    node: fx.Node
    outputs: Sequence[Value | None]

    def glue(self, op: str, operands: Sequence[Any], result: Value | None, **attributes: int) -> Value | None:
        """Emit an operator; numbers among its operands become constants."""
        names = tuple(self._name_of(operand) for operand in operands)
        name = (
            result.name
            if result
            else self.builder.unique(f"{self.node.name}.{op.rpartition(':')[2].lower()}")
        )
        outputs = (result.name,) if result else ()
        scope, source = scope_of(self.node), source_of(self.node)
        self.builder.add(Node(name, op, names, outputs, attributes, scope, source), result)
        return result

    def enter(self, op: str, operand: Any, placeholder: fx.Node, **attributes: int) -> Value | None:
        """What the body reads for an operand that changes from one iteration to the next."""
        name = self.builder.unique(f"{self.node.name}.{placeholder.name}")
        value = value_or_none(name, placeholder.meta.get("val")) or Value(name, None, "unknown")
        return self.glue(op, [operand], value, **attributes)

    def _name_of(self, operand: Any) -> str:
        if operand is None or isinstance(operand, Value):
            return operand.name if operand else ""
        return self.builder.literal(f"{self.node.name}.const", np.asarray(operand))


def cond(region: Region, condition: Any, then: fx.GraphModule, other: fx.GraphModule, operands: Any) -> Any:
    """The branch that a known condition selects, or a choice between both."""
    settled = _settled(region, condition)
    if settled is not None:
        return region.builder.inline(then if settled else other, operands)
    branches = [listed(region.builder.inline(body, operands)) for body in (then, other)]
    chooser = condition if isinstance(condition, Value) else None
    return [
        region.glue("graphnorm::Choice", [chooser, *pair], output) if output else None
        for output, *pair in zip(region.outputs, *branches, strict=True)
    ]


def _settled(region: Region, condition: Any) -> bool | None:
    """A condition that holds for all inputs, not only for the example's sizes."""
    if isinstance(condition, Value):
        known = region.builder.known.get(condition.name)
        return None if known is None or known.numel() != 1 or condition.dynamic else bool(known)
    source = region.node.args[0]
    is_symbol = isinstance(source, fx.Node) and isinstance(source.meta.get("val"), Symbol)
    return None if is_symbol else bool(condition)


def while_loop(
    region: Region, test: fx.GraphModule, body: fx.GraphModule, carried: Any, captured: Any
) -> Any:
    """The state before an iteration, the test, the body."""
    before = [
        region.enter("graphnorm::State", initial, placeholder)
        for initial, placeholder in zip(carried, _placeholders(body), strict=False)
    ]
    operands = [*before, *captured]
    region.glue("graphnorm::Control", listed(region.builder.inline(test, operands)), None)
    after = listed(region.builder.inline(body, operands))
    return _carried(region, before, after)


def scan(region: Region, body: fx.GraphModule, initial: Any, sequences: Any, captured: Any) -> Any:
    """(state, elements of the sequences) -> (state, elements of the results), along axis 0."""
    places = _placeholders(body)
    count = len(initial)
    before = [
        region.enter("graphnorm::State", operand, place)
        for operand, place in zip(initial, places, strict=False)
    ]
    elements = [
        region.enter("graphnorm::Iterate", operand, place, axis=0)
        for operand, place in zip(sequences, places[count:], strict=False)
    ]
    after = listed(region.builder.inline(body, [*before, *elements, *captured]))
    stacked = [
        region.glue("graphnorm::Stack", [element], output, axis=0) if output else None
        for element, output in zip(after[count:], region.outputs[count:], strict=True)
    ]
    return [*_carried(region, before, after[:count]), *stacked]


def each(region: Region, body: fx.GraphModule, sequences: Any, captured: Any) -> Any:
    """`map`: a scan without a state."""
    return scan(region, body, [], sequences, captured)


def _carried(region: Region, before: Sequence[Any], after: Sequence[Any]) -> list[Value | None]:
    return [
        region.glue("graphnorm::Carried", pair, output)
        for output, *pair in zip(region.outputs, before, after, strict=False)
    ]


def _placeholders(body: fx.GraphModule) -> list[fx.Node]:
    return [node for node in body.graph.nodes if node.op == "placeholder"]


JOINED: dict[str, Callable[..., Any]] = {
    "cond": cond,
    "while_loop": while_loop,
    "scan": scan,
    "map_impl": each,
}
