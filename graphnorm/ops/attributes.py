"""Attributes of operators, complete: what is left out has its default, what means nothing is at its default.

Two nodes that say the same then hold the same, and a reader finds an attribute without a default of its own.
`graphnorm.ir.Node` completes its attributes when it is made, for whatever front end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphnorm.ops.defaults import SCHEMAS

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    **SCHEMAS,
    # Operators of other domains, and those that ONNX has taken out.
    "Upsample": {"mode": "nearest"},
    "com.microsoft::GatherBlockQuantized": {"gather_axis": 0},
    "com.microsoft::RotaryEmbedding": {"interleaved": 0, "num_heads": 0, "rotary_embedding_dim": 0},
}
"""Operator -> the attributes that have a default, and that default."""

BEFORE = "before_opset"
"""Attribute of a node whose operator means something else from that opset on, in the same words."""
FORMER = frozenset({"consumed_inputs", "is_test", "spatial"})
"""Attributes of old opsets; `spatial` is kept where it is 0, as that is another function."""

_GATES = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_RENAMED = {("GridSample", "bilinear"): "linear", ("GridSample", "bicubic"): "cubic"}

Ignored = Callable[[Mapping[str, Any], int, int], bool]
_IGNORED: Mapping[tuple[str, str], Ignored] = {
    ("Resize", "cubic_coeff_a"): lambda given, operands, results: given["mode"] != "cubic",
    ("Resize", "nearest_mode"): lambda given, operands, results: given["mode"] != "nearest",
    ("Resize", "extrapolation_value"): lambda given, operands, results: (
        given["coordinate_transformation_mode"] != "tf_crop_and_resize"
    ),
    ("BatchNormalization", "momentum"): lambda given, operands, results: (
        not given["training_mode"] and BEFORE not in given
    ),
    ("MaxPool", "storage_order"): lambda given, operands, results: results < 2,
    ("Gemm", "beta"): lambda given, operands, results: operands < 3,
    ("Attention", "qk_matmul_output_mode"): lambda given, operands, results: results < 4,
}
"""(operator, attribute) -> whether the node does not read it, from its attributes, numbers of operands and
results; it is then at its default."""


def completed(operator: str, given: Mapping[str, Any], operands: int, results: int) -> dict[str, Any]:
    """The attributes of a node, complete.

    Args:
        operator: its name in the vocabulary.
        given: attributes as a file or a lowering has them.
        operands: number of operands that are there.
        results: number of results that are named.

    >>> completed("Softmax", {}, 1, 1)
    {'axis': -1}
    >>> completed("Gemm", {"transB": 1, "beta": 2.0}, 2, 1)["beta"]
    1.0
    """
    defaults = DEFAULTS.get(operator, {})
    found = {
        **defaults,
        **{name: _plain(value) for name, value in given.items() if not _is_former(name, value)},
    }
    if operator in _GATES:
        found["activations"] = _activations(operator, found)
    for name, value in found.items():
        if isinstance(value, str):
            found[name] = _RENAMED.get((operator, value), value)
        ignored = _IGNORED.get((operator, name))
        if ignored is not None and ignored(found, operands, results):
            found[name] = defaults[name]
    if found.get("auto_pad") == "VALID":
        found["auto_pad"] = "NOTSET"  # no padding, which is what is left out there
        found.pop("pads", None)
    elif found.get("auto_pad", "NOTSET") != "NOTSET":
        found.pop("pads", None)
    return found


def missing(operator: str, attributes: Mapping[str, Any]) -> set[str]:
    """Attributes with a default that a node does not hold."""
    return DEFAULTS.get(operator, {}).keys() - attributes.keys()


def _is_former(name: str, value: Any) -> bool:
    return name in FORMER and not (name == "spatial" and not value)


def _plain(value: Any) -> Any:
    """Text for the bytes of ONNX files."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, tuple | list) and any(isinstance(item, bytes) for item in value):
        return tuple(map(_plain, value))
    return value


def _activations(operator: str, attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """One set of gates per direction; the schema's default of RNN holds two, whatever the direction."""
    gates = _GATES[operator]
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    given = tuple(attributes.get("activations") or gates * directions)
    return given[: len(gates) * directions]
