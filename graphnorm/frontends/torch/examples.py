"""Example inputs of torch modules: unsupported inputs are refused with a message that says what to do.

If an export fails, the cause is searched for: a call that ``forward`` does not take, tensors of a kind that
``torch.export`` does not know, or a module that itself fails on these inputs.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_flatten_with_path

from graphnorm.errors import InputError
from graphnorm.frontends.torch.places import place
from graphnorm.frontends.torch.state import quiet
from graphnorm.util.defects import DEFECTS

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
GENERAL = (
    "control flow that depends on tensor values cannot be exported; export it yourself (strict=True, dynamic "
    "shapes, or its backbone) and pass the ExportedProgram"
)
IN_PLACE = (
    "torch cannot write this program without operators that write in place: use those that return new "
    "tensors (y = x + 1 for x += 1), or canonicalize a part of the model"
)


def call_of(example_inputs: Any, kwargs: Mapping[str, Any] | None) -> tuple[Args, Kwargs]:
    """Positional and keyword inputs of a call; a lone tensor stands for ``(tensor,)``.

    Raises:
        InputError: they are no tuple and dictionary of what torch modules take.
    """
    if isinstance(example_inputs, Mapping):
        names = ", ".join(map(str, example_inputs))
        raise InputError(
            f"example inputs are a dictionary ({names}): pass keyword inputs as kwargs={{...}}, and one "
            "argument that is a dictionary as (inputs,)"
        )
    if isinstance(example_inputs, (Tensor, np.ndarray)):
        example_inputs = (example_inputs,)
    if not isinstance(example_inputs, (tuple, list, type(None))):
        raise InputError(
            f"example inputs are of type {type(example_inputs).__name__}: pass a tensor, or a tuple of the "
            "positional inputs"
        )
    call = tuple(example_inputs or ()), dict(kwargs or {})
    for name, leaf in _leaves(*call):
        if isinstance(leaf, np.ndarray):
            raise InputError(f"{name} is a NumPy array: torch modules take tensors, torch.from_numpy(array)")
        kind = _unusual(leaf) if isinstance(leaf, Tensor) else ""
        if kind:
            raise InputError(
                f"{name} is a {kind} tensor, which graphnorm cannot trace with: give a dense one on a device "
                "(x.to_dense(), x.dequantize()), or canonicalize the part of the model behind it"
            )
    return call


def _leaves(args: Args, kwargs: Kwargs) -> Iterator[tuple[str, Any]]:
    """Every input with its name in messages."""
    for index, argument in enumerate(args):
        yield from _named(f"example input {index}", argument)
    for key, argument in kwargs.items():
        yield from _named(f"example input {key!r}", argument)


def _named(name: str, argument: Any) -> Iterator[tuple[str, Any]]:
    for path, leaf in tree_flatten_with_path(argument)[0]:
        yield name + "".join(map(str, path)), leaf


def _unusual(tensor: Tensor) -> str:
    if tensor.is_nested:
        return "nested"
    if tensor.is_quantized:
        return "quantized"
    if tensor.layout != torch.strided:
        kind = str(tensor.layout).removeprefix("torch.")
        return kind if "sparse" not in kind else f"sparse ({kind.removeprefix('sparse_')})"
    return ""


def check_module(model: nn.Module, args: Args, kwargs: Kwargs) -> None:
    """Refuse modules that ``torch.export`` would damage or cannot represent, and calls with other arguments.

    Raises:
        InputError: weights without a shape, weights made in inference mode, missing or surplus arguments.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise InputError(
                f"{name!r} of {type(model).__name__} has no shape yet: it is a lazy module, run it once on "
                "the example inputs first"
            )
        if tensor.is_inference():
            raise InputError(
                f"{name!r} of {type(model).__name__} was made in torch.inference_mode(), and torch.export "
                "takes no such tensor: make or load the model outside of it, or use torch.no_grad()"
            )
    for name, leaf in _leaves(args, kwargs):
        if isinstance(leaf, Tensor) and leaf.is_inference():
            raise InputError(f"{name} was made in torch.inference_mode(): make it outside, or pass x.clone()")
    try:
        signature = inspect.signature(model.forward)
        signature.bind(*args, **kwargs)
    except ValueError:
        return  # no signature available
    except TypeError as error:
        raise InputError(
            f"the forward of {type(model).__name__} takes {signature}: {error}; pass all positional inputs "
            "as a tuple and the others as kwargs={...}"
        ) from error


def cause_of(model: nn.Module, args: Args, kwargs: Kwargs) -> str:
    """Why an export failed, and what to do."""
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            what = f"{path!r}" if path else "the model"
            return f"{what} is TorchScript, which cannot be exported: give the module that it was made from"
    said = _eager_failure(model, args, kwargs)
    if not said:
        if "use_cache" in kwargs or "past_key_values" in kwargs:
            return (
                f"a cache of keys and values cannot be exported as a result: pass use_cache=False; {GENERAL}"
            )
        return GENERAL
    types = ", ".join(_types(args, kwargs)) or "no tensors"
    if re.search(r"\btypes?\b|dtype", said, re.IGNORECASE):
        kinds = {str(p.dtype).removeprefix("torch.") for p in model.parameters()}
        return (
            f"the module itself fails on these inputs, as types do not fit ({said}): the inputs are {types}, "
            f"the weights {', '.join(sorted(kinds)) or 'none'}; convert the inputs or the model"
        )
    if re.search(r"\dD\b|shape|size|dim|channel|length|expand|broadcast|divisible", said, re.IGNORECASE):
        return (
            f"the module itself fails on these inputs, as shapes do not fit ({said}): the inputs are "
            f"{types}; give inputs of shapes that the model takes"
        )
    return f"the module itself fails on these inputs ({said}): {types}; give inputs that the model takes"


def _eager_failure(model: nn.Module, args: Args, kwargs: Kwargs) -> str:
    """What a copy of the module raises when it is called, and where; empty if it runs."""
    try:
        with torch.no_grad(), quiet():
            copied = copy.deepcopy(model)
    except DEFECTS:  # some modules cannot be copied
        return ""
    try:
        with torch.no_grad(), quiet():
            copied(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  the module's own code may raise anything
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"{place(copied, error)}: {text}"
    return ""


def _types(args: Args, kwargs: Kwargs) -> list[str]:
    found = [leaf for _, leaf in _leaves(args, kwargs) if isinstance(leaf, Tensor)]
    return [f"{str(x.dtype).removeprefix('torch.')}{tuple(x.shape)}" for x in found]
