"""ExportedProgram -> `Graph`: weights, dead code, constant folding, and the lowering of every call."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ConstantArgument,
    InputKind,
    InputSpec,
    OutputKind,
    SymIntArgument,
    TensorArgument,
)

from graphnorm.errors import InvalidGraphError
from graphnorm.frontends.routing.rewrite import sink_routes
from graphnorm.frontends.torch.aten.create import UNWRITTEN
from graphnorm.frontends.torch.aten.table import ignored_arguments, lower, tensors_in, unknown
from graphnorm.frontends.torch.call import Call
from graphnorm.frontends.torch.infinities import settle_bounds
from graphnorm.frontends.torch.inplace import Storages, functional, is_in_place
from graphnorm.frontends.torch.nodes import (
    Symbol,
    hides_tensor,
    listed,
    mutated_names,
    operator_name,
    outputs_of,
    scope_of,
    source_of,
    users_of,
)  # fmt: skip
from graphnorm.frontends.torch.regions import JOINED, MARKED, Region
from graphnorm.frontends.torch.sizing import Sizing
from graphnorm.frontends.torch.tensors import StateTensors, classify, hint, to_numpy, value_of
from graphnorm.ir import Array, Graph, Node, Value, shape_of
from graphnorm.util.defects import DEFECTS, defect

FOLD_LIMIT = 1_000_000  # entries; a larger constant expression stays in the graph
STATE_KINDS = (InputKind.PARAMETER, InputKind.BUFFER)
MUTATIONS = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)
# Operators whose symbolic numbers are sizes of the result, which rules read off its shape.
SIZE_OPERATORS = (
    "aten.view", "aten.reshape", "aten._unsafe_view", "aten.expand", "aten.unflatten", "aten.upsample",
    "aten._upsample", "aten.zeros", "aten.ones", "aten.new_zeros", "aten.new_ones", "aten.sym_size",
)  # fmt: skip
ZEROS = ("zeros.", "new_zeros.", "zeros_like.")


class GraphBuilder:
    """Walks an exported program once, in order."""

    def __init__(self, program: ExportedProgram, name: str, remarks: Sequence[str] = ()) -> None:
        self.program = program
        self.name = name
        self.mutated = mutated_names(program)
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self.constants: dict[str, Array] = {}
        self.inputs: list[str] = []
        self.known: dict[str, Tensor] = {}  # computable now; becomes a constant when a node reads it
        self.written: dict[str, Tensor] = {}  # likewise, but the model changes it: never computed with
        self.symbols: dict[str, tuple[str, ...]] = {}
        self.sizing = Sizing()
        self.env: dict[fx.Node, Any] = {}  # value, number, or a tuple of them
        self.remarks = list(remarks)
        self.state = self._read_state()
        self.taken = set(self.state.first_name) | {""}

    def build(self) -> Graph:
        """The verified graph."""
        for name, tensor in (self.state.weights | self.state.pinned).items():
            self.values[name] = value_of(name, tensor)
        self.constants.update((name, to_numpy(tensor)) for name, tensor in self.state.pinned.items())
        placeholders = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, self.program.graph_signature.input_specs, strict=True):
            self.env[node] = self._bind_input(node, spec)
        results = listed(self.program.graph.output_node().args[0])
        specs = self.program.graph_signature.output_specs
        roots = [
            node
            for node, spec in zip(results, specs, strict=True)
            if isinstance(node, fx.Node) and not _is_hidden(node, spec.kind)
        ]
        self._walk(self.program.graph_module, roots)
        outputs = [value.name for node in roots for value in tensors_in(self.env[node])]
        for name in outputs:
            self._materialise(name)
        weights = {name: to_numpy(tensor) for name, tensor in self.state.weights.items()}
        defined = {*self.inputs, *weights, *self.constants, *(o for node in self.nodes for o in node.outputs)}
        graph = Graph(
            name=self.name,
            inputs=tuple(self.inputs),
            outputs=tuple(outputs),
            nodes=tuple(self.nodes),
            values={name: value for name, value in self.values.items() if name in defined},
            weights=weights,
            constants=self.constants,
            remarks=tuple(dict.fromkeys(self.remarks)),
            symbols=self.symbols,
            sizing=tuple(self.sizing.nodes),
            uneven=self.sizing.uneven,
        )
        return self._sunk(settle_bounds(graph))

    def _sunk(self, graph: Graph) -> Graph:
        """With the choice of an expert moved behind what the experts compute, where there are some."""
        try:
            sunk = sink_routes(graph)
            sunk.verify()
        except (*DEFECTS, InvalidGraphError) as error:
            said = defect("rewriting", "mixture of experts", graph.name, error, "left as it is")
            return replace(graph, remarks=(*graph.remarks, said))
        return sunk

    def _read_state(self) -> StateTensors:
        signature = self.program.graph_signature
        tensors = {name: t for name, t in self.program.state_dict.items() if isinstance(t, Tensor)}
        for name in signature.non_persistent_buffers:
            tensors[name] = self.program.constants[name]
        others = {
            f"constant {name}": tensor
            for name, tensor in self.program.constants.items()
            if name not in tensors and isinstance(tensor, Tensor) and tensor.layout == torch.strided
        }
        # A non-persistent buffer is recomputed by the code that loads the weights.
        frozen = self.mutated | set(signature.non_persistent_buffers)
        return classify(tensors, frozen, others, signature.parameters)

    def _bind_input(self, node: fx.Node, spec: InputSpec) -> Any:
        if spec.kind in STATE_KINDS and spec.target is not None:
            name = self.state.first_name[spec.target]
            tensor = self.state.integers.get(name)
            if tensor is not None:
                return self._know(name, tensor, foldable=name not in self.mutated)
            if name in self.state.pinned and name not in self.mutated:
                self.known[name] = self.state.pinned[name].detach().cpu()
            if name in self.state.pinned and name in self.mutated:
                return self._state_now(node, name)
            return self.values[name]
        if spec.kind is InputKind.CONSTANT_TENSOR and spec.target is not None:
            return self._know(self.unique(spec.target), self.program.constants[spec.target])
        if spec.kind is InputKind.USER_INPUT:
            if isinstance(spec.arg, TensorArgument):
                value = value_of(self.unique(node.name), node.meta["val"])
                self.values[value.name] = value
                self.inputs.append(value.name)
                self.symbols[value.name] = self.sizing.read(value.name, node.meta["val"])
                return value
            if isinstance(spec.arg, ConstantArgument):
                return spec.arg.value
            if isinstance(spec.arg, SymIntArgument):
                return hint(node.meta["val"])
        return None  # tokens and custom objects carry no tensor

    def _state_now(self, node: fx.Node, name: str) -> Value:
        """What a buffer that the model writes to holds: its data today says nothing about the next call."""
        value = replace(self.values[name], name=self.unique(node.name))
        self.values[value.name] = value
        self.nodes.append(Node(value.name, "Identity", (name,), (value.name,), {}, name))
        return value

    def _know(self, name: str, tensor: Tensor, foldable: bool = True) -> Value:
        (self.known if foldable else self.written)[name] = tensor.detach().cpu()
        self.values[name] = value_of(name, tensor)
        return self.values[name]

    def unique(self, name: str) -> str:
        """That name, or a similar one that is free."""
        found, count = name, 1
        while found in self.taken:
            found, count = f"{name}_{count}", count + 1
        self.taken.add(found)
        return found

    def _walk(self, module: fx.GraphModule, roots: Sequence[fx.Node]) -> None:
        alive, storages = set(roots), Storages(module.graph)
        for node in reversed(module.graph.nodes):
            if node in alive or (is_in_place(node) and not alive.isdisjoint(storages.names(node))):
                alive.update((node, *node.all_input_nodes))
        for node in module.graph.nodes:
            if node not in alive or node in self.env:
                continue
            if node.op == "get_attr":
                self.env[node] = self._attribute(module, str(node.target))
            elif node.op == "call_function":
                self.env[node] = self._call(node, alive)
                self.sizing.record(node, [value.name for value in tensors_in(self.env[node])])
                if is_in_place(node):  # later readers of the tensor see what was written
                    names = storages.names(node)
                    self.env.update((name, self.env[node]) for name in names if name in self.env)

    def _attribute(self, module: fx.GraphModule, target: str) -> Any:
        found: Any = module
        for part in target.split("."):
            found = getattr(found, part)
        return self._know(self.unique(target), found) if isinstance(found, Tensor) else found

    def _resolve(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return self.env[argument]
        if isinstance(argument, (list, tuple)):
            return [self._resolve(item) for item in argument]
        if isinstance(argument, dict):
            return {key: self._resolve(item) for key, item in argument.items()}
        return argument

    def _call(self, node: fx.Node, alive: set[fx.Node]) -> Any:
        target = functional(node.target)
        if target is operator.getitem:
            source = self._resolve(node.args[0])
            index = node.args[1]
            if isinstance(source, (tuple, list)) and isinstance(index, int):
                return source[index]
        arguments = self._arguments(node)
        result = node.meta.get("val")
        if isinstance(result, Symbol) and result.node.hint is not None:
            return result.node.hint
        if isinstance(target, OpOverload):
            folded = self._fold(node, target, arguments, _is_symbolic(node))
            if folded is not None:
                return folded
        elif isinstance(target, HigherOrderOperator):
            positional = [arguments[str(i)] for i in range(len(node.args))]
            if str(target) in MARKED:
                return self.inline(*MARKED[str(target)](*positional))
            if str(target) in JOINED:
                outputs, before = outputs_of(node, users_of(node, alive), self.unique), len(self.nodes)
                try:
                    return JOINED[str(target)](Region(self, node, outputs), *positional)
                except DEFECTS as error:
                    del self.nodes[before:]
                    where = scope_of(node) or node.name
                    self.remarks.append(defect("lowering", operator_name(target), where, error))
        return self._lower(node, arguments, alive)

    def _arguments(self, node: fx.Node) -> dict[str, Any]:
        if isinstance(node.target, OpOverload):
            bound: dict[str, Any] = {}
            for index, formal in enumerate(node.target._schema.arguments):
                if index < len(node.args):
                    bound[formal.name] = self._resolve(node.args[index])
                elif formal.name in node.kwargs:
                    bound[formal.name] = self._resolve(node.kwargs[formal.name])
                else:
                    bound[formal.name] = formal.default_value
            return bound
        return {str(i): self._resolve(arg) for i, arg in enumerate(node.args)} | {
            name: self._resolve(arg) for name, arg in node.kwargs.items()
        }

    def _fold(self, node: fx.Node, target: OpOverload, arguments: dict[str, Any], symbolic: bool) -> Any:
        """The result of a call on known tensors; None if it must stay a node."""
        overload = str(target).removeprefix("aten.")
        if torch.Tag.nondeterministic_seeded in target.tags or overload in UNWRITTEN:
            return None
        ignored = ignored_arguments(overload)
        for index, argument in enumerate(arguments.values()):
            if index not in ignored and any(v.name not in self.known for v in tensors_in(argument)):
                return None
        types = [result for result in listed(node.meta.get("val")) if isinstance(result, Tensor)]
        varies = symbolic or any(v.dynamic for a in arguments.values() for v in tensors_in(a))
        if varies:
            self.sizing.fold(node, overload)
        if varies and overload.startswith(ZEROS) and types[0].is_floating_point():
            return None  # its lowering says that it is zero at any size
        if varies and not all(value_of("", fake).dynamic for fake in types):
            return None  # the data depends on a size that may change, and no axis of the result would say so
        sizes = [hint(tensor.numel()) for tensor in types]
        if any(size is None or size > FOLD_LIMIT for size in sizes):
            return None
        formals = target._schema.arguments
        positional = [
            self._real(a) for f, a in zip(formals, arguments.values(), strict=True) if not f.kwarg_only
        ]
        named = {f.name: self._real(arguments[f.name]) for f in formals if f.kwarg_only}
        try:
            with torch.no_grad():
                result = target(*positional, **named)
        except DEFECTS:
            return None  # no kernel for the host: the call stays a node
        return self._remember(node.name, result, node.meta["val"])

    def _real(self, argument: Any) -> Any:
        if isinstance(argument, Value):
            if argument.name in self.known:
                return self.known[argument.name]
            # read for its type only: any data will do, and none is allocated
            return torch.empty((), dtype=getattr(torch, argument.dtype)).expand(argument.shape or ())
        if isinstance(argument, torch.device):
            return torch.device("cpu")
        if isinstance(argument, (list, tuple)):
            return [self._real(item) for item in argument]
        return argument

    def _remember(self, name: str, result: Any, fake: Any) -> Any:
        if isinstance(result, Tensor):
            dynamic = value_of("", fake).dynamic  # the real result knows only its example sizes
            value = replace(value_of(self.unique(name), result), dynamic=dynamic)
            self.known[value.name] = result
            self.values[value.name] = value
            return value
        if isinstance(result, (tuple, list)):
            return tuple(self._remember(name, *pair) for pair in zip(result, fake, strict=True))
        return result

    def inline(self, body: fx.GraphModule, operands: Sequence[Any]) -> Any:
        """Walk the body of a higher-order operator; returns its results."""
        for name in [node for node in body.graph.nodes if node.op != "placeholder"]:
            self.env.pop(name, None)  # a body may be called twice
        placeholders = [node for node in body.graph.nodes if node.op == "placeholder"]
        self.env.update(zip(placeholders, operands, strict=True))
        results = body.graph.output_node().args[0]
        self._walk(body, [node for node in listed(results) if isinstance(node, fx.Node)])
        return self._resolve(results)

    def add(self, node: Node, result: Value | None) -> None:
        """Emit a node with at most one result."""
        if result is not None:
            self.values[result.name] = result
        for name in node.inputs:
            self._materialise(name)
        self.nodes.append(node)

    def literal(self, name: str, array: Array) -> str:
        """A new constant; returns its name."""
        name = self.unique(name)
        self.values[name] = Value(name, shape_of(array), array.dtype.name)
        self.constants[name] = array
        return name

    def _lower(self, node: fx.Node, arguments: dict[str, Any], alive: set[fx.Node]) -> Any:
        several = isinstance(node.meta.get("val"), (tuple, list))
        users = users_of(node, alive)
        outputs = outputs_of(node, users, self.unique)
        used = [not several or i in users for i in range(len(outputs))]
        name = outputs[0].name if not several and outputs[0] else self.unique(node.name)
        call = Call(node, name, outputs, used, self.unique, scope_of(node), source_of(node), self.known)
        target = functional(node.target)
        trusted = not _is_symbolic(node) or str(target).startswith(SIZE_OPERATORS)
        if isinstance(target, OpOverload) and trusted and not hides_tensor(target, arguments):
            lower(call, str(target).removeprefix("aten."), arguments, operator_name(target))
        else:
            unknown(call, operator_name(target), arguments)
        self._commit(call)
        return tuple(outputs) if several else outputs[0]

    def _commit(self, call: Call) -> None:
        self.remarks += call.remarks
        self.values.update(call.values)
        self.constants.update(call.constants)
        for node in call.nodes:
            for name in node.inputs:
                self._materialise(name)
        self.nodes.extend(call.nodes)

    def _materialise(self, name: str) -> None:
        tensor = self.known.get(name, self.written.get(name))
        if tensor is not None and name not in self.constants:
            self.constants[name] = to_numpy(tensor)


def _is_symbolic(node: fx.Node) -> bool:
    """Whether a call takes a number that depends on the sizes of the inputs."""
    return any(isinstance(source.meta.get("val"), Symbol) for source in node.all_input_nodes)


def _is_hidden(node: fx.Node, kind: OutputKind) -> bool:
    """Whether an output of the program is none of the network's: tokens, counters, running statistics.

    A BatchNorm that updates its statistics is in training mode, where its rule pins the input.
    """
    if kind not in MUTATIONS:
        return kind is OutputKind.TOKEN
    fake = node.meta.get("val")
    producer = node.args[0] if node.target is operator.getitem else None
    is_statistic = isinstance(producer, fx.Node) and "batch_norm" in str(producer.target)
    return is_statistic or not isinstance(fake, Tensor) or not fake.is_floating_point()
