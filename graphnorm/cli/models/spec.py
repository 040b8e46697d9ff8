"""The command line's MODEL argument: a file, or a torch module by name.

A MODEL is the path of an ``.onnx`` or ``.pt2`` file, ``timm:NAME``, ``torchvision:NAME``, or
``module.path:callable``; the last three take weights from a ``.safetensors`` file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphnorm.cli.models.inputs import Inputs
from graphnorm.errors import InputError

if TYPE_CHECKING:
    from torch import nn

_NAMED = re.compile(r"(?P<home>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_0-9][\w.\-]*)")
TORCH_FILES = frozenset({".pt2", ".pt", ".pth", ".bin", ".ckpt", ".pkl"})  # all but .pt2 are refused
FORMS = "an .onnx or .pt2 file, timm:NAME, torchvision:NAME, or module.path:callable"


@dataclass(frozen=True)
class Opened:
    """What `graphnorm.canonicalize`, `trace` and `check` take, made from a MODEL argument.

    Attributes:
        model: path, module or ONNX model.
        kind: ``onnx`` or ``torch``.
        files: the files that it was read from, which no output may replace.
        example_inputs: inputs, or None.
        kwargs: keyword inputs of a torch module.
        input_shapes: ONNX: sizes by input name.
        weights: where the weights are from, for people.
    """

    model: Any
    kind: str
    files: tuple[Path, ...] = ()
    example_inputs: Any = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    input_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    weights: str = ""

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the Python interface."""
        return {
            "example_inputs": self.example_inputs,
            "kwargs": self.kwargs or None,
            "input_shapes": self.input_shapes or None,
        }


@dataclass(frozen=True, slots=True)
class Spec:
    """A parsed MODEL argument: a file, or ``home:name``."""

    text: str
    path: Path | None
    home: str = ""
    name: str = ""

    @property
    def kind(self) -> str:
        """``onnx`` or ``torch``."""
        return "onnx" if self.path is not None and self.path.suffix not in TORCH_FILES else "torch"


def parse_model(text: str) -> Spec:
    """Tell files from names.

    Raises:
        InputError: it is neither.
    """
    path = Path(text)
    if path.suffix in TORCH_FILES or path.suffix == ".onnx" or path.exists():
        if not path.exists():
            raise InputError(f"{text}: no such file; MODEL is {FORMS}")
        return Spec(text, path)
    match = _NAMED.fullmatch(text)
    if match is None:
        raise InputError(f"{text}: no such file, and no name of a model; MODEL is {FORMS}")
    return Spec(text, None, match["home"], match["name"])


def open_spec(
    spec: Spec, inputs: Inputs, weights: Path | None = None, seed: int = 0, train: bool = False
) -> Opened:
    """Build or name the model, with inputs to trace and run it.

    Args:
        spec: the MODEL argument.
        inputs: the ``--input`` options.
        weights: a ``.safetensors`` file for a module by name.
        seed: of random weights and random inputs.
        train: leave a module by name in training mode.

    Raises:
        InputError: the model, its weights or its inputs cannot be taken.
    """
    if spec.path is not None:
        if weights is not None:
            raise InputError(f"--weights {weights}: {spec.text} holds its own weights; leave the option out")
        if train:
            raise InputError(f"--train: the mode of {spec.text} is fixed; the option is for modules by name")
        return _open_file(spec.path, spec.kind, inputs, seed)
    from graphnorm.cli.models.zoo import build_module

    built = build_module(spec.home, spec.name, seed)
    files, origin = inputs.files, built.weights
    if weights is not None:
        load_weights(built.module, weights)
        files, origin = (weights, *files), str(weights)
    built.module.train(train)
    args, kwargs = _torch_inputs(spec, inputs, built.example, seed)
    return Opened(built.module, "torch", files, args, kwargs, weights=origin)


def _open_file(path: Path, kind: str, inputs: Inputs, seed: int) -> Opened:
    files = (path, *inputs.files)
    if kind == "torch":
        args, kwargs = inputs.tensors(seed) if inputs else (None, {})
        return Opened(path, "torch", files, args, kwargs)
    try:
        from graphnorm.frontends.onnx.external import external_of
        from graphnorm.frontends.onnx.load import load_model
    except ImportError as error:
        raise InputError(f"{path} needs onnx: pip install 'graphnorm[onnx]'") from error
    model = load_model(path)
    files += external_of(model).files
    if not inputs:
        return Opened(model, "onnx", files)
    names = [value.name or "" for value in model.graph.inputs if value.name not in model.graph.initializers]
    found = inputs.by_name(names, str(path))
    if inputs.arrays:
        return Opened(model, "onnx", files, example_inputs=found)
    return Opened(model, "onnx", files, input_shapes=found)


def _torch_inputs(spec: Spec, inputs: Inputs, example: Any, seed: int) -> tuple[Any, dict[str, Any]]:
    if inputs:
        return inputs.tensors(seed)
    if isinstance(example, Inputs):
        return example.tensors(seed)
    if example is None:
        raise InputError(
            f"{spec.text}: its inputs are not known; give --input 1x3x224x224 (one for each), or define "
            f"example_inputs (a tensor or a tuple of tensors) in {spec.home}"
        )
    return (tuple(example) if isinstance(example, list | tuple) else (example,)), {}


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a ``.safetensors`` file, which must hold exactly the module's tensors.

    Raises:
        InputError: the file cannot be read, or names or shapes differ.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    if path.suffix != ".safetensors":
        raise InputError(
            f"--weights {path}: only .safetensors files are read (unpickling runs code, so graphnorm never "
            "does); convert with safetensors.torch.save_model(module, 'weights.safetensors')"
        )
    if not path.is_file():
        raise InputError(f"--weights {path}: no such file")
    try:
        missing, unexpected = load_model(module, path, strict=False)
    except SafetensorError as error:
        raise InputError(f"--weights {path}: damaged or no safetensors file ({error})") from error
    except RuntimeError as error:  # sizes that differ
        lines = [line.strip() for line in str(error).splitlines()]
        raise InputError(f"--weights {path}: {' '.join(lines[1:3]) or lines[0]}") from error
    own = module.state_dict()
    # Files that store tied tensors under each of their names are fine.
    problems = [("lacks", sorted(missing)), ("has unexpected", sorted(set(unexpected) - own.keys()))]
    told = [f"{what} {_few(names)}" for what, names in problems if names]
    if told:
        raise InputError(f"--weights {path} {' and '.join(told)}; it must hold exactly the model's tensors")


def _few(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def shared_inputs(first: Opened, second: Opened) -> dict[str, Any]:
    """Arguments of `graphnorm.check`: a torch module's tensors also feed an ONNX model."""
    both = sorted((first, second), key=lambda opened: opened.kind != "torch")
    example = next((opened.example_inputs for opened in both if opened.example_inputs is not None), None)
    kwargs = next((opened.kwargs for opened in both if opened.kwargs), None)
    shapes = {**second.input_shapes, **first.input_shapes}
    return {"example_inputs": example, "kwargs": kwargs, "input_shapes": shapes or None}
