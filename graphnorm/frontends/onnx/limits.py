"""What a model would need, counted beforehand: nodes behind function calls, entries, iterations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import onnx_ir

from graphnorm.errors import ModelFileError
from graphnorm.frontends.onnx.bodies import Body, Branches, Repetition
from graphnorm.frontends.onnx.evaluation import Evaluation
from graphnorm.frontends.onnx.names import subgraphs_of, with_bodies
from graphnorm.frontends.onnx.regions import runs_forever, trip_count
from graphnorm.frontends.onnx.steps import Step
from graphnorm.util.limits import WAY_OUT, current

# Entries of a computed tensor for each entry of the weights, and of inputs whose shape the caller gives.
_PER_WEIGHT, _PER_INPUT = 8, 256
_INLINED_PER_NODE = 10  # nodes behind calls for each node of the file


def check_functions(model: onnx_ir.Model, source: str) -> None:
    """Count the nodes that functions would become, before they take the place of their calls.

    Raises:
        ModelFileError: a function calls itself, or there are too many.
    """
    sizes: dict[onnx_ir.Function, int] = {}
    open_calls: list[onnx_ir.Function] = []

    def size(graph: onnx_ir.Graph) -> int:
        return sum(calls(node) for part in with_bodies(graph) for node in part)

    def calls(node: onnx_ir.Node) -> int:
        function = model.functions.get(node.op_identifier())
        if function is None:
            return 1
        if function in open_calls:
            chain = " -> ".join(repr(each.name) for each in (*open_calls, function))
            raise ModelFileError(f"{source}: a function calls itself: {chain}")
        if function not in sizes:
            open_calls.append(function)
            sizes[function] = size(function.graph)
            open_calls.pop()
        return sizes[function]

    try:
        total = size(model.graph)
    except RecursionError as error:
        raise ModelFileError(f"{source}: its functions are nested too deeply") from error
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    written = sum(1 for graph in graphs for part in with_bodies(graph) for _ in part)
    if total > max(current().nodes, _INLINED_PER_NODE * written):
        raise ModelFileError(
            f"{source}: the {written} nodes of the file are {total:.3g} once functions are put in place of "
            f"their calls; {WAY_OUT}"
        )


def check_entries(
    steps: Iterable[Step], state: Evaluation, given: Mapping[str, Sequence[int]], source: str
) -> None:
    """Refuse tensors that would be too large to allocate.

    Args:
        steps: of the main graph; bodies are looked through.
        state: what is known at the chosen sizes.
        given: shapes of inputs that the caller chose.
        source: how errors name the file.

    Raises:
        ModelFileError: names the first node whose result, or the input that, is too large.
    """
    weights = sum(array.size for array in state.known.values())
    asked = max((math.prod(shape) for shape in given.values()), default=0)
    most = max(current().entries, _PER_WEIGHT * weights, _PER_INPUT * asked)
    makers = {name: step for step in _with_bodies(steps) for name in step.results if name}
    for name in state.types:
        shape = state.shape(name)
        if shape is None or math.prod(shape) <= most:
            continue
        step = makers.get(name)
        what = f"node {step.label!r} ({step.node.op_type})" if step else f"{name!r}"
        raise ModelFileError(
            f"{source}: {what} has {math.prod(shape):.3g} entries {shape}, at most {most:.3g} are taken; "
            f"{WAY_OUT}"
        )


def check_loops(steps: Iterable[Step], state: Evaluation) -> None:
    """Refuse loops of too many iterations.

    Raises:
        ModelFileError: names the loop.
    """
    for step in _with_bodies(steps):
        if not isinstance(step, Repetition):
            continue
        count = math.inf if runs_forever(step, state) else (trip_count(step, state) or 0)
        inside = sum(1 for body in subgraphs_of(step.node) for part in with_bodies(body) for _ in part)
        if count * max(1, inside) > current().steps:
            often = "without end" if math.isinf(count) else f"{count:.3g} times"
            raise step.invalid(f"its body of {inside} nodes runs {often}; {WAY_OUT}")


def _with_bodies(steps: Iterable[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        bodies: tuple[Body, ...] = ()
        if isinstance(step, Branches):
            bodies = step.branches
        elif isinstance(step, Repetition):
            bodies = (step.repeated,)
        for body in bodies:
            yield from _with_bodies(body.steps)
