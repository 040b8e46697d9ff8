"""Operators that work on each row alone, on operands of shape ``[rows.., n]`` and ``[experts, rows.., n]``.

A handler says how the operator looks if its routed operands get a leading axis of experts; None where it
would mix rows, or is not known not to.  Operands that are not routed keep their shape: they broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphnorm.ir import Array, Node
from graphnorm.ops.rules import Rules
from graphnorm.ops.table import having
from graphnorm.ops.traits import NONE, Trait
from graphnorm.util.typing import Shape

JOINT = having(Trait.POINTWISE, without=Trait.UNARY | Trait.SATURATES | Trait.COPIES) - {"Clip"}
"""Operators that may have several routed operands."""


@dataclass(frozen=True, slots=True)
class View:
    """A node and its operands: shapes (of routed ones with experts and rows), and data where it is known.

    ``lead`` are the sizes of experts and rows of the routed operands; a size of 1 broadcasts.
    ``shapes`` are None for absent operands.  ``results`` are the shapes of the results as they are.
    """

    node: Node
    lead: Shape
    shapes: Sequence[Shape | None]
    routed: Sequence[bool]
    data: Sequence[Array | None]
    results: Sequence[Shape]

    @property
    def rank(self) -> int:
        """Of the first operand, which is routed, as it is."""
        return len(self.shapes[0] or ()) - 1

    def integers(self, attribute: str, index: int) -> list[int] | None:
        """An argument that is an attribute or a known operand."""
        given = self.node.attributes.get(attribute)
        if given is None and index < len(self.data):
            given = self.data[index]
        return None if given is None else [int(entry) for entry in np.ravel(given)]

    def behind(self, axes: Sequence[int], rank: int) -> list[int] | None:
        """Axes of the node's operand as axes of the dense one, if all lie behind the rows."""
        places = [axis % rank for axis in axes]
        return [axis + 1 for axis in places] if all(a >= len(self.lead) - 1 for a in places) else None


@dataclass(frozen=True, slots=True)
class Dense:
    """The same operator for all experts: shapes of its results, and what changes of its arguments."""

    shapes: Sequence[Shape]
    attributes: Mapping[str, Any]
    arguments: Mapping[int, Sequence[int]] = field(default_factory=dict)


def elementwise(view: View) -> Dense | None:
    shapes = [shape for shape in view.shapes if shape is not None]
    rank = 1 + len(view.results[0])
    if any(len(shape) != rank if routed else len(shape) >= rank for shape, routed in _present(view)):
        return None
    return Dense([np.broadcast_shapes(*shapes)] * len(view.results), view.node.attributes)


def bounded(view: View) -> Dense | None:
    """A bound that might become a weight keeps its place: only 0 and infinity are moved."""
    for index, (data, routed) in enumerate(zip(view.data, view.routed, strict=True)):
        number = data is not None and bool(((data != 0) & np.isfinite(data.astype(np.float64))).any())
        computed = view.node.op == "Clip" and index > 0 and data is None and view.shapes[index] is not None
        if number or computed or (routed and view.node.op == "Clip" and index > 0):
            return None
    return elementwise(view)


def product(view: View) -> Dense | None:
    """One matrix product for each row: rows and experts are batches."""
    rank = 1 + len(view.results[0])
    if rank < len(view.lead) + 2:
        return None
    if any(len(shape) != rank if routed else not 2 <= len(shape) < rank for shape, routed in _present(view)):
        return None
    first, second = (shape for shape, _ in _present(view))
    batch = np.broadcast_shapes(first[:-2], second[:-2])
    return Dense([(*batch, first[-2], second[-1])], view.node.attributes)


def reaxed(view: View) -> Dense | None:
    """Axes of size 1 inserted (indices of the result) or removed (indices of the operand)."""
    axes = view.integers("axes", 1)
    rank = len(view.results[0]) if view.node.op == "Unsqueeze" else view.rank
    places = None if axes is None else view.behind(axes, rank)
    return None if places is None else _moved(view, "axes", {1: places})


def transposed(view: View) -> Dense | None:
    perm = view.node.attributes.get("perm")
    rows = len(view.lead) - 1
    if perm is None or [int(axis) for axis in perm[:rows]] != list(range(rows)):
        return None
    attributes = {**view.node.attributes, "perm": [0, *(int(axis) + 1 for axis in perm)]}
    return Dense(_behind_rows(view), attributes)


def along(view: View) -> Dense | None:
    """Split, Concat and Gather with known places, along an axis behind the rows."""
    if view.node.op == "Gather" and view.data[1] is None:
        return None
    operands = len(view.routed) if view.node.op == "Concat" else 1
    if not all(view.routed[:operands]) or any(view.routed[operands:]):
        return None
    axis = view.behind([int(view.node.attributes["axis"])], view.rank)
    return None if axis is None else Dense(_behind_rows(view), {**view.node.attributes, "axis": axis[0]})


def sliced(view: View) -> Dense | None:
    axes = view.integers("axes", 3)
    places = None if axes is None else view.behind(axes, view.rank)
    return None if places is None else _moved(view, "axes", {3: places})


def reduced(view: View) -> Dense | None:
    axes = view.integers("axes", 1)
    places = view.behind(axes, view.rank) if axes else None  # without axes all may be meant
    return None if places is None else _moved(view, "axes", {1: places})


def reshaped(view: View) -> Dense | None:
    shape = _behind_rows(view)[0]
    if math.prod(shape) != math.prod(view.shapes[0] or ()):
        return None
    return _moved(view, "shape", {1: shape})


def _present(view: View) -> list[tuple[Shape, bool]]:
    return [(s, r) for s, r in zip(view.shapes, view.routed, strict=True) if s is not None]


def _behind_rows(view: View) -> list[Shape]:
    return [(*view.lead, *shape[len(view.lead) - 1 :]) for shape in view.results]


def _moved(view: View, attribute: str, arguments: Mapping[int, Sequence[int]]) -> Dense | None:
    if not view.routed[0] or any(view.routed[1:]):
        return None
    attributes = {name: value for name, value in view.node.attributes.items() if name != attribute}
    return Dense(_behind_rows(view), attributes, arguments)


HANDLERS: Rules[Callable[[View], Dense | None]] = Rules("routed rows")
HANDLERS.for_trait(Trait.POINTWISE, elementwise)
HANDLERS.add(bounded, "Clip", "Max", "Min")
HANDLERS.add(reaxed, "Unsqueeze", "Squeeze")
HANDLERS.for_trait(Trait.REDUCES | Trait.HOMOGENEOUS, reduced)
HANDLERS.add(reduced, "ReduceSumSquare")
HANDLERS.add(along, "Split", "Concat", "Gather")
HANDLERS.add(product, "MatMul")
HANDLERS.add(transposed, "Transpose")
HANDLERS.add(sliced, "Slice")
HANDLERS.add(reshaped, "Reshape")
HANDLERS.explain({
    NONE: "rows are chosen before it: it may mix them, or is not known not to",
    Trait.REDUCES | Trait.HOMOGENEOUS | Trait.CHANNELS_FIRST: "pools expect batch and channels first",
    "Dropout": "draws numbers for each row",
    "CastLike": "reads another operand's type",
})  # fmt: skip
