"""Intermediate representation: a network as a list of operator nodes over named tensors.

One vocabulary for every front end: ONNX operator names, ONNX operand order and attribute names
(domain ``ai.onnx``, semantics of the newest opset; operators of other domains are written
``domain::Name``).  Values are referred to by name; an absent optional operand is ``""``.
No framework object lives here: weights and constants are NumPy arrays (``ml_dtypes`` for bfloat16).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np

from graphnorm.errors import InputError, InvalidGraphError
from graphnorm.ops.attributes import BEFORE as BEFORE
from graphnorm.ops.attributes import completed, missing
from graphnorm.util.typing import Array as Array

FLOAT_TYPES = frozenset({"float16", "bfloat16", "float32", "float64"})


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor: its concrete example shape, and the axes whose size may differ at run time.

    ``shape`` is None when it cannot be known without running the network (such a value is pinned).
    ``dtype`` is a NumPy name: ``float32``, ``bfloat16``, ``int64``, ``bool``...
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: str
    dynamic: frozenset[int] = frozenset()

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOAT_TYPES


@dataclass(frozen=True, slots=True)
class Node:
    """One operator.  ``scope`` is the layer a user knows it by, ``source`` where it was written.

    ``attributes`` are complete: those that were left out are there, with their defaults (`ops.attributes`).
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    scope: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        present = sum(1 for name in self.inputs if name)
        whole = completed(self.op, self.attributes, present, len(self.outputs))
        object.__setattr__(self, "attributes", whole)

    @property
    def label(self) -> str:
        """How messages name this node: the layer's path where there is one."""
        return self.scope or self.name

    def text(self, attribute: str) -> str:
        """A string attribute; "" where it is absent and has no default."""
        return str(self.attributes.get(attribute, ""))


@dataclass(frozen=True, slots=True)
class Graph:
    """A network in topological order.

    ``weights`` are the tensors that may be rescaled: parameters and float buffers, by their name in the model
    file or state_dict.  ``constants`` are known values that may not change: literals, index tables, shapes
    (possibly broadcast views).  A value that is in neither, is no input and has no producer is an error.
    ``remarks`` are sentences for people: what was read differently from what was given. ``overridable`` are
    constants that would be weights if callers could not give them other values.

    Where sizes are open, ``symbols`` names them, axis by axis of an input ("" where fixed).  Constants whose
    value varies with the sizes are computed by ``sizing``, nodes that are no part of ``nodes``; ``uneven``
    is the first of these that does more than add, multiply and move (then equal values at some sizes say
    nothing about others), "" if none does.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    values: Mapping[str, Value]
    weights: Mapping[str, Array] = field(default_factory=dict)
    constants: Mapping[str, Array] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    overridable: frozenset[str] = frozenset()
    symbols: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sizing: tuple[Node, ...] = ()
    uneven: str = ""

    @property
    def is_open(self) -> bool:
        """Whether the size of some input may differ at run time."""
        return any(any(names) for names in self.symbols.values())

    def closed(self) -> Graph:
        """The network at the sizes that were traced, and at no other."""
        values = {name: replace(value, dynamic=frozenset()) for name, value in self.values.items()}
        return replace(self, values=values, symbols={}, sizing=(), uneven="")

    def alive(self) -> frozenset[str]:
        """Names of all values that some output depends on."""
        found = set(self.outputs)
        for node in reversed(self.nodes):
            if not found.isdisjoint(node.outputs):
                found.update(node.inputs)
        return frozenset(found)

    def producers(self) -> dict[str, Node]:
        """Value name -> the node that computes it."""
        return {out: node for node in self.nodes for out in node.outputs if out}

    def consumers(self) -> dict[str, list[Node]]:
        """Value name -> the nodes that read it."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name:
                    found.setdefault(name, []).append(node)
        return found

    def check_finite(self) -> None:
        """Refuse weights that hold NaN or infinities.

        Raises:
            InputError: the first such weight.
        """
        for name, array in self.weights.items():
            if (
                not np.isfinite(array.sum(dtype=np.float64))
                and not np.isfinite(array.astype(np.float64)).all()
            ):
                raise InputError(
                    f"weight {name!r} holds NaN or infinities: no rescaling of it is the same function"
                )

    def verify(self) -> None:
        """Check the invariants.

        1. every value has one definition: an input, a weight, a constant or one node output;
        2. nodes read only values that are defined before them (topological order, single static
           assignment), and so do the graph's outputs;
        3. every name has a `Value`, whose shape and dtype agree with its array if there is one;
        4. node names are unique and non-empty, and so are operators;
        5. every attribute that has a default is there.

        Raises:
            InvalidGraphError: the first invariant that is broken, with the node.
        """
        for problem in self._problems():
            raise InvalidGraphError(f"graph {self.name!r}: {problem}")

    def _problems(self) -> Iterator[str]:
        defined: set[str] = set()
        for kind, names in (
            ("input", self.inputs),
            ("weight", self.weights),
            ("constant", self.constants),
        ):
            for name in names:
                if name in defined:
                    yield f"{kind} {name!r} is defined twice"
                defined.add(name)
        seen: set[str] = set()
        for node in self.nodes:
            if not node.name or not node.op:
                yield f"node {node.name!r} has no name or no operator ({node.op!r})"
            if node.name in seen:
                yield f"two nodes are named {node.name!r}"
            seen.add(node.name)
            for name in sorted(missing(node.op, node.attributes)):
                yield f"node {node.name!r} ({node.op}) lacks attribute {name!r}"
            for name in node.inputs:
                if name and name not in defined:
                    yield f"node {node.name!r} ({node.op}) reads {name!r} before it is defined"
            for name in node.outputs:
                if name in defined:
                    yield f"node {node.name!r} ({node.op}) defines {name!r} a second time"
                if name:
                    defined.add(name)
        for name in self.outputs:
            if name not in defined:
                yield f"output {name!r} is never defined"
        for name in defined:
            if name not in self.values:
                yield f"value {name!r} has no type"
        for table in (self.weights, self.constants):
            for name, array in table.items():
                value = self.values[name]
                if value.shape != array.shape or value.dtype != array.dtype.name:
                    yield (
                        f"value {name!r} is declared {value.dtype}{value.shape}, "
                        f"its data is {array.dtype.name}{array.shape}"
                    )


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """Precision and range of a float type."""

    eps: float
    smallest_normal: float
    largest: float


def float_format(dtype: np.dtype[Any] | str) -> FloatFormat:
    """The format of a NumPy or ``ml_dtypes`` float type, or of the type of that name."""
    info: Any = ml_dtypes.finfo
    found = info(float_type(dtype) if isinstance(dtype, str) else dtype)
    return FloatFormat(float(found.eps), float(found.smallest_normal), float(found.max))


def float_type(name: str) -> np.dtype[Any]:
    """The NumPy type of that name, ``bfloat16`` included."""
    return np.dtype(getattr(ml_dtypes, name, name))


def shape_of(array: Array | np.generic) -> tuple[int, ...]:
    """The shape as plain Python integers."""
    return tuple(int(size) for size in array.shape)
