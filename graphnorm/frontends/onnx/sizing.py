"""How constants that vary with the input sizes are computed: the steps, and whether they are polynomial.

Polynomial steps add, multiply and move sizes, so that their result is one polynomial in the sizes; two of
these that agree at several sizes agree at all.  Others (division, comparison, a slice of a table up to a
size) may agree at all sizes that are tried and differ at the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphnorm.frontends.onnx.flat import FlatGraph, Glue
from graphnorm.frontends.onnx.sizes import Sized
from graphnorm.frontends.onnx.steps import Step

_EVEN = frozenset(
    {
        "Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Identity", "Mul", "Neg",
        "ReduceProd", "ReduceSum", "Reshape", "Shape", "Size", "Squeeze", "Sub", "Sum", "Tile", "Transpose",
        "Unsqueeze",
    }
)  # fmt: skip
# These pick entries: evenly if which ones is settled, of an array whose length is.
_PICKS = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "Split"})
_READS = frozenset({"Shape", "Size"})
_SHAPED = frozenset({"Reshape", "Expand"})  # normal forms read the target shape from the result


def sizing_steps(
    flat: FlatGraph, sized: Sized, kept: Sequence[Step | Glue], read: Iterable[str]
) -> list[Step | Glue]:
    """The steps that compute what varies with the sizes among the constants that are `read`."""
    stay = set(map(id, kept))
    wanted = {name for name in read if sized.changes(name)}
    found: list[Step | Glue] = []
    for step in reversed(flat.steps):
        if id(step) not in stay and not wanted.isdisjoint(step.results):
            found.append(step)
            wanted.update(step.operands)
    return found[::-1]


def first_uneven(
    flat: FlatGraph, sized: Sized, kept: Sequence[Step | Glue], sizing: Sequence[Step | Glue]
) -> str:
    """Operator and label of the first step that computes sizes unevenly; empty if none does."""
    suspects = {id(step) for step in sizing}
    wanted: set[str] = set()
    for step in reversed(kept):
        if not wanted.isdisjoint(step.results):  # a node that leads to a target shape
            suspects.add(id(step))
            if isinstance(step, Glue) or step.node.op_type not in _READS:
                wanted.update(step.operands)
        if isinstance(step, Step) and step.node.op_type in _SHAPED:
            wanted.update(step.operands[1:2])
    for step in flat.steps:
        if id(step) in suspects and not _is_even(flat, sized, step):
            return step.op if isinstance(step, Glue) else f"{step.node.op_type} {step.label}"
    return ""


def _is_even(flat: FlatGraph, sized: Sized, step: Step | Glue) -> bool:
    if all(flat.is_fixed(name) for name in step.results if name):
        return True
    if isinstance(step, Glue) or not step.is_standard:
        return False
    op, operands = step.node.op_type, [name for name in step.operands if name]
    if op == "Range":
        return flat.is_fixed(operands[2]) and sized.first.known[operands[2]].item() == 1
    if op in _PICKS:
        shape = sized.first.shape(operands[0])
        settled = shape is not None and not sized.varying_axes(operands[0], shape)
        return settled and all(flat.is_fixed(name) for name in operands[1:])
    return op in _EVEN
