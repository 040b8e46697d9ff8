"""One interface for the kinds of model that graphnorm handles: read, emit, run, save.

torch and onnx are imported only when a model of theirs is given.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphnorm import ir
from graphnorm.errors import InputError, ModelFileError

if TYPE_CHECKING:
    from graphnorm.rescaling.clips import Rewriting
    from graphnorm.verification.runner import Runner


_TORCH_FILES = frozenset({".pt2", ".pt", ".pth", ".bin", ".ckpt", ".pkl"})


@dataclass(frozen=True)
class Source(ABC):
    """A model and what can be done with it.

    Attributes:
        model: torch module, exported program or ONNX model.
        network: its intermediate representation.
        example: arrays for the network's inputs, if the caller gave any.
    """

    model: Any
    network: ir.Graph
    example: list[ir.Array] | None

    @property
    def declares_sizes(self) -> bool:
        """Whether the model says which sizes of its inputs are open; a module runs at whatever it can."""
        return True

    @abstractmethod
    def at(self, shapes: Sequence[Sequence[int]]) -> Source:
        """The same model read at other sizes of its inputs."""

    @abstractmethod
    def emit(self, weights: Mapping[str, ir.Array], inplace: bool = False) -> Any:
        """The model with these weights replaced; a copy unless `inplace`."""

    @abstractmethod
    def runner(self, model: Any, device: str) -> Runner:
        """A runner for the original or an emitted model."""

    @abstractmethod
    def hidden_values(self, model: Any, inputs: Sequence[ir.Array]) -> dict[str, ir.Array]:
        """Every float tensor that the original or an emitted model computes, by the network's names."""

    @abstractmethod
    def save(self, model: Any, path: Path, force: bool) -> None:
        """Write an emitted model."""

    def given(self, model: Any) -> Any:
        """An emitted model in the kind that the caller gave."""
        return model

    @abstractmethod
    def rewrite_clips(self) -> tuple[Source, Rewriting]:
        """The same model with per-channel bounds in its clips, and which; itself if none gains from it."""


@dataclass(frozen=True)
class TorchSource(Source):
    """A torch module or exported program.

    Attributes:
        call: its example ``(args, kwargs)``.
        program: what was read; its nodes have the names of the network's values.
        order: for each of the network's outputs its place among the tensors that the model returns; None: as
            they are.
    """

    call: tuple[Any, Any] = ((), {})
    program: Any = None
    order: tuple[int, ...] | None = None

    @property
    def result_keys(self) -> tuple[str, ...]:
        """How callers reach each tensor of the result: ``['logits']``, ``[0]``; in the model's own order."""
        from graphnorm.frontends.torch.nodes import result_keys

        return result_keys(self.program)

    def reordered(self, order: Sequence[int]) -> TorchSource:
        """The same model with its results in another order."""
        outputs = tuple(self.network.outputs[i] for i in order)
        return replace(self, network=replace(self.network, outputs=outputs), order=tuple(order))

    @property
    def declares_sizes(self) -> bool:
        from torch.export import ExportedProgram

        return isinstance(self.model, ExportedProgram)

    def at(self, shapes: Sequence[Sequence[int]]) -> Source:
        import torch
        from torch.utils._pytree import tree_flatten, tree_unflatten

        from graphnorm.frontends.torch.read import read_torch

        leaves, structure = tree_flatten(self.call)
        sizes = iter(shapes)
        call = tree_unflatten(
            [_repeated(leaf, next(sizes)) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves],
            structure,
        )
        module = self.model.module() if self.declares_sizes else self.model
        read = replace(self, network=read_torch(module, *call), example=None, call=call)
        return read if self.order is None else read.reordered(self.order)

    def emit(self, weights: Mapping[str, ir.Array], inplace: bool = False) -> Any:
        from graphnorm.emission.torch_module import rescale_torch

        return rescale_torch(self.model, weights, inplace=inplace)

    def runner(self, model: Any, device: str) -> Runner:
        from graphnorm.verification.torch.runner import TorchRunner

        return TorchRunner(model, self.call, device, order=self.order)

    def hidden_values(self, model: Any, inputs: Sequence[ir.Array]) -> dict[str, ir.Array]:
        from graphnorm.verification.torch.runner import hidden_values

        return hidden_values(self.program, model, inputs)

    def save(self, model: Any, path: Path, force: bool) -> None:
        from torch import nn

        from graphnorm.emission.torch_module import save_torch

        if path.suffix == ".pt2" and isinstance(model, nn.Module):
            from graphnorm.frontends.torch.read import export_module

            model = export_module(model, *self.call)
        save_torch(model, path, force=force)

    def rewrite_clips(self) -> tuple[Source, Rewriting]:
        from graphnorm.frontends.torch.read import graph_of, readable_program
        from graphnorm.passes.fx.clip import rewrite_clips

        found = rewrite_clips(self.model, *self.call)
        if found.model is self.model:
            return self, found
        program = readable_program(found.model, *self.call)
        network = graph_of(program, found.model)
        return replace(self, model=found.model, network=network, program=program), found


