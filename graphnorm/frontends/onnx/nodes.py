"""ONNX nodes as `graphnorm.ir.Node`: names, attributes, and where a node comes from."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from typing import Any

import onnx_ir

from graphnorm.frontends.onnx.flat import Glue
from graphnorm.frontends.onnx.schemas import schema_defaults
from graphnorm.frontends.onnx.steps import READ_ERRORS, Step
from graphnorm.ir import BEFORE, Node
from graphnorm.ops.attributes import DEFAULTS

_CHANGED = {
    "Softmax": 13,
    "LogSoftmax": 13,
    "Hardmax": 13,
    "DFT": 20,
    "AveragePool": 19,
    "BatchNormalization": 14,
}
# What an operator did before an opset gave it an attribute whose default is something else.
_BEFORE_ATTRIBUTE = {
    "Resize": (11, {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    "RoiAlign": (16, {"coordinate_transformation_mode": "output_half_pixel"}),
}
_GRAPHS = (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS)


class Namer:
    """Gives out each name once."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def unique(self, *candidates: str) -> str:
        """The first candidate that is free, else the last one with a number."""
        offered = [name for name in candidates if name]
        for name in offered:
            if name not in self._used:
                self._used.add(name)
                return name
        number = 2
        while f"{offered[-1]}_{number}" in self._used:
            number += 1
        return self.unique(f"{offered[-1]}_{number}")


def to_node(step: Step | Glue, namer: Namer, source: str) -> Node:
    """One operator; values that its subgraphs capture follow its own operands."""
    if isinstance(step, Glue):
        return _glue_node(step, namer, source)
    node = step.node
    first_output = next((name for name in step.results if name), node.op_type)
    name = namer.unique(node.name or "", first_output)
    return Node(
        name=name,
        op=node.op_type if not node.domain else f"{node.domain}::{node.op_type}",
        inputs=step.operands + step.captured,
        outputs=_named(step.results),
        attributes=_attributes(step),
        scope=_module_path(node.metadata_props) or node.name or "",
        source=_source(node.metadata_props, name, source),
    )


def _glue_node(glue: Glue, namer: Namer, source: str) -> Node:
    """Named after the control-flow node: what it does there, and to which value."""
    origin = glue.origin.node
    word = glue.op.rpartition(":")[2].lower()
    about = next((name for name in (*glue.results, *glue.operands) if name), word)
    metadata = origin.metadata_props
    return Node(
        name=namer.unique(f"{glue.origin.label}.{word}.{about}"),
        op=glue.op,
        inputs=glue.operands,
        outputs=glue.results,
        attributes=dict(glue.attributes),
        scope=_module_path(metadata) or origin.name or "",
        source=_source(metadata, glue.origin.label, source),
    )


def _attributes(step: Step) -> dict[str, Any]:
    """Plain Python values; of a subgraph that did not join the flat graph, a digest."""
    found = _defaults(step)
    for name, attribute in step.node.attributes.items():
        if attribute.is_ref():
            continue
        if attribute.type in _GRAPHS:
            found[name] = _digest(attribute)
            continue
        value = attribute.value
        if attribute.type == onnx_ir.AttributeType.TENSOR:
            try:
                value = value.numpy()
            except READ_ERRORS as error:
                raise step.invalid(f"attribute {name!r} cannot be read: {error}") from error
        found[name] = tuple(value) if isinstance(value, list | tuple) else value
    return found | _former(step, found)


def _defaults(step: Step) -> dict[str, Any]:
    """What the operator's schema at the model's opset says of attributes that are left out."""
    known = DEFAULTS.get(step.node.op_type, {}) if step.is_standard else {}
    defaults = {} if step.schema is None else schema_defaults(step.schema)
    found = {name: value for name, value in defaults.items() if name in known}
    opset, former = _BEFORE_ATTRIBUTE.get(step.node.op_type, (0, {}))
    if step.is_standard and step.opsets.get("", 0) < opset:
        found |= former
    return found


def _former(step: Step, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The opset that changed what the node says, if the model's is an older one."""
    changed = _CHANGED.get(step.node.op_type, 0) if not step.node.domain else 0
    plain = step.node.op_type == "AveragePool" and not attributes.get("ceil_mode", 0)
    plain = plain or (step.node.op_type == "BatchNormalization" and _results(step) == 1)
    return {BEFORE: changed} if step.opsets.get("", 0) < changed and not plain else {}


def _named(results: tuple[str, ...]) -> tuple[str, ...]:
    """Results up to the last one that has a name."""
    last = max((index for index, name in enumerate(results) if name), default=-1)
    return results[: last + 1]


def _results(step: Step) -> int:
    """How many results a node has, read or not: more than one means training in old BatchNormalizations."""
    return sum(1 for value in step.node.outputs if value.name)


def _digest(attribute: onnx_ir.Attr) -> str:
    proto = onnx_ir.to_proto(attribute)
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()


def _module_path(metadata: Mapping[str, str]) -> str:
    """The torch module that a node was exported from, as torch.onnx records it."""
    scopes = str(metadata.get("pkg.torch.onnx.name_scopes", ""))
    if scopes:
        try:
            names = ast.literal_eval(scopes)
        except (SyntaxError, ValueError):
            names = []
        if isinstance(names, list) and len(names) > 1:
            return str(names[-2])
    # "path: class/path.child: class/op: aten op"
    parts = str(metadata.get("namespace", "")).split("/")
    return parts[-2].split(":")[0].strip() if len(parts) > 1 else ""


def _source(metadata: Mapping[str, str], name: str, source: str) -> str:
    frames = [
        line.strip()
        for line in str(metadata.get("pkg.torch.onnx.stack_trace", "")).splitlines()
        if line.strip().startswith("File ")
    ]
    return f"{source}: node {name}" + (f" ({frames[-1]})" if frames else "")
