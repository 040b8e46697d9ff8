"""Hashes of a network: of its structure and of its weights, the same however a file lays them out."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from graphnorm import ir


def graph_hash(network: ir.Graph) -> str:
    """SHA-256 of nodes, wiring, attributes, types and constants; not of weights' entries."""
    digest = hashlib.sha256()
    for name in (*network.inputs, "->", *network.outputs):
        _update(digest, name, _type(network, name))
    for name in sorted(network.weights):
        _update(digest, "weight", name, _type(network, name))
    for name in sorted(network.constants):
        array = network.constants[name]
        _update(digest, "constant", name, _type(network, name), np.ascontiguousarray(array).tobytes())
    for node in network.nodes:
        attributes = [(key, _attribute(value)) for key, value in sorted(node.attributes.items())]
        _update(digest, node.op, node.inputs, node.outputs, attributes)
    return digest.hexdigest()


def weights_hash(network: ir.Graph) -> str:
    """SHA-256 of all weights: names, types, shapes, bits."""
    digest = hashlib.sha256()
    for name in sorted(network.weights):
        _update(digest, name, _type(network, name))
        digest.update(np.ascontiguousarray(network.weights[name]).tobytes())
    return digest.hexdigest()


def _type(network: ir.Graph, name: str) -> Any:
    value = network.values.get(name)
    return None if value is None else (value.shape, value.dtype, sorted(value.dynamic))


def _attribute(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _update(digest: Any, *parts: Any) -> None:
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