@dataclass(frozen=True)
class OnnxSource(Source):
    """An ``onnx_ir.Model``; `is_proto` if the caller gave it as an ``onnx.ModelProto``."""

    is_proto: bool = False

    def at(self, shapes: Sequence[Sequence[int]]) -> Source:
        from graphnorm.frontends.onnx.read import read_onnx

        taken = {value.name for value in self.model.graph.inputs}
        named = zip(self.network.inputs, shapes, strict=True)
        return replace(
            self, network=read_onnx(self.model, {n: s for n, s in named if n in taken}), example=None
        )

    @property
    def overridable(self) -> frozenset[str]:
        """Initializers for which a caller may give another value: they are inputs too."""
        named = {value.name or "" for value in self.model.graph.inputs} & set(self.model.graph.initializers)
        return frozenset(named) if self.model.ir_version >= 4 else frozenset()

    def emit(self, weights: Mapping[str, ir.Array], inplace: bool = False) -> Any:
        from graphnorm.emission.onnx_file import rescale_onnx

        if inplace:
            raise InputError("an ONNX model is never changed in place; use result.model")
        return rescale_onnx(self.model, weights)

    def runner(self, model: Any, device: str) -> Runner:
        from graphnorm.verification.onnx.runner import OnnxRunner

        return OnnxRunner(model, self.network, device)

    def hidden_values(self, model: Any, inputs: Sequence[ir.Array]) -> dict[str, ir.Array]:
        from graphnorm.verification.onnx.runner import hidden_values

        return hidden_values(model, self.network, inputs)

    def save(self, model: Any, path: Path, force: bool) -> None:
        from graphnorm.emission.onnx_save import save_onnx
        from graphnorm.frontends.onnx.load import to_model

        if hasattr(model, "SerializeToString"):
            model = to_model(model, str(path))
        save_onnx(model, path, like=self.model, force=force)

    def given(self, model: Any) -> Any:
        from graphnorm.frontends.onnx.load import to_proto

        return to_proto(model) if self.is_proto else model

    def rewrite_clips(self) -> tuple[Source, Rewriting]:
        from graphnorm.frontends.onnx.read import read_onnx
        from graphnorm.passes.onnx.clip import rewrite_clips

        values = self.network.values
        sizes = {name: shape for name in self.network.inputs if (shape := values[name].shape) is not None}
        found = rewrite_clips(self.model, sizes)
        if found.model is self.model:
            return self, found
        read = read_onnx(found.model, sizes)
        remarks = tuple(dict.fromkeys((*self.network.remarks, *read.remarks)))
        return replace(self, model=found.model, network=replace(read, remarks=remarks)), found


def open_model(
    model: Any,
    example_inputs: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    inputs_as_weights: bool = False,
) -> Source:
    """Read a model of any supported kind.

    Args:
        model: ``nn.Module``, ``fx.GraphModule``, ``ExportedProgram``, ``onnx_ir.Model``,
            ``onnx.ModelProto``, or the path of a ``.onnx`` or ``.pt2`` file.
        example_inputs: torch: positional inputs (tensor or tuple). ONNX: arrays by name or in order.
        kwargs: torch: keyword inputs.
        input_shapes: ONNX: sizes for symbolic dimensions, by input name.
        inputs_as_weights: ONNX: initializers are weights and no inputs, even those that are both.

    Raises:
        InputError: the model is of no kind that graphnorm knows.
        ModelFileError: the file is missing, damaged, unsupported or unsafe to read.
    """
    if is_torch(model):
        return _open_torch(model, example_inputs, kwargs)
    opening = _with_given if inputs_as_weights else _open_onnx
    opened = opening(loaded(model), example_inputs, input_shapes)
    return replace(opened, is_proto=hasattr(model, "SerializeToString"))


def _with_given(
    model: Any, example_inputs: Any, input_shapes: Mapping[str, Sequence[int]] | None
) -> OnnxSource:
    """An ONNX model without its initializers among the inputs, which a remark says."""
    from graphnorm.frontends.onnx.given import overridable, settled

    source, taken = _open_onnx(settled(model), example_inputs, input_shapes), overridable(model)
    if not taken:
        return source
    said = f"initializers treated as weights, and no longer inputs: {', '.join(map(repr, taken))}"
    return replace(source, network=replace(source.network, remarks=(*source.network.remarks, said)))


