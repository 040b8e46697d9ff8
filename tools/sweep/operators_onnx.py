"""Every ONNX operator with a rule, with operands of 0, 1 or no entries and attributes out of range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper

import graphnorm
from graphnorm.ir import Array
from graphnorm.scales.rules.table import default_registry
from tools.sweep.trial import Outcome, attempt
from tools.validation.case import ABSENT, Case, Operand, Rng, signed
from tools.validation.evaluate import OLD, OPSET
from tools.validation.families import GENERATORS
from tools.validation.judge import make_case

_TYPE = defs.OpSchema.AttrType
_INTEGERS = (-100, -1, 0, 1, 100)
_FLOATS = (-3.0, 0.0, float("inf"), float("nan"))


def operators() -> list[str]:
    """Operators of ONNX that have a rule."""
    known = set(default_registry())
    return sorted(op for op in known if defs.has(op, ""))


def cases(op: str, draws: int) -> Iterator[tuple[str, Case]]:
    """`draws` cases of the operator, each damaged in all ways."""
    drawn = [make_case(op, 0, number) for number in range(draws)] if op in GENERATORS else [_by_schema(op)]
    for case in drawn:
        yield "as drawn", case
        yield from _reshaped(case)
        yield from _out_of_range(case)


def _by_schema(op: str) -> Case:
    """Operands and attributes that the operator's schema asks for, of the first kind that comes to mind."""
    schema = defs.get_schema(op, OLD.get(op, OPSET), "")
    operands = tuple(Operand("data", (2, 3), signed) for _ in range(max(schema.min_input, 1)))
    made: dict[Any, Any] = {
        _TYPE.INT: 1, _TYPE.FLOAT: 1.0, _TYPE.STRING: "", _TYPE.INTS: [1], _TYPE.FLOATS: [1.0],
    }  # fmt: skip
    required = {name: made[a.type] for name, a in schema.attributes.items()
                if a.required and a.type in made}  # fmt: skip
    return Case(op, operands, required, max(schema.min_output, 1))


def _reshaped(case: Case) -> Iterator[tuple[str, Case]]:
    """One operand, or all operands that move, with other shapes."""
    for words, change in (
        ("0-d", lambda shape: ()),
        ("of one entry", lambda shape: (1,) * len(shape)),
        ("without entries", lambda shape: (0,) * len(shape)),
        ("without rows", lambda shape: (0, *shape[1:])),
        ("without columns", lambda shape: (*shape[:-1], 0) if shape else (0,)),
        ("without channels", lambda shape: (*shape[:1], 0, *shape[2:]) if len(shape) > 1 else shape),
        ("of one channel", lambda shape: (*shape[:1], 1, *shape[2:]) if len(shape) > 1 else shape),
        ("of one axis more", lambda shape: (*shape, 1)),
        ("of one axis less", lambda shape: shape[1:]),
    ):
        everywhere = tuple(_resized(o, change(o.shape)) if o.moves else o for o in case.operands)
        yield f"all {words}", replace(case, operands=everywhere)
        for k, operand in enumerate(case.operands):
            if operand.kind != "absent":
                changed = _resized(operand, change(operand.shape))
                yield f"{k} {words}", _with(case, k, changed)


def _resized(operand: Operand, shape: tuple[int, ...]) -> Operand:
    if operand.kind == "absent":
        return operand
    if operand.value is None:
        return replace(operand, shape=shape, along=None)
    return replace(operand, shape=shape, value=np.resize(operand.value, shape), along=None)


def _with(case: Case, k: int, operand: Operand) -> Case:
    return replace(case, operands=(*case.operands[:k], operand, *case.operands[k + 1 :]))


