"""The certificate file: ``NAME.json`` with hashes and claims, ``NAME.safetensors`` with the vectors.

The vectors are the log-scale of each label of A's rescaling graph (``log_scales``, natural logarithms) and,
where hidden channels were permuted, which old channel stands at each new place (``permutation.FACTOR``).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from graphnorm import ir
from graphnorm.errors import InputError
from graphnorm.util.atomic import replacing

FORMAT, VERSION = "graphnorm certificate", 1
_PERMUTATION = "permutation."
_FACTOR = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class Claims:
    """What a certificate says.

    Attributes:
        a_graph: hash of the original's structure; B's must be the same but for its weights.
        a_weights: hash of its weights.
        b_graph: hash of the other network's structure.
        b_weights: hash of its weights.
        exact: whether coefficients are powers of two.
        p: exponent of the norm.
        c: asymmetry of ENorm-c.
        before: objective of A's weights.
        after: objective of B's weights.
        gap: bound on how far `after` is above the minimum, if it was computed.
        vectors: hash of the vectors' file.
        biases: whether they count in the objective; a file may leave it out.
    """

    a_graph: str
    a_weights: str
    b_graph: str
    b_weights: str
    exact: bool
    p: float
    c: float
    before: float
    after: float
    gap: float | None
    vectors: str
    biases: bool = False


@dataclass(frozen=True)
class CertificateFile:
    """Claims and vectors."""

    claims: Claims
    log_scales: ir.Array
    permutation: Mapping[int, ir.Array]


def vectors_path(path: Path) -> Path:
    """Where the vectors of a certificate are."""
    return path.with_suffix(".safetensors")


def pack(log_scales: ir.Array, permutation: Mapping[int, ir.Array]) -> bytes:
    """The vectors' file."""
    from safetensors.numpy import save

    arrays = {"log_scales": np.ascontiguousarray(log_scales, dtype=np.float64)}
    for factor, order in permutation.items():
        arrays[f"{_PERMUTATION}{factor}"] = np.ascontiguousarray(order, dtype=np.int64)
    return bytes(save(arrays))


def write(path: Path, claims: Claims, vectors: bytes) -> None:
    """Write both files, each atomically, the vectors first."""
    text = json.dumps({"format": FORMAT, "version": VERSION, **asdict(claims)}, indent=2) + "\n"
    for target, data in ((vectors_path(path), vectors), (path, text.encode())):
        with replacing(target) as temporary:
            temporary.write_bytes(data)


def read(path: Path) -> CertificateFile:
    """Read both files; nothing in them is trusted yet.

    Raises:
        InputError: a file is missing, damaged, or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        data = vectors_path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename}: no such file; a certificate is a .json and a .safetensors file"
        ) from error
    except RecursionError as error:
        raise InputError(f"{path}: no certificate: its JSON is nested too deep") from error
    except ValueError as error:  # no text, no JSON, or a number of thousands of digits
        raise InputError(f"{path}: no JSON: {error}") from error
    claims = _claims(path, held)
    if hashlib.sha256(data).hexdigest() != claims.vectors:
        raise InputError(f"{vectors_path(path)}: is not the file that {path.name} was written with (hash)")
    try:
        arrays: dict[str, ir.Array] = load(data)
    except SafetensorError as error:
        raise InputError(f"{vectors_path(path)}: damaged or no safetensors file ({error})") from error
    scales = arrays.get("log_scales")
    if scales is None or scales.dtype != np.float64 or scales.ndim != 1:
        raise InputError(f"{vectors_path(path)}: holds no float64 vector log_scales")
    return CertificateFile(claims, scales, _permutation(vectors_path(path), arrays))


def _claims(path: Path, held: Any) -> Claims:
    version = held.get("version") if isinstance(held, dict) else None
    if (
        not isinstance(held, dict)
        or held.get("format") != FORMAT
        or type(version) is not int
        or version != VERSION
    ):
        raise InputError(f"{path}: is no {FORMAT} of version {VERSION}")
    names = [field.name for field in fields(Claims)]
    held = {"biases": False, **held}
    missing = [name for name in names if name not in held]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}")
    for name in names:
        is_right, what = _EXPECTED.get(name, (_is_text, "a text"))
        if not is_right(held[name]):
            raise InputError(f"{path}: {name} is {reprlib.repr(held[name])}, and should be {what}")
    values: dict[str, Any] = {name: held[name] for name in names}
    values.update((name, float(value)) for name, value in values.items() if type(value) is int)
    return Claims(**values)


def _is_number(value: Any, least: float = 0.0) -> bool:
    """Whether it is one that a float can hold, and at least that."""
    fits = type(value) is float or (type(value) is int and abs(value) < 1 << 1000)
    return fits and bool(value >= least)


def _is_text(value: Any) -> bool:
    return type(value) is str


_LEAST = float(np.finfo(np.float64).smallest_normal)
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "exact": (lambda value: type(value) is bool, "true or false"),
    "biases": (lambda value: type(value) is bool, "true or false"),
    "p": (lambda value: _is_number(value, _LEAST), "a number above 0"),
    "c": (lambda value: _is_number(value, _LEAST) and value < math.inf, "a finite number above 0"),
    "before": (lambda value: _is_number(value) and value < math.inf, "a finite number, at least 0"),
    "after": (lambda value: _is_number(value) and value < math.inf, "a finite number, at least 0"),
    "gap": (lambda value: value is None or _is_number(value), "a number, at least 0, or null"),
}


def _permutation(path: Path, arrays: Mapping[str, ir.Array]) -> dict[int, ir.Array]:
    found: dict[int, ir.Array] = {}
    for name, array in arrays.items():
        if name == "log_scales":
            continue
        number = name.removeprefix(_PERMUTATION)
        if not name.startswith(_PERMUTATION) or not _FACTOR.fullmatch(number) or array.dtype != np.int64:
            raise InputError(f"{path}: unknown vector {reprlib.repr(name)}")
        if array.ndim != 1 or not np.array_equal(np.sort(array), np.arange(len(array))):
            raise InputError(f"{path}: {name} is not a permutation")
        found[int(number)] = array
    return found
