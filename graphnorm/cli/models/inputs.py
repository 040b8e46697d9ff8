"""The command line's ``--input``: shapes such as ``1x3x224x224``, or files with real inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from graphnorm import ir
from graphnorm.errors import InputError

if TYPE_CHECKING:
    import torch

_SHAPE = re.compile(r"(?:(?P<name>.+):)?(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>[a-z]\w*))?")
_TYPES = ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
FORM = "expected [NAME:]SIZES[:TYPE] such as 1x3x224x224 or ids:1x128:int64, or a .npy or .npz file"


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape option; `name` and `dtype` are "" where not given."""

    name: str
    sizes: tuple[int, ...]
    dtype: str = ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """All ``--input`` options.

    Attributes:
        shapes: sizes, in the order given.
        arrays: real inputs by name; the array of an ``.npy`` file has the name "".
        files: the file that these were read from.
    """

    shapes: tuple[Shape, ...] = ()
    arrays: Mapping[str, ir.Array] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.shapes or self.arrays)

    def by_name(self, names: Sequence[str], source: str) -> dict[str, Any]:
        """Shapes (tuples) or arrays of an ONNX model by input name; one without a name needs a lone input.

        Raises:
            InputError: a name that the model doesn't have, no name where one is needed, or a type.
        """
        given: list[tuple[str, Any]] = [*self.arrays.items()] or [(s.name, s.sizes) for s in self.shapes]
        typed = next((shape for shape in self.shapes if shape.dtype), None)
        if typed is not None:
            raise InputError(f"--input …:{typed.dtype}: {source} states the type of its inputs; leave it out")
        found: dict[str, Any] = {}
        for name, item in given:
            if not name and len(names) != 1:
                raise InputError(
                    f"--input: {source} takes {len(names)} inputs, so each needs its name, "
                    f"as in {names[0] if names else 'x'}:1x3x224x224; they are {', '.join(names)}"
                )
            name = name or names[0]
            if name not in names:
                raise InputError(f"--input {name!r}: {source} has no such input; it takes {', '.join(names)}")
            found[name] = item
        return found

    def tensors(self, seed: int) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
        """Positional and keyword inputs of a torch module: random ones for shapes, arrays as they are.

        Arrays of an ``.npz`` file are positional, in the order of the file.
        """
        import torch

        from graphnorm.frontends.torch.tensors import to_tensor

        if self.arrays:
            return tuple(to_tensor(array) for array in self.arrays.values()), {}
        generator = torch.Generator().manual_seed(seed)
        args: list[torch.Tensor] = []
        kwargs: dict[str, torch.Tensor] = {}
        for shape in self.shapes:
            dtype: torch.dtype = getattr(torch, shape.dtype or "float32")
            if dtype.is_floating_point:
                tensor = torch.randn(shape.sizes, generator=generator).to(dtype)
            else:  # 0 and 1 are valid token ids, classes and masks everywhere
                tensor = torch.randint(0, 2, shape.sizes, generator=generator).to(dtype)
            if shape.name:
                kwargs[shape.name] = tensor
            else:
                args.append(tensor)
        return tuple(args), kwargs


def parse_inputs(options: Sequence[str]) -> Inputs:
    """Read all ``--input`` options.

    Raises:
        InputError: one is neither a shape nor a readable file, or shapes and files are mixed.
    """
    files = [option for option in options if Path(option).suffix in {".npy", ".npz"}]
    if not files:
        return Inputs(shapes=tuple(_parse_shape(option) for option in options))
    if len(options) > 1:
        raise InputError(f"--input {files[0]}: give one file with all inputs (.npz), and no shapes beside it")
    return Inputs(arrays=_load_arrays(Path(files[0])), files=(Path(files[0]),))


def _parse_shape(option: str) -> Shape:
    match = _SHAPE.fullmatch(option)
    if match is None:
        raise InputError(f"--input {option}: {FORM}")
    sizes = tuple(int(size) for size in match["shape"].split("x"))
    dtype = match["dtype"] or ""
    if 0 in sizes:
        raise InputError(f"--input {option}: every size must be at least 1")
    if dtype and dtype not in _TYPES:
        raise InputError(f"--input {option}: unknown type {dtype!r}; known are {', '.join(_TYPES)}")
    return Shape(match["name"] or "", sizes, dtype)


def _load_arrays(path: Path) -> dict[str, ir.Array]:
    if path.exists() and not path.is_file():
        raise InputError(f"--input {path}: is not a file; NumPy arrays are read from .npy and .npz files")
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded.items())
    except FileNotFoundError as error:
        raise InputError(f"--input {path}: no such file") from error
    except (OSError, ValueError, EOFError, MemoryError, BadZipFile) as error:
        raise InputError(f"--input {path}: cannot be read as NumPy arrays: {error}") from error
    if not arrays:
        raise InputError(f"--input {path}: the file holds no arrays")
    return arrays
