"""Bodies of control flow: the graphs inside `If`, `Loop` and `Scan`, prepared like the main graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx_ir

from graphnorm.frontends.onnx.live import live
from graphnorm.frontends.onnx.names import definitions, is_constant, subgraphs_of
from graphnorm.frontends.onnx.steps import Setting, Step
from graphnorm.frontends.onnx.tensors import Tensors, collect_tensors


@dataclass(frozen=True)
class Body:
    """A graph inside a node."""

    graph: onnx_ir.Graph
    steps: tuple[Step, ...]
    setting: Setting

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        return tuple(map(self.setting.names, self.graph.inputs))

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        return tuple(map(self.setting.names, self.graph.outputs))

    @cached_property
    def tensors(self) -> Tensors:
        """Its weights and constants; an initializer of an input is a default that no call uses."""
        found = collect_tensors(self.graph, self.setting.names, self.setting.own_names, self.setting.source)
        for name in self.inputs:
            for table in (found.weights, found.constants, found.types):
                table.pop(name, None)
        return found


class Region(Step):
    """A node whose bodies join the flat graph."""

    def body(self, attribute: str, inputs: int, outputs: int) -> Body:
        """The graph under `attribute`.

        Raises:
            ModelFileError: it has other inputs or outputs than the node needs.
        """
        found = self.node.attributes.get(attribute)
        if found is None or found.is_ref() or found.type != onnx_ir.AttributeType.GRAPH:
            raise self.invalid(f"it needs the graph {attribute!r}")
        graph = found.as_graph()
        sizes = len(graph.inputs), len(graph.outputs)
        if sizes != (inputs, outputs):
            raise self.invalid(
                f"its {attribute} takes {sizes[0]} and yields {sizes[1]} values, "
                f"the node needs {inputs} and {outputs}"
            )
        own = set(definitions(graph))
        for value in graph.outputs:
            if value not in own:
                raise self.invalid(f"its {attribute} yields {value.name!r}, which it does not define")
        steps = prepare(graph, self.setting, self.visible)
        return Body(graph, live(steps, map(self.setting.names, self.wanted(graph.outputs))), self.setting)

    def wanted(self, outputs: Sequence[onnx_ir.Value]) -> Sequence[onnx_ir.Value]:
        """The results of a body that are used."""
        return outputs


class Branches(Region):
    """`If`."""

    @cached_property
    def branches(self) -> tuple[Body, Body]:
        """Then and else."""
        count = len(self.results)
        return self.body("then_branch", 0, count), self.body("else_branch", 0, count)

    def wanted(self, outputs: Sequence[onnx_ir.Value]) -> Sequence[onnx_ir.Value]:
        return [value for value, result in zip(outputs, self.results, strict=True) if result]


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a repeated body's inputs and outputs are connected to.

    Attributes:
        control: outer values that decide how often the body runs.
        counters: the body's inputs for the iteration number and the condition.
        proceed: the body's output that is the condition to continue, "" if there is none.
        states: (initial value, body's input, body's output, final value).
        sequences: (sequence, body's input, axis along which it is read).
        stacks: (body's output, stacked result, new axis).
    """

    control: tuple[str, ...]
    counters: tuple[str, ...]
    proceed: str
    states: tuple[tuple[str, str, str, str], ...]
    sequences: tuple[tuple[str, str, int], ...]
    stacks: tuple[tuple[str, str, int], ...]


class Repetition(Region):
    """`Loop` and `Scan`."""

    @cached_property
    def wiring(self) -> Wiring:
        return self._loop if self.node.op_type == "Loop" else self._scan

    @cached_property
    def repeated(self) -> Body:
        """The body."""
        carried = max(len(self.operands) - 2, 0) if self.node.op_type == "Loop" else len(self.operands)
        extra = (2, 1) if self.node.op_type == "Loop" else (0, 0)
        return self.body("body", carried + extra[0], len(self.results) + extra[1])

    @property
    def _loop(self) -> Wiring:
        body, initial = self.repeated, self.operands[2:]
        count = len(initial)
        if count > len(self.results):
            raise self.invalid(f"it carries {count} values and yields {len(self.results)}")
        followings, elements = body.outputs[1 : 1 + count], body.outputs[1 + count :]
        return Wiring(
            control=self.operands[:2],
            counters=body.inputs[:2],
            proceed=body.outputs[0],
            states=tuple(zip(initial, body.inputs[2:], followings, self.results[:count], strict=True)),
            sequences=(),
            stacks=tuple((*pair, 0) for pair in zip(elements, self.results[count:], strict=True)),
        )

    @property
    def _scan(self) -> Wiring:
        body = self.repeated
        read = self.node.attributes.get_int("num_scan_inputs", 0)
        count = len(self.operands) - read
        if not 0 <= count <= len(self.results) or read < 1:
            raise self.invalid(f"it reads {read} sequences, takes {len(self.operands)} values")
        from_axes = self._axes("scan_input_axes", read)
        to_axes = self._axes("scan_output_axes", len(self.results) - count)
        carried = (self.operands, body.inputs, body.outputs, self.results)
        states = zip(*(values[:count] for values in carried), strict=True)
        return Wiring(
            control=(),
            counters=(),
            proceed="",
            states=tuple(states),
            sequences=tuple(zip(self.operands[count:], body.inputs[count:], from_axes, strict=True)),
            stacks=tuple(zip(body.outputs[count:], self.results[count:], to_axes, strict=True)),
        )

    def _axes(self, attribute: str, count: int) -> tuple[int, ...]:
        axes = tuple(self.node.attributes.get_ints(attribute, (0,) * count))
        if len(axes) != count:
            raise self.invalid(f"{attribute} has {len(axes)} entries, it needs {count}")
        return axes


def prepare(graph: onnx_ir.Graph, setting: Setting, outer: Mapping[str, str]) -> tuple[Step, ...]:
    """The nodes of a sorted graph, without the `Constant` ones."""
    nodes = list(graph)
    constants = [node.outputs[0] for node in nodes if is_constant(node)]
    visible = dict(outer)

    def see(values: Iterable[onnx_ir.Value]) -> None:
        visible.update((value.name, setting.names(value)) for value in values if value.name)

    see([*graph.inputs, *graph.initializers.values(), *constants])
    steps: list[Step] = []
    for node in nodes:
        if is_constant(node):
            continue
        step = _kind(node, setting)(node, setting, dict(visible) if subgraphs_of(node) else {})
        words = (node.op_type, node.domain, *step.operands, *step.results)
        if not all(isinstance(word, str) for word in words):  # protobuf hands out bad UTF-8 as bytes
            raise step.invalid("a name in it is not UTF-8")
        least = step.schema.min_input if step.is_standard and step.schema is not None else 0
        if len(step.operands) < least:  # at whatever sizes
            raise step.invalid(f"{len(step.operands)} of {least} operands are given")
        steps.append(Step(node, setting, step.visible) if step.shadowed else step)
        see(node.outputs)
    return tuple(steps)


def _kind(node: onnx_ir.Node, setting: Setting) -> type[Step]:
    if node.domain:
        return Step
    if node.op_type == "If":
        return Branches
    batched = node.op_type == "Scan" and setting.opsets.get("", 0) < 9  # with a batch axis, and lengths
    return Repetition if node.op_type in ("Loop", "Scan") and not batched else Step