def is_torch(model: Any) -> bool:
    """Whether a model, or the file of that path, is one of torch."""
    if isinstance(model, str | os.PathLike):
        return Path(model).suffix in _TORCH_FILES
    return "torch" in _home(model)


def loaded(model: Any, inputs_as_weights: bool = False) -> Any:
    """An ONNX model in memory as ``onnx_ir.Model``, whatever it was given as; a torch model as it is.

    With `inputs_as_weights` initializers are no inputs.

    Raises:
        InputError: the model is of no kind that graphnorm knows.
        ModelFileError: the file is missing, damaged, unsupported or unsafe to read.
    """
    if is_torch(model):
        return model
    if isinstance(model, str | os.PathLike):
        model = Path(model)
        if not model.exists():
            raise ModelFileError(f"{model}: no such file; graphnorm reads .onnx and .pt2 files")
    elif not _home(model) & {"onnx", "onnx_ir"}:
        raise InputError(
            f"cannot take a model of type {type(model).__name__}; expected a torch module, an exported "
            "program, an ONNX model, or the path of a .onnx or .pt2 file"
        )
    try:
        from graphnorm.frontends.onnx.external import self_contained
        from graphnorm.frontends.onnx.given import settled
        from graphnorm.frontends.onnx.load import to_model
        from graphnorm.frontends.onnx.order import in_order
        from graphnorm.frontends.onnx.read import load_model
    except ImportError as error:
        raise InputError("this model needs onnx and onnxruntime: pip install 'graphnorm[onnx]'") from error
    if isinstance(model, Path):
        model = load_model(model)
    elif hasattr(model, "SerializeToString"):
        model = to_model(model, "the given ModelProto")
    source = model.graph.name or "the given model"
    found = self_contained(in_order(model, source), source)
    return settled(found) if inputs_as_weights else found


def _home(model: Any) -> set[str]:
    """Packages of a model's classes."""
    return {cls.__module__.partition(".")[0] for cls in type(model).__mro__}


def _open_torch(model: Any, example_inputs: Any, kwargs: Mapping[str, Any] | None) -> TorchSource:
    try:
        import torch
        from torch.utils._pytree import tree_leaves
    except ImportError as error:
        raise InputError("this model needs torch: pip install 'graphnorm[torch]'") from error
    from graphnorm.frontends.torch.examples import call_of
    from graphnorm.frontends.torch.read import graph_of, load_program, readable_program
    from graphnorm.frontends.torch.tensors import to_numpy

    if isinstance(model, str | os.PathLike):
        model = load_program(Path(model))
    args, named = call_of(example_inputs, kwargs)
    program = readable_program(model, None if example_inputs is None else args, kwargs)
    call: tuple[Any, Any] | None = args, named
    if isinstance(model, torch.export.ExportedProgram) and example_inputs is None:
        call = model.example_inputs
    if call is None:
        raise InputError("this exported program holds no example inputs; give some to run it with")
    example = [to_numpy(leaf) for leaf in tree_leaves(call) if isinstance(leaf, torch.Tensor)]
    return TorchSource(model, graph_of(program, model), example, call, program)


def _repeated(tensor: Any, shape: Sequence[int]) -> Any:
    """A tensor of another size, with entries of this one, truncated or repeated."""
    import torch

    for axis, size in enumerate(shape):
        if tensor.shape[axis] != size:
            places = torch.arange(size, device=tensor.device) % max(tensor.shape[axis], 1)
            tensor = tensor.index_select(axis, places)
    return tensor


def _open_onnx(
    model: Any, example_inputs: Any, input_shapes: Mapping[str, Sequence[int]] | None
) -> OnnxSource:
    from graphnorm.frontends.onnx.examples import typed
    from graphnorm.frontends.onnx.read import read_onnx

    shapes = dict(input_shapes or {})
    if isinstance(example_inputs, Mapping):
        shapes |= {name: np.shape(array) for name, array in example_inputs.items()}
    network = read_onnx(model, shapes or None)
    example: list[ir.Array] | None = None
    if isinstance(example_inputs, Mapping):
        missing = [name for name in network.inputs if name not in example_inputs]
        if missing:
            raise InputError(
                f"example inputs lack {', '.join(missing)}; the model takes {', '.join(network.inputs)}"
            )
        example = [np.asarray(example_inputs[name]) for name in network.inputs]
    elif example_inputs is not None:
        arrays = example_inputs if isinstance(example_inputs, list | tuple) else [example_inputs]
        if len(arrays) != len(network.inputs):
            raise InputError(
                f"{len(arrays)} example inputs given, the model takes {', '.join(network.inputs)}"
            )
        example = [np.asarray(array) for array in arrays]
        network = read_onnx(model, {n: a.shape for n, a in zip(network.inputs, example, strict=True)})
    if example is not None:
        network, example = typed(network, example)
    return OnnxSource(model, network, example)