def _out_of_range(case: Case) -> Iterator[tuple[str, Case]]:
    """One attribute, or one known integer operand (axes, sizes, pads), with other values."""
    for name, value in _attributes(case).items():
        for changed in _variants(value):
            yield f"{name}={changed}", replace(case, attributes={**case.attributes, name: changed})
    for name in case.attributes:
        rest = {key: value for key, value in case.attributes.items() if key != name}
        yield f"no {name}", replace(case, attributes=rest)
    for k, operand in enumerate(case.operands):
        if operand.value is not None and operand.value.dtype.kind in "iu":
            for changed in _variants(operand.value.ravel().tolist()):
                array = np.asarray(changed, operand.value.dtype)
                yield f"{k}={changed}", _with(case, k, replace(operand, shape=array.shape, value=array))
        if operand.kind != "absent":
            yield f"no {k}", _with(case, k, ABSENT)


def _attributes(case: Case) -> dict[str, Any]:
    """Those of the case, and the schema's others with their defaults."""
    schema = defs.get_schema(case.op, OLD.get(case.op, OPSET), "")
    defaults = {
        name: helper.get_attribute_value(a.default_value)
        for name, a in schema.attributes.items()
        if a.default_value.name
    }
    open_ones = {name: [1] for name, a in schema.attributes.items() if a.type == _TYPE.INTS}
    return {**open_ones, **defaults, **case.attributes}


def _variants(value: Any) -> list[Any]:
    """Values of the same type, most of them wrong."""
    if isinstance(value, bool | int | np.integer):
        return list(_INTEGERS)
    if isinstance(value, float | np.floating):
        return list(_FLOATS)
    if isinstance(value, str | bytes):
        return ["", "nonsense"]
    if isinstance(value, list | tuple) and all(isinstance(each, int | np.integer) for each in value):
        whole = [int(each) for each in value]
        same = [[n] * len(whole) for n in _INTEGERS]
        return [*same, [*whole, 1], whole[:-1] or [7], whole[::-1], [*whole, *whole]]
    return []


def model(case: Case, rng: Rng) -> onnx.ModelProto:
    """Inputs times gains (weights), the operator, its results times gains."""
    inputs: list[onnx.ValueInfoProto] = []
    tensors: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    names: list[str] = []
    for k, operand in enumerate(case.operands):
        names.append("" if operand.kind == "absent" else f"u{k}")
        array = None if operand.kind == "absent" else _draw(operand, rng)
        if array is None:
            continue
        if operand.kind in {"constant", "weight"}:
            tensors.append(numpy_helper.from_array(array, f"u{k}"))
            continue
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        gained = operand.kind != "input"
        inputs.append(helper.make_tensor_value_info(f"x{k}" if gained else f"u{k}", kind, array.shape))
        if gained:
            tensors.append(numpy_helper.from_array(np.ones(array.shape[1:], array.dtype), f"g{k}"))
            nodes.append(helper.make_node("Mul", [f"x{k}", f"g{k}"], [f"u{k}"]))
    results = [f"y{j}" for j in range(case.results)]
    nodes.append(helper.make_node(case.op, names, results, "op", **_given(case.attributes)))
    outputs = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in results]
    graph = helper.make_graph(nodes, case.op, inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OLD.get(case.op, OPSET))])


def _draw(operand: Operand, rng: Rng) -> Array:
    array = operand.draw(rng)
    assert array is not None
    return np.asarray(array, np.float32) if array.dtype.kind == "f" else np.asarray(array)


def _given(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as ONNX's helper takes them; a list without entries has no type there."""
    return {name: value for name, value in attributes.items()
            if not (isinstance(value, list | tuple) and not len(value))}  # fmt: skip


def outcomes(
    chosen: list[str] | None = None, draws: int = 2, part: int = 0, parts: int = 1
) -> Iterator[Outcome]:
    """Every `parts`-th case, from number `part` on."""
    number = 0
    for op in chosen or operators():
        for words, case in cases(op, draws):
            number += 1
            if number % parts != part:
                continue
            try:
                proto = model(case, np.random.default_rng(0))
            except (IndexError, TypeError, ValueError):  # indices below 0 entries, attributes of no type
                continue
            text = f"{case}, {words}"
            yield attempt(text, partial(graphnorm.canonicalize, proto, verify=False))
