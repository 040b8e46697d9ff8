"""PyTorch models -> `Graph`, through ``torch.export``."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from graphnorm.errors import ExportError, InputError, ModelFileError
from graphnorm.frontends.torch.caches import REMARK, caching_configs, without_cache
from graphnorm.frontends.torch.decomposition import can_be_simpler, decompositions
from graphnorm.frontends.torch.examples import IN_PLACE, call_of, cause_of, check_module
from graphnorm.frontends.torch.graph import GraphBuilder
from graphnorm.frontends.torch.inplace import (
    hidden_views,
    is_functional_enough,
    undeclared_views,
    without_idle_dropout,
)
from graphnorm.frontends.torch.state import alone, quiet
from graphnorm.ir import Graph

FORCE_SAFE_LOAD = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
# Members of a .pt2 archive that loading would execute: compiled libraries, pickled objects.
CODE_MEMBERS = ("/data/aotinductor/", "/data/constants/custom_obj", "/data/constants/opaque_obj")
NEVER_UNPICKLED = (
    "it is a pickle, and unpickling runs code, so graphnorm never does; export the model with "
    "torch.export.save(torch.export.export(model, inputs), 'model.pt2'), or give module.path:callable and "
    "--weights FILE.safetensors"
)


def read_torch(
    model: nn.Module | ExportedProgram | str | os.PathLike[str],
    example_inputs: tuple[Any, ...] | Tensor | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Graph:
    """Read a torch model as a graph of ONNX operators.

    The arrays of the graph's weights share memory with a model in host memory.

    Args:
        model: a module (an ``fx.GraphModule`` too), an exported program, or the path of a ``.pt2`` file.
        example_inputs: positional inputs to trace a module with; a lone tensor stands for ``(tensor,)``.
        kwargs: keyword inputs to trace a module with.

    Raises:
        InputError: there are no example inputs, or a weight has no data or holds NaN.
        ModelFileError: the file is missing, damaged or unsafe.
        ExportError: ``torch.export`` cannot trace the module.
    """
    return graph_of(readable_program(model, example_inputs, kwargs), model)


def readable_program(
    model: nn.Module | ExportedProgram | str | os.PathLike[str],
    example_inputs: tuple[Any, ...] | Tensor | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> ExportedProgram:
    """The program that `graph_of` reads: functional where it has to be, in-place operators elsewhere.

    Raises:
        InputError: there are no example inputs, or they cannot be taken.
        ModelFileError: the file is missing, damaged or unsafe.
        ExportError: ``torch.export`` cannot trace the module.
    """
    program = _program(model, example_inputs, kwargs)
    if not is_functional_enough(program) or can_be_simpler(program):
        program = _decomposed(program)
    return program


def graph_of(program: ExportedProgram, model: nn.Module | ExportedProgram | str | os.PathLike[str]) -> Graph:
    """The graph of a model's `readable_program`; its values have the names of the program's nodes."""
    name = Path(model).stem if isinstance(model, (str, os.PathLike)) else type(model).__name__
    remarks: tuple[str, ...] = ()
    if isinstance(model, nn.Module):
        remarks = (REMARK,) if caching_configs(model) else ()
        name = str(model._get_name())  # type: ignore[no-untyped-call]  # an fx.GraphModule has a class of its own, but the name of its origin
    return GraphBuilder(program, name, remarks).build()


def export_program(
    model: nn.Module | ExportedProgram | str | os.PathLike[str],
    example_inputs: tuple[Any, ...] | Tensor | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> ExportedProgram:
    """Export a model and functionalise it; layers such as linear, conv2d, layer_norm stay whole.

    Raises:
        InputError: a module without example inputs.
        ModelFileError: the file is missing, damaged or unsafe.
        ExportError: ``torch.export`` cannot trace the module.
    """
    return _decomposed(_program(model, example_inputs, kwargs))


def _program(
    model: nn.Module | ExportedProgram | str | os.PathLike[str],
    example_inputs: tuple[Any, ...] | Tensor | None,
    kwargs: Mapping[str, Any] | None,
) -> ExportedProgram:
    if isinstance(model, (str, os.PathLike)):
        return load_program(Path(model))
    return model if isinstance(model, ExportedProgram) else _trace(model, example_inputs, kwargs)


def _decomposed(program: ExportedProgram) -> ExportedProgram:
    with alone(), _border("the exported program cannot be decomposed", lambda: IN_PLACE):
        if hidden_views(program):
            program = without_idle_dropout(program)
        known = torch.export.default_decompositions()
        suspects = hidden_views(program)
        table = decompositions() | {op: known[op] for op in suspects if op in known}
        if left := sorted(str(op) for op in suspects if op not in known or op in undeclared_views(suspects)):
            raise NotImplementedError(
                f"a tensor is written in place that {', '.join(left)} may share: use the operator that "
                "returns a new tensor"
            )
        decomposed: ExportedProgram = program.run_decompositions(table)
        return decomposed


def load_program(path: Path) -> ExportedProgram:
    """Load a ``.pt2`` archive without unpickling any object but plain tensors.

    Raises:
        ModelFileError: the file is missing, damaged, no ``.pt2`` archive, or holds code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = ["/" + name.partition("/")[2] for name in archive.namelist()]
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such file") from error
    except (zipfile.BadZipFile, OSError) as error:
        if path.suffix != ".pt2":
            raise ModelFileError(f"{path} is no .pt2 archive: {NEVER_UNPICKLED}") from error
        raise ModelFileError(
            f"{path}: damaged or truncated .pt2 archive ({error}); export it again"
        ) from error
    if "/archive_format" not in members:
        raise ModelFileError(f"{path} is no .pt2 archive: {NEVER_UNPICKLED}")
    if any(member.startswith(CODE_MEMBERS) for member in members):
        raise ModelFileError(f"{path} holds compiled code or pickled objects; export the plain model instead")
    try:
        with alone(), open(path, "rb") as file, _only_tensors_unpickled():
            return torch.export.load(file)
    except Exception as error:
        raise ModelFileError(
            f"{path}: torch.export.load failed: {_first_line(error)}; the file may be damaged, or written by "
            "another version of torch: export it again"
        ) from error


