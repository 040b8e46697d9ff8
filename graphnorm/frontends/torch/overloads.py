"""Which ATen overloads become which ONNX operators, read from the source code of the lowerings.

A lowering names the operators that it emits as ``call.out("Relu", x)`` or ``call.step(...)``.  Names that
reach such a call through a closure, a parameter or another lowering are followed; what remains unknown is
left out.  An overload may be listed under several operators: it is made of them, or one or the other.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import FunctionType
from typing import Any

_EMITTERS = {"out": 0, "step": 0, "steps": 0, "out_at": 1}  # method of a call -> position of the operator
_BY_NAME = {
    "split": "Split"
}  # methods of a call that emit one operator (casts are left out: most may add one)
Names = Mapping[str, Any]


@cache
def lowered_from() -> dict[str, tuple[str, ...]]:
    """ONNX operator -> ATen overloads (``add.Tensor``), sorted; empty without torch."""
    try:
        from graphnorm.frontends.torch.aten.table import LOWERINGS
    except ImportError:
        return {}
    found: dict[str, set[str]] = {}
    for overload, lowering in LOWERINGS.table.items():
        for operator in _emitted(lowering, {}, frozenset()):
            found.setdefault(operator, set()).add(overload)
    return {operator: tuple(sorted(overloads)) for operator, overloads in found.items()}


def _emitted(function: Callable[..., None], given: Names, seen: frozenset[object]) -> Iterator[str]:
    """The operators that a lowering emits, if some of its parameters are known."""
    if not isinstance(function, FunctionType) or function in seen:
        return
    around = inspect.getclosurevars(function)
    known = {**around.globals, **around.nonlocals, **given}
    for node in _calls(_tree(function), known):
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if method in _BY_NAME:
            yield _BY_NAME[method]
        elif method in _EMITTERS and len(node.args) > _EMITTERS[method]:
            yield from _strings(node.args[_EMITTERS[method]], known)
        elif isinstance(node.func, ast.Name):
            called = known.get(node.func.id)
            if isinstance(called, FunctionType) and called.__module__.startswith("graphnorm.frontends."):
                yield from _emitted(called, _arguments(called, node, known), seen | {function})


def _calls(node: ast.AST, known: Names) -> Iterator[ast.Call]:
    """The calls below a node, without branches that the known names rule out."""
    if isinstance(node, ast.Call):
        yield node
    skipped = node.body if isinstance(node, ast.If) and _is_false(node.test, known) else []
    for child in ast.iter_child_nodes(node):
        if child not in skipped:
            yield from _calls(child, known)


def _is_false(test: ast.expr, known: Names) -> bool:
    """Whether a test fails for the known names; False also where that cannot be said."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(_is_false(part, known) for part in test.values)
    if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq):
        left, right = (list(_strings(side, known)) for side in (test.left, test.comparators[0]))
        return len(left) == len(right) == 1 and left != right
    return isinstance(test, ast.Name) and known.get(test.id) is False


@cache
def _tree(function: FunctionType) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def _arguments(function: FunctionType, call: ast.Call, known: Names) -> dict[str, Any]:
    """The parameters of a called function that are given as one known string."""
    names = list(inspect.signature(function).parameters)
    given = [*zip(names, call.args, strict=False), *((item.arg, item.value) for item in call.keywords)]
    found = {name: list(_strings(value, known)) for name, value in given if name is not None}
    return {name: texts[0] for name, texts in found.items() if len(texts) == 1}


def _strings(node: ast.expr, known: Names) -> Iterator[str]:
    """The strings that an expression may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Name) and isinstance(known.get(node.id), str):
        yield known[node.id]
    elif isinstance(node, ast.IfExp):
        yield from _strings(node.body, known)
        yield from _strings(node.orelse, known)
    elif isinstance(node, ast.JoinedStr):
        parts = [list(_strings(_inner(part), known)) for part in node.values]
        if all(len(part) == 1 for part in parts):
            yield "".join(part[0] for part in parts)


def _inner(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.FormattedValue) else node
