"""Attributes that ONNX's shape inference accepts and runtimes refuse."""

from __future__ import annotations

from collections.abc import Callable

from onnx_ir import AttributeType

from graphnorm.frontends.onnx.steps import Step

Shape = Callable[[str], tuple[int, ...] | None]

_WINDOWS = ("kernel_shape", "strides", "dilations")
_WINDOWED = frozenset(
    {"AveragePool", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "LpPool", "MaxPool", "QLinearConv"}
)
_GROUPED = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "DeformConv": 1}  # where the kernel is


def attribute_fault(step: Step, shape: Shape) -> str:
    """What is wrong with the attributes of a node; empty if nothing is known to be."""
    if not step.is_standard:
        return ""
    op, attributes = step.node.op_type, step.node.attributes
    if fault := _type_fault(step):
        return fault
    if op in _WINDOWED:
        for name in _WINDOWS:
            sizes = tuple(attributes.get_ints(name, ()))
            if any(size < 1 for size in sizes):
                return f"{name} must be positive, got {sizes}"
    return _group_fault(step, shape)


def _type_fault(step: Step) -> str:
    """An attribute of another type than the operator's."""
    known = step.schema.attributes if step.schema is not None else {}
    for name, attribute in step.node.attributes.items():
        if name not in known:
            continue
        expected = AttributeType(int(known[name].type))  # type: ignore[call-overload]
        if attribute.type != expected:
            return f"{name} must be {expected.name}, got {attribute.type.name}"
    return ""


def _group_fault(step: Step, shape: Shape) -> str:
    op = step.node.op_type
    if op not in _GROUPED and op != "ConvTranspose":
        return ""
    group = step.node.attributes.get_int("group", 1)
    if group < 1:
        return f"group must be positive, got {group}"
    at = _GROUPED.get(op, 1)
    if len(step.operands) <= at:
        return ""
    data, kernel = (shape(name) for name in (step.operands[0], step.operands[at]))
    if data is None or kernel is None or len(data) < 2 or len(kernel) < 2:
        return ""
    channels, filters = data[1], kernel[0]
    if op == "ConvTranspose":
        return "" if channels == filters and channels % group == 0 else _mismatch(group, channels, kernel)
    return (
        "" if channels == kernel[1] * group and filters % group == 0 else _mismatch(group, channels, kernel)
    )


def _mismatch(group: int, channels: int, kernel: tuple[int, ...]) -> str:
    return f"{channels} channels and a kernel of {kernel} do not make {group} groups"