def _trace(model: nn.Module, example_inputs: Any, kwargs: Mapping[str, Any] | None) -> ExportedProgram:
    if not isinstance(model, nn.Module):
        raise InputError(
            f"expected a torch module, an ExportedProgram or the path of a .pt2 file, got {type(model)}"
        )
    if example_inputs is None and not kwargs:
        raise InputError(
            f"{type(model).__name__} needs example inputs to be traced: pass a tensor or a tuple of tensors"
        )
    return export_module(model, *call_of(example_inputs, kwargs))


def export_module(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExportedProgram:
    """What ``torch.export`` makes of a module.

    Raises:
        InputError: the module or these inputs cannot be taken.
        ExportError: it cannot trace the module.
    """
    check_module(model, args, kwargs)
    with (
        alone(),
        without_cache(model),
        _border(f"torch.export cannot trace {type(model).__name__}", lambda: cause_of(model, args, kwargs)),
    ):
        return torch.export.export(model, args, kwargs, strict=False)


@contextmanager
def _border(what: str, cause: Callable[[], str]) -> Iterator[None]:
    try:
        with quiet():
            yield
    except Exception as error:
        raise ExportError(f"{what}: {type(error).__name__}: {_first_line(error)}\nhint: {cause()}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _only_tensors_unpickled() -> Iterator[None]:
    # torch.export.load falls back to full unpickling; this variable forbids it.
    before = os.environ.get(FORCE_SAFE_LOAD)
    os.environ[FORCE_SAFE_LOAD] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[FORCE_SAFE_LOAD]
        else:
            os.environ[FORCE_SAFE_LOAD] = before
