"""ONNX nodes prepared for evaluation: operands by name, captured values, operator schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import defs

from graphnorm.errors import ModelFileError
from graphnorm.ir import Array

# What reading a damaged tensor raises.
READ_ERRORS = (AssertionError, OSError, TypeError, ValueError)
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_NOT_A_FUNCTION = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike"}
    | {"RandomUniform", "RandomUniformLike"}
)


@dataclass(frozen=True)
class Step:
    """One node, prepared for several evaluations."""

    node: onnx_ir.Node
    opsets: Mapping[str, int]
    source: str

    @cached_property
    def proto(self) -> onnx.NodeProto:
        try:
            return onnx_ir.to_proto(self.node)
        except onnx_ir.serde.SerdeError as error:
            raise self.invalid("an attribute is damaged") from error

    def invalid(self, why: object) -> ModelFileError:
        """The error for a node that is no use of its operator."""
        label = self.node.name or next(iter(self.results), "")
        return ModelFileError(f"{self.source}: node {label!r} ({self.node.op_type}) is not valid: {why}")

    @cached_property
    def schema(self) -> defs.OpSchema | None:
        domain = self.node.domain
        try:
            return defs.get_schema(self.node.op_type, self.opsets.get(domain, 1), domain)
        except defs.SchemaError:
            return None

    @cached_property
    def captured(self) -> tuple[str, ...]:
        """Outer values that the node's subgraphs read."""
        return captured_names(self.node)

    @cached_property
    def operands(self) -> tuple[str, ...]:
        return tuple(value.name or "" if value is not None else "" for value in self.node.inputs)

    @cached_property
    def results(self) -> tuple[str, ...]:
        return tuple(value.name or "" for value in self.node.outputs)

    @property
    def is_standard(self) -> bool:
        return self.node.domain == ""

    @property
    def may_fold(self) -> bool:
        op = self.node.op_type
        return self.is_standard and op not in CONTROL_FLOW and op not in _NOT_A_FUNCTION

    def branches(self) -> list[onnx_ir.Graph]:
        """Then and else of an `If`."""
        found = [self.node.attributes.get(name) for name in ("then_branch", "else_branch")]
        graphs = [
            branch.as_graph() for branch in found if branch and branch.type == onnx_ir.AttributeType.GRAPH
        ]
        if len(graphs) != 2 or any(len(graph.outputs) != len(self.results) for graph in graphs):
            raise self.invalid(f"it needs two branches with {len(self.results)} outputs each")
        return graphs


def captured_names(node: onnx_ir.Node) -> tuple[str, ...]:
    """Names from the scopes around `node` that its subgraphs read, at any depth."""
    found: dict[str, None] = {}

    def visit(graph: onnx_ir.Graph, inside: frozenset[onnx_ir.Graph]) -> None:
        inside = inside | {graph}
        for inner in graph:
            for value in inner.inputs:
                if value is not None and value.graph not in inside and value.name:
                    found[value.name] = None
            for deeper in subgraphs_of(inner):
                visit(deeper, inside)
        for value in graph.outputs:
            if value.graph not in inside and value.name:
                found[value.name] = None

    for graph in subgraphs_of(node):
        visit(graph, frozenset())
    return tuple(found)


def subgraphs_of(node: onnx_ir.Node) -> list[onnx_ir.Graph]:
    """The bodies of a control-flow node."""
    found: list[onnx_ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == onnx_ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == onnx_ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def constant_array(node: onnx_ir.Node) -> Array | None:
    """The value of a `Constant` node, None for a form that holds no array."""
    if len(node.attributes) != 1:
        return None
    (attribute,) = node.attributes.values()
    if attribute.is_ref():
        return None
    if attribute.name == "value" and attribute.type == onnx_ir.AttributeType.TENSOR:
        array: Array = attribute.value.numpy()
        return array
    kinds: dict[str, Any] = {"value_float": np.float32, "value_floats": np.float32}
    kinds |= {"value_int": np.int64, "value_ints": np.int64}
    kinds |= {"value_string": np.object_, "value_strings": np.object_}
    kind = kinds.get(attribute.name)
    return None if kind is None else np.asarray(attribute.value, dtype=kind)


def is_constant(node: onnx_ir.Node) -> bool:
    """Whether the node is ONNX's `Constant`, which is a value, not a step."""
    return node.op_type == "Constant" and not node.domain


def make_steps(nodes: Iterable[onnx_ir.Node], opsets: Mapping[str, int], source: str) -> list[Step]:
    """Prepare nodes in topological order, without the `Constant` ones."""
    steps = [Step(node, opsets, source) for node in nodes if not is_constant(node)]
    for step in steps:
        words = (step.node.op_type, step.node.domain, *step.operands, *step.results)
        if not all(isinstance(word, str) for word in words):  # protobuf hands out bad UTF-8 as bytes
            raise step.invalid("a name in it is not UTF-8")
    return steps
