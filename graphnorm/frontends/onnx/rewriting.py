"""Nodes rewritten to simpler ones: sequences to their elements where those are known, casts to a type.

    SplitToSequence                                           Split, and Squeeze
    SequenceConstruct, -Empty, -Insert, -Erase, Identity      a list of elements, no operator
    SequenceAt                                                Identity of an element
    ConcatFromSequence                                        Concat, and Unsqueeze
    SequenceLength                                            a number
    CastLike                                                  Cast: of the other operand only the type counts

Elements are known where positions and sizes of pieces are; a sequence that a loop carries has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir
from onnx import TensorProto

from graphnorm.frontends.onnx.evaluation import Evaluation, Rewriting
from graphnorm.frontends.onnx.steps import Step
from graphnorm.frontends.onnx.tensors import tensor_type
from graphnorm.ops.rules import Rules
from graphnorm.ops.traits import NONE, Trait

_MOST_ELEMENTS = 1_024  # each becomes a node
# Types that opset 11 casts to; to bfloat16 and smaller ones `CastLike` stays.
_PLAIN_TYPES = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BOOL}
    | {TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8}
)


def rewrite(step: Step, state: Evaluation) -> Rewriting | None:
    """The rewriting of a node at one choice of sizes, None for other nodes and what is not known."""
    rule = RULES.get(step.node.op_type) if step.is_standard else None
    found = rule(step, state) if rule is not None else None
    if found is not None:
        state.rewritings[step.results[0]] = found
    return found


def numbers(step: Step) -> tuple[str, ...]:
    """The operands of a node that say positions in a sequence or sizes of pieces."""
    first = {"SplitToSequence": 1, "SequenceAt": 1, "SequenceErase": 1, "SequenceInsert": 2}
    found = step.operands[first.get(step.node.op_type, len(step.operands)) :]
    return tuple(name for name in found if name)


def _elements(step: Step, state: Evaluation) -> tuple[str, ...] | None:
    """The elements of the sequence that is operand 0."""
    found = state.rewritings.get(step.operands[0])
    return None if found is None else found.elements


def _position(step: Step, state: Evaluation, index: int, default: int, count: int) -> int | None:
    """The position given by operand `index`, in 0..count-1; None if it isn't known or not in there."""
    name = step.operands[index] if len(step.operands) > index else ""
    position = default
    if name:
        if not state.is_constant(name) or state.known[name].size != 1:
            return None
        position = int(state.known[name].item())
    position += count if position < 0 else 0
    return position if 0 <= position < count else None


def _new(
    origin: Step, op: str, operands: Sequence[str], results: Sequence[str], **attributes: int | list[int]
) -> Step:
    """A node of opset 11, where sizes and axes are attributes, in the place of `origin`."""
    node = onnx_ir.node(
        op,
        [onnx_ir.Value(name=name) for name in operands],
        attributes,
        outputs=[onnx_ir.Value(name=name) for name in results],
        name=origin.node.name,
        metadata_props=dict(origin.node.metadata_props),
    )
    return Step(node, replace(origin.setting, opsets={"": 11}), {})


def _split(step: Step, state: Evaluation) -> Rewriting | None:
    axis = step.node.attributes.get_int("axis", 0)
    sizes = _sizes_of_pieces(step, state, axis)
    if not sizes or len(sizes) > _MOST_ELEMENTS:
        return None
    names = step.setting.names
    squeezes = not any(step.operands[1:]) and step.node.attributes.get_int("keepdims", 1) == 0
    elements = tuple(names.unused(f"{step.results[0]}.{index}") for index in range(len(sizes)))
    pieces = tuple(names.unused(f"{name}.kept") for name in elements) if squeezes else elements
    steps = [_new(step, "Split", step.operands[:1], pieces, axis=axis, split=sizes)]
    if squeezes:
        steps += [
            _new(step, "Squeeze", [piece], [element], axes=[axis])
            for piece, element in zip(pieces, elements, strict=True)
        ]
    return Rewriting(tuple(steps), elements)


