"""What a rule may ask about a node's operands, and what it may state about scales.

Every value is one of three kinds: *data* (depends on the network's inputs; it carries labels), a
*weight expression* (depends on weights only; its consumer demands a scale, see `backward`), or a
*constant* (carries no freedom).  `walk` calls the rules, in the order of the graph.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from graphnorm.ir import Array, Graph, Node, Value
from graphnorm.ops.rules import Rules
from graphnorm.scales.constraints import Constraints, Term
from graphnorm.scales.demands import Demand, Role
from graphnorm.scales.labels import ENTRY_LIMIT, FREE, PINNED, Labels, align, pinned, size
from graphnorm.scales.scale_array import ScaleArray
from graphnorm.util.defects import DEFECTS, defect


class Context(ABC):
    """What is known when a rule runs, and the vocabulary in which rules are written."""

    def __init__(self, graph: Graph, moves: Rules[Move], lasting: Collection[str] | None = None) -> None:
        self.graph = graph
        self.moves = moves
        self.lasting = graph.weights if lasting is None else lasting
        self.constraints = Constraints()
        self.demands: list[Demand] = []
        self.producers = graph.producers()
        self.node = -1
        self.reason = ""
        self.touched: set[str] = set()  # operands that the current rule has read
        self.found: dict[str, Labels] = {}  # of data
        self.made_of_weights = set(graph.weights)
        self.constant_names = set(graph.constants)
        self.own: list[tuple[Labels, range]] = []  # labels of entries, and the demands that they are in

    # What rules may ask.

    def value(self, name: str) -> Value:
        return self.graph.values[name]

    def shape(self, name: str) -> tuple[int, ...]:
        shape = self.value(name).shape
        assert shape is not None  # _visit pins nodes with unknown shapes
        return shape

    def rank(self, name: str) -> int:
        return len(self.shape(name))

    def is_data(self, name: str) -> bool:
        return name in self.found

    def is_weight(self, name: str) -> bool:
        return name in self.made_of_weights and name not in self.found

    def depends_on_weights(self, name: str) -> bool:
        """Whether a value is made of weights only, opened (see `forward`) or not."""
        return name in self.made_of_weights

    def is_constant(self, name: str) -> bool:
        return name in self.constant_names

    def constant(self, name: str) -> Array | None:
        """The data of a constant, where it is known."""
        return self.graph.constants.get(name)

    def held(self, name: str) -> Array | None:
        """The data of a constant, or of a weight that is only moved; the weight is pinned from now on."""
        data, maker = self.constant(name), self.producers.get(name)
        if data is not None or not self.is_weight(name):
            return data
        if name in self.graph.weights:
            if name not in self.lasting:
                return None
            self.pin_value(name, "its value is used")
            return self.graph.weights[name]
        if maker is None or maker.op not in self.moves or (source := self.held(maker.inputs[0])) is None:
            return None
        found = self.moved(maker, ScaleArray.whole(source))
        self.touched.add(name)
        return None if found is None else found[maker.outputs.index(name)].entries()

    def operand(self, node: Node, index: int) -> str:
        """The name of operand `index`, or "" where it is absent."""
        return node.inputs[index] if index < len(node.inputs) else ""

    def static(self, node: Node, attribute: str, index: int | None = None) -> Array | None:
        """An argument that some opsets give as an attribute and others as a constant operand."""
        if attribute in node.attributes:
            return np.asarray(node.attributes[attribute])
        name = self.operand(node, index) if index is not None else ""
        return self.constant(name) if name and not self.value(name).dynamic else None

    def is_dynamic_argument(self, node: Node, index: int) -> bool:
        """Whether operand `index` is present but not known, or known for the example size only."""
        name = self.operand(node, index)
        return bool(name) and (self.constant(name) is None or bool(self.value(name).dynamic))

    def labels(self, name: str, role: Role = Role.BIAS) -> Labels:
        """Labels of an operand of any kind; a weight gets labels of its own, one per entry, and that role."""
        self.touched.add(name)
        if name in self.found:
            return self.found[name]
        if not self.is_weight(name):
            return self._constant_labels(name)
        shape, maker = self.shape(name), self.producers.get(name)
        if maker is not None and maker.op == "Expand":
            return align(self.labels(maker.inputs[0], role), len(shape))
        if size(shape) > ENTRY_LIMIT or not self.value(name).is_float:
            self.pin_value(name)
            return pinned(len(shape))
        return self.entries(name, role)

    def scale(self, name: str, role: Role = Role.BIAS) -> ScaleArray:
        """What `labels` gives, with the operand's shape: for rules that move entries."""
        return ScaleArray.of(self.labels(name, role), self.shape(name))

    def entries(self, name: str, role: Role) -> Labels:
        """A label of its own for each entry of a weight (expression)."""
        own = self.fresh(self.shape(name), f"entries of {name}")
        before = len(self.demands)
        self.demand(name, [(1.0, own)], role)
        self.own.append((own, range(before, len(self.demands))))
        return own

    def _constant_labels(self, name: str) -> Labels:
        data = self.constant(name)
        rank = self.rank_or_zero(name)
        maker = self.producers.get(name)
        if (
            data is None
            and maker is not None
            and maker.op in self.moves
            and None not in (self.value(name).shape, self.value(source := maker.inputs[0]).shape)
        ):
            moved = self.moved(maker, ScaleArray.of(self._constant_labels(source), self.shape(source)))
            return pinned(rank) if moved is None else moved[maker.outputs.index(name)].labels
        if data is None and maker is not None and maker.op == "ConstantOfShape":
            data = np.broadcast_to(maker.attributes.get("value", np.float32(0)), (1,) * rank)
        if data is None or not self.value(name).is_float:
            return pinned(rank)
        if data.size == 0:
            return np.full((1,) * rank, FREE, dtype=np.int64)
        if any(data.strides[axis] for axis in self.value(name).dynamic):  # known at the example's size only
            return pinned(rank)
        small = data[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in data.strides)]
        free = _unscalable(small)
        if not free.any():
            return pinned(rank)
        return np.where(free, FREE, PINNED).astype(np.int64)

    def moved(self, node: Node, scale: ScaleArray) -> Sequence[ScaleArray] | None:
        """The operand's scale after a data movement; None if it is not known."""
        try:
            return self.moves[node.op](self, node, scale)
        except DEFECTS as error:
            self.defect(node, "rule", error)
            return None

    # What rules may state.

    def asked(self, name: str) -> None:
        """Declare that an operand was considered and is unconstrained."""
        self.touched.add(name)

    def fresh(self, shape: Sequence[int], what: str) -> Labels:
        return self.constraints.fresh(shape, self.node, what)

    def equation(self, terms: Sequence[Term], reason: str = "") -> None:
        self.constraints.equation(terms, self.node, reason or self.reason)

    def tie(self, first: Labels, second: Labels, reason: str = "") -> None:
        rank = max(first.ndim, second.ndim)
        self.constraints.tie(align(first, rank), align(second, rank), self.node, reason or self.reason)

    def uniform(self, labels: Labels, axes: Sequence[int], reason: str = "") -> Labels:
        return self.constraints.uniform(labels, axes, self.node, reason or self.reason)

    @abstractmethod
    def demand(self, name: str, terms: Sequence[Term], role: Role) -> None:
        """Require that weight (expression) `name` has the log-scale `terms`; see `backward.demand`."""

    def set(self, name: str, scale: ScaleArray | Labels) -> None:
        """Give a result its scale; labels broadcast to its shape.

        Raises:
            ValueError: if the scale is that of a tensor of another shape.
        """
        if name:
            shape = self.shape(name)
            found = scale if isinstance(scale, ScaleArray) else ScaleArray.of(scale, shape)
            if found.shape != shape:
                raise ValueError(f"scale of a tensor of shape {found.shape} for {name!r} of shape {shape}")
            self.found[name] = found.labels

    def pin_value(self, name: str, reason: str = "") -> None:
        """Keep the value of an operand of any kind as it is."""
        self.touched.add(name)
        if self.is_data(name):
            self.constraints.pin(self.found[name], self.node, reason or self.reason)
        elif self.is_weight(name):
            before, self.reason = self.reason, reason or self.reason
            self.demand(name, [], Role.FIXED)
            self.reason = before

    def defect(self, node: Node, what: str, error: Exception) -> None:
        """Report that a rule failed on a node; the caller pins the node."""
        self.constraints.defects[defect(what, node.op, node.label, error)] = None

    def set_pinned(self, node: Node) -> None:
        for name in node.outputs:
            if name:
                self.found[name] = pinned(self.rank_or_zero(name))

    def pin_node(self, node: Node, reason: str = "") -> None:
        """Pin all operands and results of a node."""
        for name in dict.fromkeys(node.inputs):
            if name:
                self.pin_value(name, reason)
        self.set_pinned(node)

    def rank_or_zero(self, name: str) -> int:
        shape = self.value(name).shape
        return 0 if shape is None else len(shape)

    # What the walk does for backward rules.

    @abstractmethod
    def opened(self, name: str, role: Role) -> Labels | None:
        """Labels of a weight expression walked forwards; None if that takes too many (`forward`)."""

    @abstractmethod
    def leaves(self, name: str) -> list[str]:
        """The weights that a weight expression is made of."""

    @abstractmethod
    def apply_to_weights(self, index: int, node: Node, labels: Mapping[str, Labels]) -> dict[str, Labels]:
        """Labels of the results of a node of a weight expression, from labels of its operands."""


Move = Callable[[Context, Node, ScaleArray], "list[ScaleArray] | None"]
"""The operand's scale after a data movement; None if it is not known."""


def _unscalable(data: Array) -> npt.NDArray[np.bool_]:
    """Entries that a positive factor does not change: 0 and infinities."""
    return np.asarray((data == 0) | np.isinf(data.astype(np.float64)))
