"""What an exported graph's nodes say about themselves: types, names, and where they come from."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Container, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from graphnorm.frontends.torch.aten.table import tensors_in
from graphnorm.frontends.torch.tensors import value_of
from graphnorm.ir import Value

FRAME = re.compile(r'File "([^"]+)", line (\d+)')
TORCH_FOLDER = os.path.dirname(torch.__file__) + os.sep
Symbol = (torch.SymInt, torch.SymFloat, torch.SymBool)


def result_keys(program: ExportedProgram) -> tuple[str, ...]:
    """How callers reach each tensor of the result, in order: ``['logits']``, ``[0]``, ``.hidden``."""
    spec = program.call_spec.out_spec
    results = [
        item.arg for item in program.graph_signature.output_specs if item.kind is OutputKind.USER_OUTPUT
    ]
    if spec is None or spec.num_leaves != len(results):
        return ()
    paths, _ = tree_flatten_with_path(tree_unflatten(range(len(results)), spec))
    return tuple(keystr(path) for path, place in paths if isinstance(results[place], TensorArgument))


def mutated_names(program: ExportedProgram) -> set[str]:
    """The parameters and buffers that a call of the model overwrites."""
    kinds = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)
    specs = program.graph_signature.output_specs
    return {spec.target for spec in specs if spec.kind in kinds and spec.target is not None}


def listed(result: Any) -> list[Any]:
    """A call's results: one, or a list of them."""
    return list(result) if isinstance(result, (tuple, list)) else [result]


def value_or_none(name: str, result: Any) -> Value | None:
    """The type of one result, None if it is no tensor."""
    if isinstance(result, Tensor):
        return value_of(name, result)
    if isinstance(result, Symbol):  # a number read out of a tensor: rank 0
        kinds = {torch.SymFloat: "float32", torch.SymInt: "int64", torch.SymBool: "bool"}
        return Value(name, (), kinds[type(result)])
    return None


def users_of(node: fx.Node, alive: Container[fx.Node]) -> dict[int, fx.Node]:
    """Of a call with several results: the call that picks out each."""
    users: dict[int, fx.Node] = {}
    if isinstance(node.meta.get("val"), (tuple, list)):
        for user in node.users:
            if user.target is operator.getitem and user in alive:
                users.setdefault(int(str(user.args[1])), user)
    return users


def outputs_of(
    node: fx.Node, users: Mapping[int, fx.Node], unique: Callable[[str], str]
) -> list[Value | None]:
    """The types of a call's results, each under the name of the call that picks it out."""
    result = node.meta.get("val")
    several = isinstance(result, (tuple, list))
    names = [
        users[i].name if i in users else f"{node.name}.{i}" if several else node.name
        for i in range(len(listed(result)))
    ]
    return [value_or_none(unique(name), item) for name, item in zip(names, listed(result), strict=True)]


def hides_tensor(target: OpOverload, arguments: dict[str, Any]) -> bool:
    """Whether a number of this call was computed from a tensor: its lowering expects a literal."""
    return any(
        "Tensor" not in str(formal.type) and any(tensors_in(arguments[formal.name]))
        for formal in target._schema.arguments
    )


def operator_name(target: Any) -> str:
    """How a node without a lowering is called: ``aten::sort``, ``higher_order::cond``."""
    if isinstance(target, HigherOrderOperator):
        return f"higher_order::{target}"
    if isinstance(target, OpOverload):
        return f"{target.namespace}::{target._schema.name.partition('::')[2]}"
    return f"python::{getattr(target, '__name__', target)}"


def scope_of(node: fx.Node) -> str:
    """The path of the innermost module that made the call."""
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""


def source_of(node: fx.Node) -> str:
    """``folder/file.py:line`` of the innermost frame outside torch."""
    frames = FRAME.findall(node.meta.get("stack_trace") or "")
    if not frames:
        return ""
    outside = [frame for frame in frames if not frame[0].startswith(TORCH_FOLDER)]
    path, line = (outside or frames)[-1]
    return f"{'/'.join(path.replace(os.sep, '/').split('/')[-2:])}:{line}"