def _sizes_of_pieces(step: Step, state: Evaluation, axis: int) -> list[int] | None:
    """Sizes of the pieces along the axis: all 1, all equal but for the last one, or as listed."""
    shape = state.shape(step.operands[0])
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    size, split = shape[axis], "".join(step.operands[1:])
    if not split:
        return [1] * size
    if not state.is_constant(split):
        return None
    given = state.known[split]
    if given.ndim == 1:
        listed = [int(piece) for piece in given]
        return listed if sum(listed) == size and min(listed, default=0) >= 0 else None
    piece = int(given.item())
    return [min(piece, size - start) for start in range(0, size, piece)] if piece > 0 else None


def _construct(step: Step, state: Evaluation) -> Rewriting | None:
    return Rewriting(elements=step.operands)


def _identity(step: Step, state: Evaluation) -> Rewriting | None:
    elements = _elements(step, state)
    return None if elements is None else Rewriting(elements=elements)


def _insert(step: Step, state: Evaluation) -> Rewriting | None:
    elements = _elements(step, state)
    if elements is None:
        return None
    count = len(elements)
    is_last = len(step.operands) < 3 or _is_end(step.operands[2], state, count)
    position = count if is_last else _position(step, state, 2, count, count)
    if position is None:
        return None
    return Rewriting(elements=(*elements[:position], step.operands[1], *elements[position:]))


def _is_end(name: str, state: Evaluation, count: int) -> bool:
    known = state.known.get(name)
    return not name or (state.is_constant(name) and known is not None and known.tolist() in (count, [count]))


def _erase(step: Step, state: Evaluation) -> Rewriting | None:
    elements = _elements(step, state)
    position = None if elements is None else _position(step, state, 1, -1, len(elements))
    if elements is None or position is None:
        return None
    return Rewriting(elements=elements[:position] + elements[position + 1 :])


def _at(step: Step, state: Evaluation) -> Rewriting | None:
    elements = _elements(step, state)
    position = None if elements is None else _position(step, state, 1, 0, len(elements))
    if elements is None or position is None:
        return None
    return Rewriting((_new(step, "Identity", [elements[position]], step.results),))


def _concat(step: Step, state: Evaluation) -> Rewriting | None:
    elements = _elements(step, state)
    if not elements:
        return None
    axis, names, result = step.node.attributes.get_int("axis", 0), step.setting.names, step.results[0]
    steps: list[Step] = []
    if step.node.attributes.get_int("new_axis", 0):
        parts = tuple(names.unused(f"{result}.{index}") for index in range(len(elements)))
        steps = [
            _new(step, "Unsqueeze", [element], [part], axes=[axis])
            for element, part in zip(elements, parts, strict=True)
        ]
        elements = parts
    return Rewriting((*steps, _new(step, "Concat", elements, [result], axis=axis)))


def _length(step: Step, state: Evaluation) -> Rewriting | None:
    elements = _elements(step, state)
    if elements is None:
        return None
    count = np.array(len(elements), np.int64)
    state.known[step.results[0]] = count
    state.types[step.results[0]] = tensor_type(count)
    return Rewriting()


def _cast_like(step: Step, state: Evaluation) -> Rewriting | None:
    like = state.types.get(step.operands[1])
    kind = 0 if like is None else like.tensor_type.elem_type
    if kind not in _PLAIN_TYPES:
        return None
    return Rewriting((_new(step, "Cast", step.operands[:1], step.results, to=kind),))


RULES: Rules[Callable[[Step, Evaluation], Rewriting | None]] = Rules("rewriting of sequences")
RULES.add(_split, "SplitToSequence")
RULES.add(_construct, "SequenceConstruct")
RULES.add(_construct, "SequenceEmpty")
RULES.add(_insert, "SequenceInsert")
RULES.add(_erase, "SequenceErase")
RULES.add(_identity, "Identity")
RULES.add(_at, "SequenceAt")
RULES.add(_concat, "ConcatFromSequence")
RULES.add(_length, "SequenceLength")
RULES.add(_cast_like, "CastLike")
RULES.explain({
    NONE: "has no sequence that could be written out",
    Trait.SEQUENCE: "optional values depend on what is there at run time",
    Trait.REGIONS: "bodies are joined to the graph (bodies)",
})  # fmt: skip
