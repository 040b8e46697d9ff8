"""The lowering table: ATen overload -> ONNX nodes.  One table, built here, a second entry is an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphnorm.frontends.torch import overwrite as aten_overwrite
from graphnorm.frontends.torch.aten import activation as aten_activation
from graphnorm.frontends.torch.aten import attention as aten_attention
from graphnorm.frontends.torch.aten import contraction as aten_contraction
from graphnorm.frontends.torch.aten import convolution as aten_convolution
from graphnorm.frontends.torch.aten import copy as aten_copy
from graphnorm.frontends.torch.aten import create as aten_create
from graphnorm.frontends.torch.aten import distance as aten_distance
from graphnorm.frontends.torch.aten import elementwise as aten_elementwise
from graphnorm.frontends.torch.aten import embedding as aten_embedding
from graphnorm.frontends.torch.aten import experts as aten_experts
from graphnorm.frontends.torch.aten import index as aten_index
from graphnorm.frontends.torch.aten import logic as aten_logic
from graphnorm.frontends.torch.aten import mask as aten_mask
from graphnorm.frontends.torch.aten import norm as aten_norm
from graphnorm.frontends.torch.aten import order as aten_order
from graphnorm.frontends.torch.aten import patches as aten_patches
from graphnorm.frontends.torch.aten import pool as aten_pool
from graphnorm.frontends.torch.aten import quantize as aten_quantize
from graphnorm.frontends.torch.aten import random as aten_random
from graphnorm.frontends.torch.aten import reduce as aten_reduce
from graphnorm.frontends.torch.aten import resize as aten_resize
from graphnorm.frontends.torch.aten import rnn as aten_rnn
from graphnorm.frontends.torch.aten import scatter as aten_scatter
from graphnorm.frontends.torch.aten import search as aten_search
from graphnorm.frontends.torch.aten import shape as aten_shape
from graphnorm.frontends.torch.aten import special as aten_special
from graphnorm.frontends.torch.aten import vision as aten_vision
from graphnorm.frontends.torch.call import Call, Unlowerable
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.ir import Value
from graphnorm.util.defects import DEFECTS, defect

FAMILIES = (
    aten_activation,
    aten_attention,
    aten_contraction,
    aten_convolution,
    aten_copy,
    aten_create,
    aten_distance,
    aten_elementwise,
    aten_embedding,
    aten_experts,
    aten_index,
    aten_logic,
    aten_mask,
    aten_norm,
    aten_order,
    aten_overwrite,
    aten_patches,
    aten_pool,
    aten_quantize,
    aten_random,
    aten_reduce,
    aten_resize,
    aten_rnn,
    aten_scatter,
    aten_search,
    aten_shape,
    aten_special,
    aten_vision,
)
LOWERINGS = Lowerings()
for _family in FAMILIES:
    LOWERINGS.include(_family.TABLE)


def table_name(target: Any) -> str:
    """An operator's name in the table: ``add.Tensor``, outside ATen ``torchvision.nms.default``."""
    return str(target).removeprefix("aten.")


def ignored_arguments(operator: str) -> tuple[int, ...]:
    """The arguments of an ATen overload whose data does not reach its result."""
    return LOWERINGS.ignored.get(operator, ())


def lower(call: Call, operator: str, arguments: dict[str, Any], op: str) -> None:
    """Fill a call with the nodes that compute it.

    A lowering that does not read every tensor operand is rejected: the call becomes an unknown
    operator, which reads them all and which no rule describes.  So does a call in whose lowering
    something fails; then there is a remark, too.

    Args:
        call: the call, empty.
        operator: ``add.Tensor``; operators outside ATen keep their namespace and are in no table.
        arguments: by schema name, in schema order, tensors as `Value`.
        op: the name of the node if the operator has no lowering, ``aten::add``.
    """
    lowering = LOWERINGS.table.get(operator)
    if lowering is not None:
        ignored = ignored_arguments(operator)
        needed = {
            value.name
            for index, argument in enumerate(arguments.values())
            if index not in ignored
            for value in tensors_in(argument)
        }
        try:
            lowering(call, *arguments.values())
            if needed <= call.read and (call.nodes or call.constants):
                return
        except Unlowerable:
            pass
        except DEFECTS as error:
            call.remarks.append(defect("lowering", op, call.scope or call.name, error))
        call.clear()
    unknown(call, op, arguments)


def unknown(call: Call, op: str, arguments: dict[str, Any]) -> None:
    """One node of an operator outside ONNX: all tensors are operands, all numbers attributes."""
    operands = [value for argument in arguments.values() for value in tensors_in(argument)]
    attributes = {name: value for name, value in arguments.items() if _is_plain(value)}
    call.out_all(op, operands, attributes)


def tensors_in(argument: Any) -> Iterator[Value]:
    """The tensors of an argument, lists included."""
    if isinstance(argument, Value):
        yield argument
    elif isinstance(argument, (list, tuple)):
        for item in argument:
            yield from tensors_in(item)
    elif isinstance(argument, dict):
        for item in argument.values():
            yield from tensors_in(item)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return isinstance(value, (bool, int, float, str))
