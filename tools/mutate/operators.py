"""Mutants of one source file: small changes of its text that stay valid Python.

Arithmetic and set operators, comparisons, and/or/not, conditions, signs, numbers, flags, dropped calls and
jumps, swapped arguments.  Error texts, annotations and assertions stay: they decide nothing.  A mutant is
known by function, line and change, not by file or line number, so that it is the same after a move.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

_TINY = 1e-2  # a float below this is a tolerance: it's changed by 100, others by 2
_SWAPS: dict[type[ast.AST], tuple[str, tuple[str, ...]]] = {
    ast.Add: (r"\+", ("-",)),
    ast.Sub: (r"-", ("+",)),
    ast.Mult: (r"\*", ("/",)),
    ast.Div: (r"/", ("*",)),
    ast.FloorDiv: (r"//", ("*",)),
    ast.Mod: (r"%", ("*",)),
    ast.Pow: (r"\*\*", ("*",)),
    ast.BitOr: (r"\|", ("&",)),
    ast.BitAnd: (r"&", ("|",)),
    ast.And: (r"\band\b", ("or",)),
    ast.Or: (r"\bor\b", ("and",)),
    ast.Lt: (r"<", ("<=", ">=")),
    ast.LtE: (r"<=", ("<", ">")),
    ast.Gt: (r">", (">=", "<=")),
    ast.GtE: (r">=", (">", "<")),
    ast.Eq: (r"==", ("!=",)),
    ast.NotEq: (r"!=", ("==",)),
    ast.In: (r"\bin\b", ("not in",)),
    ast.NotIn: (r"\bnot\s+in\b", ("in",)),
    ast.Is: (r"\bis\b", ("is not",)),
    ast.IsNot: (r"\bis\s+not\b", ("is",)),
}
_SILENT = frozenset({"strict", "frozen", "slots", "stacklevel"})  # keywords that no caller notices
_UNORDERED = frozenset({"isinstance", "getattr", "zip", "min", "max"})  # swapping is an error, or nothing


@dataclass(frozen=True, order=True)
class Mutant:
    """One change of a file.

    Attributes:
        function: the outermost function or method it is in; ``<module>`` outside of functions.
        line: text of the (first) changed line, stripped.
        kind: which operator made it.
        becomes: text of the whole statement's changed lines after the change, stripped.
        number: counts mutants that agree in all of this.
        start: first byte that is replaced.
        stop: behind the last one.
        text: what stands there instead.
        lineno: of the change, from 1.
        statement: first line of the statement, from 1.
    """

    function: str
    line: str
    kind: str
    becomes: str
    number: int
    start: int
    stop: int
    text: str
    lineno: int
    statement: int

    @property
    def key(self) -> str:
        """What stays when files move or lines are inserted."""
        return "|".join((self.function, self.line, self.kind, self.becomes, str(self.number)))

    def apply(self, source: str) -> str:
        """The mutated file."""
        data = source.encode()
        return (data[: self.start] + self.text.encode() + data[self.stop :]).decode()


def mutants(source: str) -> list[Mutant]:
    """All mutants of a file, in the order of the text."""
    visitor = _Visitor(source)
    visitor.visit(ast.parse(source))
    seen: Counter[str] = Counter()
    found: list[Mutant] = []
    for one in sorted(visitor.found, key=lambda m: (m.start, m.stop, m.text)):
        found.append(replace(one, number=seen[one.key]))
        seen[one.key] += 1
    return found


class _Visitor(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        self._data = source.encode()
        self._lines = [0, *(m.end() for m in re.finditer(rb"\n", self._data))]
        self._scope: list[str] = []
        self._function = ""
        self._statement = 1
        self.found: list[Mutant] = []

    # Places.

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        first, last = self._lines[node.lineno - 1], self._lines[node.end_lineno - 1]
        return first + node.col_offset, last + node.end_col_offset

    def _text(self, node: ast.expr) -> str:
        start, stop = self._span(node)
        return self._data[start:stop].decode()

    def _add(self, kind: str, start: int, stop: int, text: str) -> None:
        lineno = self._data.count(b"\n", 0, start) + 1
        low = self._lines[lineno - 1]
        high = self._data.find(b"\n", stop)
        high = len(self._data) if high < 0 else high
        new = (self._data[low:start] + text.encode() + self._data[stop:high]).decode()
        line = self._data[low : self._lines[lineno] if lineno < len(self._lines) else None].decode()
        self.found.append(
            Mutant(
                self._function or "<module>", line.strip(), kind, new.strip(), 0,
                start, stop, text, lineno, self._statement,
            )
        )  # fmt: skip

    def _between(self, kind: str, left: ast.expr, right: ast.expr, operator: ast.AST) -> None:
        """Replace the operator between two operands."""
        if type(operator) not in _SWAPS:
            return
        pattern, others = _SWAPS[type(operator)]
        start, stop = self._span(left)[1], self._span(right)[0]
        gap = re.sub(r"#[^\n]*", lambda m: " " * len(m[0].encode()), self._data[start:stop].decode())
        place = re.search(pattern, gap)
        assert place is not None, gap
        for other in others:
            self._add(kind, start + place.start(), start + place.end(), other)

    # Statements.

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            before, self._statement = self._statement, node.lineno
            super().visit(node)
            self._statement = before
        else:
            super().visit(node)

    def _scoped(self, node: ast.ClassDef | ast.FunctionDef) -> None:
        outer = self._function
        self._scope.append(node.name)
        if isinstance(node, ast.FunctionDef):
            self._function = self._function or ".".join(self._scope)
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if default is not None:
                    self.visit(default)
        else:
            for decorator in node.decorator_list:
                self.visit(decorator)
        for statement in node.body:
            self.visit(statement)
        self._scope.pop()
        self._function = outer

    visit_ClassDef = _scoped  # noqa: N815
    visit_FunctionDef = _scoped  # noqa: N815

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        """Error texts are tested with match=, by words."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """Assertions say what is known."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Texts."""

    def visit_Import(self, node: ast.Import) -> None:
        """Nothing to change."""

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self._add("drop", *self._span(node), "pass")
        self.generic_visit(node)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add("drop", *self._span(node), "pass")

    def visit_Break(self, node: ast.Break) -> None:
        self._add("drop", *self._span(node), "pass")

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if not isinstance(node.op, ast.BitOr) or self._function:
            self._between("augmented", node.target, node.value, node.op)
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        self._condition(node.test)
        self.generic_visit(node)

    # Expressions.

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._condition(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._condition(test)
        self.generic_visit(node)

    def _condition(self, test: ast.expr) -> None:
        """Conditions that no other operator negates."""
        if isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
            self._add("condition", *self._span(test), f"(not {self._text(test)})")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        sides = (node.left, node.right)
        texts = any(isinstance(n, ast.JoinedStr) or _is_text(n) for n in sides)
        types = isinstance(node.op, ast.BitOr) and not self._function
        if not texts and not types:
            self._between("arithmetic", *sides, node.op)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between("logic", left, right, node.op)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        for left, right, operator in zip(sides, sides[1:], node.ops, strict=False):
            self._between("comparison", left, right, operator)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        kinds = {ast.Not: "logic", ast.USub: "sign", ast.Invert: "logic"}
        if type(node.op) in kinds:
            start, stop = self._span(node)
            self._add(kinds[type(node.op)], start, stop, f"({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        for other in _others(node.value):
            self._add("number", *self._span(node), other)

    def visit_Call(self, node: ast.Call) -> None:
        name = self._text(node.func)
        plain = not any(isinstance(one, ast.Starred) for one in node.args[:2])
        if len(node.args) >= 2 and plain and name not in _UNORDERED:
            first, second = node.args[:2]
            (start, middle), (again, stop) = self._span(first), self._span(second)
            comma = self._data[middle:again].decode()
            if self._text(first) != self._text(second):
                self._add("arguments", start, stop, f"{self._text(second)}{comma}{self._text(first)}")
        self.visit(node.func)
        for one in node.args[: 1 if name == "isinstance" else None]:
            self.visit(one)
        for keyword in node.keywords:
            if keyword.arg not in _SILENT:
                self.visit(keyword.value)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _others(value: object) -> Iterator[str]:
    """Numbers and flags that stand for what is not this one."""
    if isinstance(value, bool):
        yield str(not value)
    elif isinstance(value, int):
        yield str(value + 1)
        if value > 0:
            yield str(value - 1)
    elif isinstance(value, float):
        step = 100.0 if 0 < value < _TINY else 2.0
        yield from (_short(value * step), _short(value / step)) if value else ("1.0",)


def _short(value: float) -> str:
    return repr(float(f"{value:.12g}"))
