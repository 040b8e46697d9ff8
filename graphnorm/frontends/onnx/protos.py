"""Tensors of a model as its file holds them, before anything reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from graphnorm.errors import ModelFileError

_NUMBERS = ("offset", "length")
_LARGEST = 2**62  # sums of two such numbers fit an unsigned 64-bit integer


def check_external_entries(model: onnx.ModelProto, source: str) -> None:
    """Offset and length of external data are stored as text: they must be numbers.

    Raises:
        ModelFileError: names the tensor.
    """
    tensors = (*_of_graph(model.graph), *(t for f in model.functions for t in _of_nodes(f.node)))
    for tensor in tensors:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        where = f"{source}: external data of tensor {tensor.name!r} ({entries.get('location', '')})"
        if not entries.get("location"):
            raise ModelFileError(f"{where} has no location; export the model again")
        for key in _NUMBERS:
            value = entries.get(key, "0")
            if not value.isascii() or not value.isdigit() or int(value) > _LARGEST:
                raise ModelFileError(f"{where} has {key} {value!r}, a number of bytes is needed")


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from _of_graph(attribute.g)
            yield from attribute.tensors
            for graph in attribute.graphs:
                yield from _of_graph(graph)
