"""Einsum of any form: any number of operands, repeated letters, ellipsis, implicit result."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from graphnorm.ir import Node
from graphnorm.ops.rules import Rules
from graphnorm.scales.demands import Role
from graphnorm.scales.labels import Labels
from graphnorm.scales.registry import Registry, Rule
from graphnorm.scales.rules.contraction import contract, sum_of_products

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphnorm.scales.context import Context

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[str], str] | None:
    """Letters of each operand and of the result, ellipses written out; None if there are too few letters."""
    text = equation.replace(" ", "")
    left, arrow, out = text.partition("->")
    terms = left.split(",")
    if not arrow:  # letters that occur once, in alphabetic order
        counts = Counter(letter for letter in left if letter not in ".,")
        out = ("..." if "..." in left else "") + "".join(sorted(x for x, n in counts.items() if n == 1))
    spare = [letter for letter in _LETTERS if letter not in text]
    hidden = [rank - len(term) + 3 if "..." in term else 0 for term, rank in zip(terms, ranks, strict=True)]
    if max(hidden) > len(spare):
        return None
    dots = "".join(spare[: max(hidden)])  # broadcast axes are aligned at the end
    parts = [t.replace("...", dots[len(dots) - n :]) for t, n in zip(terms, hidden, strict=True)]
    return parts, out.replace("...", dots)


def einsum(ctx: Context, node: Node) -> None:
    """Two operands contract as a matrix product does; a weight among more of them gets labels of its own."""
    parsed = parse(node.text("equation"), [ctx.rank(name) for name in node.inputs])
    if parsed is None:
        ctx.pin_node(node, "Einsum with too many axes")
        return
    terms, out = parsed
    repeated = any(len(set(term)) < len(term) for term in terms)
    if len(terms) == 2 and not repeated and not _broadcasts(ctx, node, terms):
        labels = contract(ctx, node.inputs[0], terms[0], node.inputs[1], terms[1], out)
    else:
        own = [ctx.entries(x, Role.WEIGHT) if ctx.is_weight(x) else ctx.labels(x) for x in node.inputs]
        factors = [_diagonal(labels, term) for labels, term in zip(own, terms, strict=True)]
        labels = sum_of_products(ctx, factors, out)
    ctx.set(node.outputs[0], labels)


def _broadcasts(ctx: Context, node: Node, terms: Sequence[str]) -> bool:
    """Whether a letter means axes of different sizes (1 and n)."""
    sizes: dict[str, int] = {}
    for name, term in zip(node.inputs, terms, strict=True):
        for letter, size in zip(term, ctx.shape(name), strict=True):
            if sizes.setdefault(letter, size) != size:
                return True
    return False


def _diagonal(labels: Labels, term: str) -> tuple[Labels, str]:
    """Keep the entries at which axes of the same letter have the same index."""
    for letter in dict.fromkeys(term):
        axes = [i for i, other in enumerate(term) if other == letter]
        while len(axes) > 1:
            first, second = axes[0], axes.pop()
            size = max(labels.shape[first], labels.shape[second])
            full = [size if i in (first, second) else n for i, n in enumerate(labels.shape)]
            diagonal = np.diagonal(np.broadcast_to(labels, full), axis1=first, axis2=second)
            labels = np.moveaxis(diagonal, -1, first)
            term = term[:second] + term[second + 1 :]
    return labels, term


RULES: Registry = Rules("scales")
RULES.add(Rule("as its equation", einsum, "summed over"), "Einsum")
