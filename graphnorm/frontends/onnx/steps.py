"""ONNX nodes prepared for evaluation: operands by name, captured values, operator schema."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import defs

from graphnorm.errors import ModelFileError
from graphnorm.frontends.onnx.names import Names, captured_values, definitions, subgraphs_of, with_bodies
from graphnorm.ir import Array
from graphnorm.ops.table import having
from graphnorm.ops.traits import Trait

# What reading a damaged tensor raises.
READ_ERRORS = (AssertionError, OSError, TypeError, ValueError)
CONTROL_FLOW = having(Trait.REGIONS)
_NOT_A_FUNCTION = having(Trait.RANDOM)


@dataclass(frozen=True)
class Setting:
    """What all steps of a model share; `own_names` are the tensors that no inlined function brought."""

    opsets: Mapping[str, int]
    source: str
    names: Names
    own_names: Set[str]


@dataclass(frozen=True)
class Step:
    """One node, prepared for several evaluations.

    `visible` are the values that a graph inside the node may read, by their own names; `unread` are results
    that nobody reads and that have no names here.
    """

    node: onnx_ir.Node
    setting: Setting
    visible: Mapping[str, str]
    unread: Set[str] = frozenset()

    @property
    def opsets(self) -> Mapping[str, int]:
        return self.setting.opsets

    @property
    def label(self) -> str:
        """How errors name the node."""
        return self.node.name or next(iter(self.results), "") or self.node.op_type

    @cached_property
    def proto(self) -> onnx.NodeProto:
        """The node under the names of the flat graph."""
        try:
            proto = onnx_ir.to_proto(self.node)
        except onnx_ir.serde.SerdeError as error:
            raise self.invalid("an attribute is damaged") from error
        proto.input[:], proto.output[:] = self.operands, self.results
        return proto

    def invalid(self, why: object) -> ModelFileError:
        """The error for a node that its operator's schema does not allow."""
        where = f"{self.setting.source}: node {self.label!r} ({self.node.op_type})"
        return ModelFileError(f"{where} is not valid: {why}")

    @cached_property
    def schema(self) -> defs.OpSchema | None:
        domain = self.node.domain
        try:
            return defs.get_schema(self.node.op_type, self.opsets.get(domain, 1), domain)
        except (defs.SchemaError, TypeError):  # a version that fits no 32 bits
            return None

    @cached_property
    def captured(self) -> tuple[str, ...]:
        """Outer values that the node's subgraphs read, or may read under a name that they define again."""
        read = map(self.setting.names, captured_values(self.node))
        return tuple(dict.fromkeys([*read, *(self.visible[name] for name in self.shadowed)]))

    @cached_property
    def shadowed(self) -> tuple[str, ...]:
        """Names of outer values that a subgraph defines again: runtimes differ in which one they read."""
        inside = [part for graph in subgraphs_of(self.node) for part in with_bodies(graph)]
        defined = dict.fromkeys(value.name for part in inside for value in definitions(part))
        return tuple(name for name in defined if name and name in self.visible)

    @cached_property
    def is_renamed_inside(self) -> bool:
        """Whether a subgraph reads a value under another name than the flat graph's, or an ambiguous one."""
        read = captured_values(self.node)
        return bool(self.shadowed) or any(self.setting.names(value) != value.name for value in read)

    @cached_property
    def operands(self) -> tuple[str, ...]:
        return tuple(map(self.setting.names, self.node.inputs))

    @cached_property
    def results(self) -> tuple[str, ...]:
        names = map(self.setting.names, self.node.outputs)
        return tuple("" if name in self.unread else name for name in names)

    @property
    def is_standard(self) -> bool:
        return self.node.domain == ""

    @property
    def may_fold(self) -> bool:
        op = self.node.op_type
        return self.is_standard and op not in CONTROL_FLOW and op not in _NOT_A_FUNCTION


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
