"""The constants of an ``onnx_ir.Model``: read them, replace them, drop those that are not read."""

from __future__ import annotations

from itertools import count

import numpy as np
import onnx_ir
from onnx_ir.passes import PassBase

from graphnorm.errors import InputError
from graphnorm.frontends.onnx.steps import constant_array
from graphnorm.ir import Array

_FREE_INITIALIZERS = 4  # from this IR version on, an initializer need not be a graph input


def is_standard(node: onnx_ir.Node) -> bool:
    """Whether the operator belongs to ONNX itself."""
    return node.domain in {"", "ai.onnx"}


def stored_array(value: onnx_ir.Value) -> Array | None:
    """The data of an initializer or ``Constant``; None if the value is an input or computed."""
    if value.is_initializer():
        return None if value.const_value is None else np.asarray(value.const_value.numpy())
    node = value.producer()
    if node is None or node.op_type != "Constant" or not is_standard(node):
        return None
    return constant_array(node)


class Constants:
    """The constants of one model."""

    def __init__(self, model: onnx_ir.Model) -> None:
        self.model = model
        self.names: set[str | None] = set()
        for graph in (model.graph, *model.graph.subgraphs()):
            self.names.update(value.name for value in (*graph.inputs, *graph.initializers.values()))
            self.names.update(value.name for node in graph for value in node.outputs)

    def obstacle(self, value: onnx_ir.Value) -> str | None:
        """Why the data of this value may not be built upon, None if it may."""
        if stored_array(value) is None:
            return f"{value.name} is not a constant"
        if value.is_graph_input() and self.model.ir_version >= _FREE_INITIALIZERS:
            return f"{value.name} is also a graph input, which the caller may override"
        return None

    def store(self, array: Array, old: onnx_ir.Value | None, name: str) -> onnx_ir.Value:
        """The value that now holds ``array``: ``old``, unless it is shared or no initializer.

        Args:
            array: The data.
            old: The value it takes the place of, still in use there.
            name: For a new initializer; made unique.
        """
        if old is None or not old.is_initializer() or old.is_graph_output() or len(old.uses()) > 1:
            value = onnx_ir.Value(name=self.unused(name))
        else:
            value = old
        tensor = onnx_ir.Tensor(np.ascontiguousarray(array), name=value.name)
        value.const_value = tensor
        value.shape, value.type = onnx_ir.Shape(array.shape), onnx_ir.TensorType(tensor.dtype)
        if value is not old:
            if self.model.ir_version < _FREE_INITIALIZERS:
                self.model.graph.inputs.append(value)
            self.model.graph.register_initializer(value)
        return value

    def unused(self, name: str) -> str:
        """That name, or one like it that no value has."""
        found = next(new for i in count() if (new := f"{name}_{i}" if i else name) not in self.names)
        self.names.add(found)
        return found

    @staticmethod
    def drop_if_unused(value: onnx_ir.Value | None) -> None:
        """Remove an initializer or ``Constant`` that is not read."""
        if value is None or value.uses() or value.is_graph_output():
            return
        node, graph = value.producer(), value.graph
        if graph is not None and node is not None:
            graph.remove(node, safe=True)
        elif graph is not None and value.name is not None:
            if value.is_graph_input():  # before IR version 4 all initializers are
                graph.inputs.remove(value)
            del graph.initializers[value.name]


def require_model(owner: PassBase, model: object) -> None:
    """Refuse other models than an ``onnx_ir.Model``.

    Raises:
        InputError: It is not one; the message says how to convert it.
    """
    if not isinstance(model, onnx_ir.Model):
        raise InputError(
            f"{type(owner).__name__} takes an onnx_ir.Model, got {type(model).__name__}: "
            "use onnx_ir.load(path) or onnx_ir.from_proto(model_proto)"
        )
