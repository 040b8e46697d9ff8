"""ONNX front end: a model file or `onnx_ir.Model` as a `graphnorm.ir.Graph`.

Nodes keep the operator names, operand order and attributes of the file; what is computed from
constants and shapes alone is folded, and symbolic dimensions get example sizes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import onnx
import onnx_ir
from onnx import defs, helper
from onnx_ir.passes.common import InlinePass

from graphnorm.errors import InvalidGraphError, ModelFileError
from graphnorm.frontends.onnx.bodies import prepare
from graphnorm.frontends.onnx.evaluate import evaluate
from graphnorm.frontends.onnx.evaluation import Evaluation
from graphnorm.frontends.onnx.external import self_contained
from graphnorm.frontends.onnx.flat import FlatGraph, Glue
from graphnorm.frontends.onnx.limits import check_entries, check_functions, check_loops
from graphnorm.frontends.onnx.live import live
from graphnorm.frontends.onnx.load import load_model, model_path, to_model
from graphnorm.frontends.onnx.names import Names
from graphnorm.frontends.onnx.nodes import Namer, to_node
from graphnorm.frontends.onnx.order import in_order
from graphnorm.frontends.onnx.sizes import Dimension, Sized, Sizes, axis_symbol, choose_sizes
from graphnorm.frontends.onnx.sizing import first_uneven, sizing_steps
from graphnorm.frontends.onnx.steps import Setting, Step
from graphnorm.frontends.onnx.tensors import Tensors, collect_tensors
from graphnorm.frontends.torch.infinities import settle_bounds
from graphnorm.ir import Graph, Value, shape_of

__all__ = ["load_model", "read_onnx"]

OLDEST_OPSET = 7  # broadcasting as in NumPy begins here


def read_onnx(
    model: onnx_ir.Model | onnx.ModelProto | str | os.PathLike[str],
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> Graph:
    """Read an ONNX model; it is not changed.

    Args:
        model: A file, or a model in memory.
        input_shapes: Example shape per input name, for those whose size the file leaves open.

    Raises:
        ModelFileError: the file or graph is damaged, unsupported or unsafe to read.
        InputError: `input_shapes` doesn't fit the model.
    """
    if isinstance(model, str | os.PathLike):
        model = load_model(model)
    elif isinstance(model, onnx.ModelProto):
        model = to_model(model, model.graph.name or "model")
    path = model_path(model)
    source = path.name if path else model.graph.name or "model"
    model = in_order(model, source)
    _check_opset(model, source)
    model, own_names = _inline(self_contained(model, source), source)
    return _Reading(model, source, own_names).graph(input_shapes or {})


class _Reading:
    """One reading of one model."""

    def __init__(self, model: onnx_ir.Model, source: str, own_names: Set[str]) -> None:
        self.source = source
        self.body = model.graph
        names = Names(self.body)
        steps = prepare(self.body, Setting(model.opset_imports, source, names, own_names), {})
        self.steps = live(steps, [value.name or "" for value in self.body.outputs])
        overridable = {value.name or "" for value in self.body.inputs} if model.ir_version >= 4 else set()
        self.tensors: Tensors = collect_tensors(self.body, names, own_names, source, overridable)
        self.inputs = [v for v in self.body.inputs if v.name not in self.body.initializers]

    def graph(self, input_shapes: Mapping[str, Sequence[int]]) -> Graph:
        dimensions = {
            value.name or "": _dimensions(value)
            for value in self.inputs
            if isinstance(value.type, onnx_ir.TensorType)
        }
        for name, shape in input_shapes.items():
            if name in dimensions and dimensions[name] is None:
                dimensions[name] = [axis_symbol(name, axis) for axis in range(len(shape))]
        sized = choose_sizes(
            dimensions, input_shapes, lambda sizes: self._evaluate(dimensions, sizes), self.source
        )
        sized.check()
        check_loops(self.steps, sized.first)
        check_entries(self.steps, sized.first, input_shapes, self.source)
        return self._assemble(sized, dimensions)

    def _evaluate(self, dimensions: Mapping[str, Sequence[Dimension] | None], sizes: Sizes) -> Evaluation:
        types = dict(self.tensors.types)
        for value in self.inputs:
            name = value.name or ""
            types[name] = onnx.TypeProto()
            if value.type is not None:
                onnx_ir.serde.serialize_type_into(types[name], value.type)
            dims = dimensions.get(name)
            if dims is not None:
                shape = [sizes[dim] if isinstance(dim, str) else dim for dim in dims]
                types[name] = helper.make_tensor_type_proto(types[name].tensor_type.elem_type, shape)
        state = Evaluation(types, dict(self.tensors.known), set(self.tensors.weights), sizes)
        return evaluate(self.steps, state)

    def _assemble(self, sized: Sized, dimensions: Mapping[str, Sequence[Dimension] | None]) -> Graph:
        outputs = tuple(value.name or "" for value in self.body.outputs)
        flat = FlatGraph(self.steps, self.tensors, sized)
        kept, folded, read = _partition(flat, sized, outputs)
        namer = Namer()
        nodes = tuple(to_node(step, namer, self.source) for step in kept)
        computed = {name: sized.first.known[name] for step in folded for name in step.results if name in read}
        sizing = sizing_steps(flat, sized, kept, read)
        constants = flat.tensors.constants | computed
        arrays = flat.tensors.weights | constants
        values = {name: Value(name, shape_of(data), data.dtype.name) for name, data in arrays.items()}
        for name in computed:
            values[name] = sized.value(name, values[name].dtype)
        names = [value.name or "" for value in self.inputs] + [
            name for node in nodes for name in node.outputs if name
        ]
        for name in names:
            values[name] = sized.value(name, _dtype(sized.first.types[name]))
        graph = Graph(
            name=self.body.name or Path(self.source).stem,
            inputs=tuple(value.name or "" for value in self.inputs),
            outputs=outputs,
            nodes=nodes,
            values=values,
            weights=flat.tensors.weights,
            constants=constants,
            overridable=frozenset(name for name in flat.tensors.overridable if name in constants),
            symbols={name: _symbols(dimensions.get(name)) for name in (v.name or "" for v in self.inputs)},
            sizing=tuple(to_node(step, namer, self.source) for step in sizing),
            uneven=first_uneven(flat, sized, kept, sizing),
        )
        try:
            graph.verify()
        except InvalidGraphError as error:
            raise ModelFileError(f"{self.source}: not a valid ONNX graph: {error}") from error
        return settle_bounds(graph, absent_is_largest=True)


def _check_opset(model: onnx_ir.Model, source: str) -> None:
    newest = defs.onnx_opset_version()
    version = model.opset_imports.get("")
    if version is None or not OLDEST_OPSET <= version <= newest:
        raise ModelFileError(
            f"{source}: unknown opset {version} of ai.onnx, supported {OLDEST_OPSET}..{newest}; "
            "convert the model with onnx.version_converter"
        )


def _inline(model: onnx_ir.Model, source: str) -> tuple[onnx_ir.Model, Set[str]]:
    """The model without local functions, and its own tensors; the argument stays as it is."""
    if not model.functions:
        return model, Names(model.graph).tensors().keys()
    try:
        check_functions(model, source)
        inlined = model.clone()
        own_names = Names(inlined.graph).mark()
        InlinePass()(inlined)
    except (onnx_ir.passes.InvariantError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{source}: its functions cannot be inlined: {error}") from error
    return inlined, own_names


def _dimensions(value: onnx_ir.Value) -> list[Dimension] | None:
    """Fixed sizes and symbols; an unnamed size is a symbol of its own."""
    if value.shape is None:
        return None
    return [_dimension(dim, axis_symbol(value.name or "", axis)) for axis, dim in enumerate(value.shape)]


def _dimension(dim: int | onnx_ir.SymbolicDim, symbol: str) -> Dimension:
    if isinstance(dim, onnx_ir.SymbolicDim):
        return symbol if dim.value in (None, "", "?", "None") else str(dim.value)
    return dim if dim > 0 else symbol


def _symbols(dims: Sequence[Dimension] | None) -> tuple[str, ...]:
    return tuple(dim if isinstance(dim, str) else "" for dim in dims or ())


def _partition(
    flat: FlatGraph, sized: Sized, outputs: Sequence[str]
) -> tuple[list[Step | Glue], list[Step | Glue], set[str]]:
    """Steps that stay nodes, steps that become constants, and the names that the former read."""
    kept: list[Step | Glue] = []
    folded: list[Step | Glue] = []
    read = set(outputs)
    for step in reversed(flat.steps):
        results = [name for name in step.results if name]
        if step.may_fold and all(sized.is_foldable(name) and flat.is_constant(name) for name in results):
            folded.append(step)
        # A varying scalar that only folded steps read is no longer needed.
        elif not results or not all(
            name not in read and (name in flat.spare or sized.first.is_constant(name)) for name in results
        ):
            kept.append(step)
            read.update(step.operands, step.captured)
    return kept[::-1], folded[::-1], read


def _dtype(found: onnx.TypeProto) -> str:
    kind = found.WhichOneof("value")
    if kind != "tensor_type":
        return (kind or "unknown").removesuffix("_type")
    elem_type = found.tensor_type.elem_type
    return helper.tensor_dtype_to_np_dtype(elem_type).name if elem_type else "unknown"
