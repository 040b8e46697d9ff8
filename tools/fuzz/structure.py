"""Damage to a model's structure: each change alone is well-formed protobuf, and nearly a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, checker, defs, numpy_helper

# Numbers at which programs break.
INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    -2,
    -7,
    255,
    2**15,
    2**20,
    2**31 - 1,
    -(2**31),
    2**32,
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
)
FLOATS = (0.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"))
_TYPES = tuple(TensorProto.DataType.values())
_OPERATORS = tuple(sorted({schema.name for schema in defs.get_all_schemas() if schema.domain == ""}))


def damage(model: onnx.ModelProto, random: Random) -> onnx.ModelProto:
    """One to three random changes in a copy; one is likeliest, since most that follow are refused at once."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for _ in range(random.choice((1, 1, 2, 3))):
        random.choice(_CHANGES)(found, random)
    return found


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _graph(model: onnx.ModelProto, random: Random) -> onnx.GraphProto:
    return random.choice(list(_graphs(model.graph)))


def _node(model: onnx.ModelProto, random: Random) -> onnx.NodeProto | None:
    """Of the main graph, of a body, or of a function."""
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    return random.choice(nodes) if nodes else None


def _names(model: onnx.ModelProto) -> list[str]:
    graphs = list(_graphs(model.graph))
    found = [name for graph in graphs for node in graph.node for name in node.output]
    found += [tensor.name for graph in graphs for tensor in graph.initializer]
    return [*found, *(value.name for graph in graphs for value in graph.input), "", "ghost"]


def _change_attribute(model: onnx.ModelProto, random: Random) -> None:
    node = _node(model, random)
    if node is None:
        return
    if not node.attribute or random.random() < 0.2:
        _add_attribute(node, random)
        return
    attribute = random.choice(node.attribute)
    if attribute.type == AttributeProto.INT:
        attribute.i = random.choice(INTEGERS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = random.choice(FLOATS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = random.choice(
            (b"", b"\xff", b"SAME_UPPER", b"reflect", b"ij,jk->ik", b"...i,i->...", attribute.s * 2)
        )
    elif attribute.type == AttributeProto.INTS and attribute.ints:
        _change_list(attribute.ints, INTEGERS, random)
    elif attribute.type == AttributeProto.TENSOR:
        _change_tensor(attribute.t, random)
    else:
        node.attribute.remove(attribute)


def _change_list(values: Any, choices: tuple[Any, ...], random: Random) -> None:
    kind = random.randrange(4)
    if kind == 0:
        values.append(random.choice(choices))
    elif kind == 1:
        del values[random.randrange(len(values))]
    elif kind == 2:
        values.append(values[0])
    else:
        values[random.randrange(len(values))] = random.choice(choices)


def _add_attribute(node: onnx.NodeProto, random: Random) -> None:
    """One that the operator has, if ONNX knows it."""
    known = list(defs.get_schema(node.op_type).attributes.values()) if defs.has(node.op_type) else []
    if not known:
        node.attribute.append(onnx.helper.make_attribute("axis", random.choice(INTEGERS)))
        return
    chosen = random.choice(known)
    value: Any = {
        int(AttributeProto.INT): random.choice(INTEGERS),
        int(AttributeProto.FLOAT): random.choice(FLOATS),
        int(AttributeProto.STRING): random.choice(("", "same", "linear")),
        int(AttributeProto.INTS): [random.choice(INTEGERS) for _ in range(random.randint(1, 4))],
        int(AttributeProto.FLOATS): [random.choice(FLOATS) for _ in range(random.randint(1, 3))],
    }.get(int(chosen.type.value))  # type: ignore[attr-defined]
    if value is not None:
        kept = [attribute for attribute in node.attribute if attribute.name != chosen.name]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(chosen.name, value)])


