"""Types of the values in bodies of control flow, and of what the bodies yield.

A branch is evaluated where it stands.  The body of a loop is evaluated as in its first iteration, with
nothing known about the values that change; a size that another iteration would change is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx
from onnx import TensorProto, helper

from graphnorm.frontends.onnx.bodies import Body, Branches, Repetition
from graphnorm.frontends.onnx.evaluation import Evaluation
from graphnorm.frontends.onnx.steps import Step

Walk = Callable[[Iterable[Step], Evaluation], object]


def enter(body: Body, state: Evaluation, walk: Walk) -> None:
    """Evaluate a body whose inputs have their types."""
    state.add_tensors(body.tensors)
    walk(body.steps, state)


def infer_branches(step: Branches, state: Evaluation, walk: Walk) -> None:
    """The branch that is executed, or both where the condition is not known and they agree."""
    condition = state.known.get("".join(step.operands[:1]))
    taken: tuple[Body, ...] = step.branches
    if condition is not None and condition.size == 1:
        taken = (step.branches[0 if condition.item() else 1],)
    for branch in taken:
        enter(branch, state, walk)
    for index, name in enumerate(step.results):
        first, *others = [state.types.get(branch.outputs[index], onnx.TypeProto()) for branch in taken]
        if name and first.WhichOneof("value") and all(other == first for other in others):
            state.types[name] = first


def infer_repetition(step: Repetition, state: Evaluation, walk: Walk) -> None:
    """The body under types of its inputs that hold in every iteration."""
    wiring, body = step.wiring, step.repeated
    types = {name: _control_type(step, name) for name in wiring.counters}
    types |= {inside: _element(state, outer, axis) for outer, inside, axis in wiring.sequences}
    types |= {inside: state.types.get(initial, onnx.TypeProto()) for initial, inside, _, _ in wiring.states}
    while True:
        trial = state.copy()
        trial.types |= types
        enter(body, trial, walk)
        wider = {
            inside: _common(types[inside], trial.types.get(following, onnx.TypeProto()))
            for _, inside, following, _ in wiring.states
        }
        if all(types[inside] == found for inside, found in wider.items()):
            break
        types |= wider
    count = trip_count(step, trial)
    state.adopt(trial)
    for _, inside, _, result in wiring.states:
        if result and types[inside].WhichOneof("value"):
            state.types[result] = types[inside]
    for element, result, axis in wiring.stacks:
        if result:
            state.types[result] = _stacked(state.types.get(element, onnx.TypeProto()), axis, count)


def _control_type(step: Repetition, name: str) -> onnx.TypeProto:
    """Iteration number and condition are scalars."""
    is_number = name == step.wiring.counters[0]
    return helper.make_tensor_type_proto(TensorProto.INT64 if is_number else TensorProto.BOOL, [])


def _common(first: onnx.TypeProto, second: onnx.TypeProto) -> onnx.TypeProto:
    """What holds of both types; a size that differs is left open."""
    if first == second:
        return first
    found = onnx.TypeProto()
    one, two = first.tensor_type, second.tensor_type
    if not first.HasField("tensor_type") or one.elem_type != two.elem_type:
        return found
    found.tensor_type.elem_type = one.elem_type
    if one.HasField("shape") and two.HasField("shape") and len(one.shape.dim) == len(two.shape.dim):
        found.tensor_type.shape.SetInParent()
        for dim, other in zip(one.shape.dim, two.shape.dim, strict=True):
            added = found.tensor_type.shape.dim.add()
            if dim.HasField("dim_value") and dim == other:
                added.dim_value = dim.dim_value
    return found


def _element(state: Evaluation, sequence: str, axis: int) -> onnx.TypeProto:
    """The type of one slice of a sequence."""
    found = onnx.TypeProto()
    found.CopyFrom(state.types.get(sequence, found))
    if found.tensor_type.HasField("shape"):
        rank = len(found.tensor_type.shape.dim)
        if not -rank <= axis < rank:
            found.tensor_type.ClearField("shape")
        else:
            del found.tensor_type.shape.dim[axis % rank]
    return found


def _stacked(element: onnx.TypeProto, axis: int, count: int | None) -> onnx.TypeProto:
    """The type of `count` elements (None: not known) along a new axis."""
    found = onnx.TypeProto()
    tensor = element.tensor_type
    found.tensor_type.elem_type = tensor.elem_type
    if tensor.HasField("shape") and -len(tensor.shape.dim) - 1 <= axis <= len(tensor.shape.dim):
        dims = list(tensor.shape.dim)
        new = onnx.TensorShapeProto.Dimension()
        if count is not None:
            new.dim_value = count
        dims.insert(axis % (len(dims) + 1), new)
        found.tensor_type.shape.dim.extend(dims)
    return found


def trip_count(step: Repetition, state: Evaluation) -> int | None:
    """How often the body runs: the number if it is certain, else an example; None if there is none yet."""
    wiring = step.wiring
    if wiring.sequences:
        sequence, _, axis = wiring.sequences[0]
        size = state.shape(sequence)
        return None if size is None or not -len(size) <= axis < len(size) else size[axis]
    limit, condition = (*wiring.control, "", "")[:2]
    if not state.is_constant(limit) or state.known[limit].size != 1 or not _goes_on(step, condition, state):
        symbol = f"{wiring.counters[0]} iterations"
        state.uncounted.add(symbol)
        return state.counts.get(symbol)
    return max(int(state.known[limit].item()), 0)


def runs_forever(step: Repetition, state: Evaluation) -> bool:
    """Whether a loop has no trip count, and a condition that always holds."""
    if step.wiring.sequences or step.node.op_type == "Scan":
        return False
    limit, condition = (*step.wiring.control, "", "")[:2]
    return not limit and _goes_on(step, condition, state)


def _goes_on(step: Repetition, condition: str, state: Evaluation) -> bool:
    """Whether only the trip count ends the loop."""
    if condition and not _is_true(condition, state):
        return False
    makers = {result: inner for inner in step.repeated.steps for result in inner.results}
    name = step.wiring.proceed
    while name in makers and makers[name].node.op_type == "Identity":
        name = makers[name].operands[0]
    return name == step.wiring.counters[1] or _is_true(name, state)


def _is_true(name: str, state: Evaluation) -> bool:
    return state.is_constant(name) and state.known[name].size == 1 and bool(state.known[name].item())
