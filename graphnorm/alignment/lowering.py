"""A network's normal form: each operator written in as few others as possible, every attribute explicit.

Real arithmetic only: what a lowering writes is the same function of reals.  An operator without a lowering
stays as it is, with its attributes in one spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from graphnorm import ir
from graphnorm.alignment import leaves
from graphnorm.alignment.builder import Builder, Normal
from graphnorm.alignment.terms import Data, Known, Term
from graphnorm.alignment.views import whole
from graphnorm.ops.rules import Rules
from graphnorm.ops.traits import NONE
from graphnorm.util.defects import DEFECTS, defect

Lower = Callable[[Builder, ir.Node, Sequence[Term | None], Sequence[ir.Value]], Sequence[Term] | None]
LOWERINGS: Rules[Lower] = Rules("normal forms")
"""Operator -> its results from its operands; None where it does not cover the case."""
lowers = LOWERINGS.rule
LOWERINGS.explain({NONE: "kept as it is, with attributes in one spelling"})

# Attributes that do not change the function of reals.
_IRRELEVANT = frozenset({"stash_type"})


def lower(network: ir.Graph, numbers: bool = False) -> Normal:
    """The normal form of a network, before affine layers are folded; `numbers`: see `normalise`."""
    builder = Builder(network.name, _double(network), numbers)
    terms: dict[str, Term] = {name: builder.input(network.values[name]) for name in network.inputs}
    terms |= {name: leaves.leaf_of(array, name) for name, array in network.weights.items()}
    for name, array in network.constants.items():
        terms[name] = Known(array, network.values[name].dynamic, name)
    for node in network.nodes:
        if all(name in network.constants for name in node.outputs if name):
            continue
        builder.current = node
        operands = [terms[name] if name else None for name in node.inputs]
        results = [network.values[name] if name else None for name in node.outputs]
        for name, term in zip(node.outputs, _results(builder, node, operands, results), strict=True):
            if name and term is not None:
                terms[name] = term = builder.of_known_sizes(term, network.values[name])
                if isinstance(term, Data) and not term.view.moves and term.factor == 1.0:
                    builder.origin.setdefault(term.base, name)
    return builder.finished([builder.operand(terms[name]) for name in network.outputs])


def _double(network: ir.Graph) -> bool:
    """Whether anything but a constant is in float64."""
    found = (value for name, value in network.values.items() if name not in network.constants)
    return any(value.dtype == "float64" for value in found)


def _results(
    b: Builder, node: ir.Node, operands: Sequence[Term | None], results: Sequence[ir.Value | None]
) -> Sequence[Term | None]:
    lowering = LOWERINGS.get(node.op)
    known = [value for value in results if value is not None]
    if lowering is not None and all(value.shape is not None for value in known):
        try:
            found = lowering(b, node, operands, known)
        except DEFECTS as error:  # an unforeseen case
            b.defects[defect("normal form", node.op, node.label, error, "kept as it is")] = None
            found = None
        if found is not None and all(map(_fits, repeat(b), found, known)):
            given = iter(found)
            return [None if value is None else next(given) for value in results]
    return kept(b, node, operands, results)


def kept(
    b: Builder, node: ir.Node, operands: Sequence[Term | None], results: Sequence[ir.Value | None]
) -> list[Term | None]:
    """The operator itself."""
    names = [b.operand(term) for term in operands]
    while names and not names[-1]:
        names.pop()
    types = [None if v is None else ir.Value("", v.shape, v.dtype, v.dynamic) for v in results]
    outputs = b.raw(node.op, names, types, plain_attributes(b, node))
    return [
        None if v is None else Data(name, whole(v.shape or ()), v.dtype, v.dynamic)
        for name, v in zip(outputs, results, strict=True)
    ]


def plain_attributes(b: Builder, node: ir.Node) -> dict[str, Any]:
    """Attributes in one spelling."""
    return {name: _plain(b, value) for name, value in node.attributes.items() if name not in _IRRELEVANT}


def _plain(b: Builder, value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | tuple):
        return tuple(_plain(b, item) for item in value)
    if isinstance(value, np.ndarray):
        return tuple(value.ravel().tolist()) if value.ndim else value.item()
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, float | np.floating):
        return b.rounded(float(value))
    return int(value) if isinstance(value, np.integer) else value


def _fits(b: Builder, term: Term, value: ir.Value) -> bool:
    """Whether a lowering's result has the front end's shape and type; else the operator is kept."""
    types = not isinstance(term, Data) or term.dtype == value.dtype
    return types and term.shape == value.shape
