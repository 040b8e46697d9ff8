"""What is known about the values of an ONNX graph at one choice of input sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx

from graphnorm.frontends.onnx.steps import Step
from graphnorm.frontends.onnx.tensors import Tensors
from graphnorm.ir import Array


@dataclass(frozen=True, slots=True)
class Rewriting:
    """The nodes that replace a node.

    Attributes:
        steps: nodes that compute its tensors from elements of sequences, or the elements of its sequence.
        elements: names of the elements where the node's result is a sequence, else None.
    """

    steps: tuple[Step, ...] = ()
    elements: tuple[str, ...] | None = None

    def is_like(self, other: Rewriting | None) -> bool:
        """Whether both say the same."""
        if other is None or self.elements != other.elements:
            return False
        return [step.proto for step in self.steps] == [step.proto for step in other.steps]


@dataclass
class Evaluation:
    """What is known about each value at one choice of input sizes.

    `counts` says how often a loop runs whose trip count is not known, `uncounted` are the loops for
    which that was asked.  `broken` are nodes, by their first result, that no operator of theirs allows at
    these sizes, and why.  `rewritings` of nodes on sequences are kept under the name of their result.
    """

    types: dict[str, onnx.TypeProto]
    known: dict[str, Array]
    tainted: set[str]
    counts: Mapping[str, int] = field(default_factory=dict)
    uncounted: set[str] = field(default_factory=set)
    rewritings: dict[str, Rewriting] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    broken: dict[str, tuple[Step, str]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    def shape(self, name: str) -> tuple[int, ...] | None:
        return static_shape(self.types[name]) if name in self.types else None

    def is_constant(self, name: str) -> bool:
        return name in self.known and name not in self.tainted

    def copy(self) -> Evaluation:
        known = dict(self.types), dict(self.known), set(self.tainted)
        return Evaluation(*known, self.counts, self.uncounted, dict(self.rewritings))

    def adopt(self, later: Evaluation) -> None:
        """Merge what a copy has found since."""
        self.types, self.known, self.tainted = later.types, later.known, later.tainted
        self.rewritings = later.rewritings
        self.failures += later.failures
        self.broken |= later.broken
        self.empty += later.empty

    def add_tensors(self, tensors: Tensors) -> None:
        """The weights and constants of a body that is entered."""
        self.types |= tensors.types
        self.known |= tensors.known
        self.tainted |= set(tensors.weights)


def static_shape(type_proto: onnx.TypeProto) -> tuple[int, ...] | None:
    """The shape when every dimension is known."""
    if not type_proto.HasField("tensor_type") or not type_proto.tensor_type.HasField("shape"):
        return None
    dims = type_proto.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") for dim in dims):
        return None
    return tuple(dim.dim_value for dim in dims)