def _change_tensor(tensor: TensorProto, random: Random) -> None:
    kind = random.randrange(6)
    if kind == 0 and tensor.dims:
        _change_list(tensor.dims, INTEGERS, random)
        return
    if kind == 1:
        tensor.data_type = random.choice(_TYPES)
        return
    if kind == 2:
        tensor.raw_data = tensor.raw_data[: random.randrange(len(tensor.raw_data) + 1)]
        return
    if kind == 3:
        tensor.data_location = TensorProto.EXTERNAL
        offset, length = (str(random.choice(INTEGERS)) for _ in range(2))
        location = random.choice(("", ".", "..", "x", "m.onnx", "\0"))
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        return
    try:
        array = np.array(numpy_helper.to_array(tensor))
    except (TypeError, ValueError, checker.ValidationError):  # damaged already
        return
    if array.size and array.dtype.kind in "fiu":
        choices = FLOATS if array.dtype.kind == "f" else INTEGERS
        with np.errstate(all="ignore"):
            array.reshape(-1)[random.randrange(array.size)] = np.asarray(random.choice(choices)).astype(
                array.dtype
            )
        if kind == 4:
            array = random.choice(
                (array.reshape(-1), array[:0], array[None], array.T, array.reshape(-1)[:1], array[..., 0])
                if array.ndim
                else (array[None], array)
            )
        tensor.CopyFrom(
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), tensor.name)
        )


def _change_initializer(model: onnx.ModelProto, random: Random) -> None:
    graph = _graph(model, random)
    if not graph.initializer:
        return
    if random.random() < 0.15:
        graph.initializer.remove(random.choice(graph.initializer))
    else:
        _change_tensor(random.choice(graph.initializer), random)


def _change_operator(model: onnx.ModelProto, random: Random) -> None:
    node = _node(model, random)
    if node is not None:
        node.op_type = random.choice(_OPERATORS)


def _change_domain(model: onnx.ModelProto, random: Random) -> None:
    node = _node(model, random)
    if node is not None:
        node.domain = random.choice(("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "own"))


def _change_operand(model: onnx.ModelProto, random: Random) -> None:
    node = _node(model, random)
    if node is None:
        return
    names = node.input if random.random() < 0.7 else node.output
    kind = random.randrange(3)
    if kind == 0 or not names:
        names.append(random.choice(_names(model)))
    elif kind == 1:
        del names[random.randrange(len(names))]
    else:
        names[random.randrange(len(names))] = random.choice(_names(model))


def _change_nodes(model: onnx.ModelProto, random: Random) -> None:
    graph = _graph(model, random)
    if not graph.node:
        return
    nodes = list(graph.node)
    at = random.randrange(len(nodes))
    kind = random.randrange(4)
    if kind == 0:
        del nodes[at]
    elif kind == 1:
        nodes.insert(random.randrange(len(nodes)), nodes[at])
    elif kind == 2:
        random.shuffle(nodes)
    else:
        nodes.append(_new_node(model, random))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _new_node(model: onnx.ModelProto, random: Random) -> onnx.NodeProto:
    """Any operator on any values, whose result takes another's place."""
    operands = [random.choice(_names(model)) for _ in range(random.randint(0, 4))]
    node = onnx.helper.make_node(random.choice(_OPERATORS), operands, [random.choice(_names(model))])
    for _ in range(random.randint(0, 2)):
        _add_attribute(node, random)
    return node


def _change_shape(model: onnx.ModelProto, random: Random) -> None:
    graph = _graph(model, random)
    values = [*graph.input, *graph.output, *graph.value_info]
    if not values:
        return
    tensor = random.choice(values).type.tensor_type
    kind = random.randrange(5)
    if kind == 0:
        tensor.elem_type = random.choice(_TYPES)
    elif kind == 1:
        tensor.ClearField("shape")
    elif kind == 2 or not tensor.shape.dim:
        tensor.shape.dim.add().dim_value = random.choice(INTEGERS)
    elif kind == 3:
        random.choice(tensor.shape.dim).dim_param = random.choice(("N", "", "H", "?"))
    else:
        random.choice(tensor.shape.dim).dim_value = random.choice(INTEGERS)


def _change_header(model: onnx.ModelProto, random: Random) -> None:
    kind = random.randrange(5)
    if kind == 0:
        model.ir_version = random.choice((*range(14), 2**31))
    elif kind == 1 and model.opset_import:
        random.choice(model.opset_import).version = random.choice((*range(5, 28), *INTEGERS))
    elif kind == 2:
        del model.opset_import[:]
    elif kind == 3 and model.graph.output:
        model.graph.output[0].name = random.choice(_names(model))
    elif model.graph.input:
        model.graph.input[0].name = random.choice(_names(model))


_OFTEN = (_change_attribute, _change_initializer)
_SOMETIMES = (_change_operator, _change_operand, _change_nodes, _change_shape)
_CHANGES: tuple[Callable[[onnx.ModelProto, Random], None], ...] = (
    *_OFTEN * 3, *_SOMETIMES * 2, _change_domain, _change_header
)  # fmt: skip
