"""Places in an ONNX model that hold a tensor: initializers and tensor attributes, at any depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir


@dataclass(frozen=True, slots=True)
class Slot:
    """An initializer (`key` is empty) or a node's tensor attribute `key`."""

    name: str
    owner: onnx_ir.Value | onnx_ir.Node
    key: str
    tensor: onnx_ir.TensorProtocol

    def store(self, tensor: onnx_ir.TensorProtocol) -> None:
        """Put another tensor in this place."""
        if isinstance(self.owner, onnx_ir.Value):
            self.owner.const_value = tensor
        else:
            doc = self.owner.attributes[self.key].doc_string
            self.owner.attributes[self.key] = onnx_ir.AttrTensor(self.key, tensor, doc_string=doc)


def tensor_slots(model: onnx_ir.Model) -> Iterator[Slot]:
    """Every slot of the model, in subgraphs and functions too."""
    graphs = list(model.graphs())
    for function in model.functions.values():
        graphs += [function.graph, *function.subgraphs()]
    for graph in graphs:
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                yield Slot(name, value, "", value.const_value)
        for node in graph:
            for key, attribute in list(node.attributes.items()):
                if not attribute.is_ref() and attribute.type == onnx_ir.AttributeType.TENSOR:
                    yield Slot(
                        node.outputs[0].name or key, node, key, attribute.value
                    )  # as_tensor() would load it


def external_tensors(model: onnx_ir.Model) -> Iterator[tuple[str, onnx_ir.ExternalTensor]]:
    """(name, tensor) of everything that is stored outside the model file."""
    for slot in tensor_slots(model):
        if isinstance(slot.tensor, onnx_ir.ExternalTensor):
            yield slot.name, slot.tensor
