"""Forward propagation of scales: one walk over the graph that applies each operator's rule.

Every value is one of three kinds: *data* (depends on the network's inputs; it carries labels), a
*weight expression* (depends on weights only; its consumer demands a scale, see `demands`), or a
*constant* (carries no freedom).  Sound by default: an operator without a rule pins all that it touches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphnorm.ir import Array, Graph, Node, Value
from graphnorm.scales.constraints import Constraints, Term
from graphnorm.scales.demands import Demand, demand
from graphnorm.scales.forward import Expressions
from graphnorm.scales.labels import (
    ENTRY_LIMIT,
    FREE,
    PINNED,
    Labels,
    align,
    pinned,
    size,
    squeeze_constant_axes,
)
from graphnorm.scales.merging import representatives
from graphnorm.scales.registry import Registry
from graphnorm.scales.rules.movement import MOVES
from graphnorm.util.defects import DEFECTS, defect

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap", "graphnorm::State"})  # always data
MAKES_ZEROS = frozenset({"Concat", "Pad", "Where", "Mul"})  # their results may hold known zeros
TAKES_ZEROS = frozenset({"graphnorm::State"})  # a state that starts at zero may have any scale
_MANY = 1 << 16  # labels handed out before it pays to look which of them are equal


@dataclass(frozen=True, slots=True)
class Scales:
    """What a walk found: constraints, the demand on each weight, and each data value's labels."""

    constraints: Constraints
    demands: tuple[Demand, ...]
    labels: dict[str, Labels]
    unknown: dict[str, list[str]]


class Propagation:
    """The state of one walk, and the vocabulary in which rules are written."""

    def __init__(self, graph: Graph, registry: Registry, lasting: Collection[str] | None = None) -> None:
        self.graph = graph
        self.lasting = graph.weights if lasting is None else lasting
        self.registry = registry
        self.constraints = Constraints()
        self.demands: list[Demand] = []
        self.producers = graph.producers()
        self.node = -1
        self.reason = ""
        self.unknown: dict[str, list[str]] = {}
        self._labels: dict[str, Labels] = {}
        self._asked: set[str] = set()
        self._weights = set(graph.weights)
        self._entries: list[tuple[Labels, range]] = []
        self._constants = set(graph.constants)
        self._merge_at = _MANY
        self.expressions = Expressions(self)

    def run(self) -> Scales:
        """Walk the graph; network inputs and outputs are pinned."""
        for name in self.graph.inputs:
            self._labels[name] = pinned(self._rank_or_zero(name))
        for index, node in enumerate(self.graph.nodes):
            self.node = index
            self._visit(node)
            if self.constraints.count >= self._merge_at:
                self._merge()
                self._merge_at = 2 * self.constraints.count
        self.node = len(self.graph.nodes)
        self.reason = "network output"
        for name in self.graph.outputs:
            if name in self._labels or self.is_weight(name):
                self.pin_value(name)
        self._pin_unread()
        return Scales(self.constraints, tuple(self.demands), self._labels, self.unknown)

    def _merge(self) -> None:
        """Replace labels that are equal by now: a scale that is found not to vary along an axis stops there.

        Norms in elementary operators pin a scale per position only at their epsilon, and an attention
        would square the number of such labels.
        """
        equal = representatives(self.constraints.count, self.constraints.rows)
        for name, labels in self._labels.items():
            self._labels[name] = squeeze_constant_axes(equal[labels])

    def _visit(self, node: Node) -> None:
        operands = [name for name in node.inputs if name]
        if operands and not any(self.is_data(name) for name in operands) and node.op not in CONTROL_FLOW:
            weights = any(self.is_weight(name) for name in operands)
            target = self._weights if weights else self._constants
            target.update(out for out in node.outputs if out)
            return
        self._apply(node)

    def _apply(self, node: Node) -> None:
        """Give the node's results labels by its rule."""
        operands = [name for name in node.inputs if name]
        data = [name for name in operands if self.is_data(name)]
        weights = [name for name in operands if self.is_weight(name)]
        settled = all((self._labels[name] == PINNED).all() for name in data)
        if settled and not weights and node.op not in MAKES_ZEROS | TAKES_ZEROS:
            self.set_pinned(node)  # a function of pinned values is pinned
            return
        rule = self.registry.get(node.op)
        if rule is None:
            self.unknown.setdefault(node.op, []).append(node.label)
            self.pin_node(node, "unknown operator")
        elif any(self.value(name).shape is None for name in (*operands, *node.outputs) if name):
            self.pin_node(node, "shape not known without running the network")
        else:
            self.reason = rule.reason
            self._asked.clear()
            try:
                rule.apply(self, node)
            except DEFECTS as error:
                self.defect(node, "rule", error)
                self.pin_node(node, f"defect in the rule of {node.op}")
            for name in (*data, *weights):  # an operand that the rule never looked at must not move
                if name not in self._asked:
                    self.pin_value(name, "operand without a scale of its own")
            self._settle(node)

    def apply_to_weights(self, index: int, node: Node, labels: Mapping[str, Labels]) -> dict[str, Labels]:
        """Labels of the results of a node of a weight expression, from labels of its operands.

        The operands are data for this once; whoever else reads them sees weights.
        """
        before = self.node, self.reason, set(self._asked)
        self._labels.update(labels)
        self.node = index
        self._apply(node)
        results = {out: self._labels.pop(out) for out in node.outputs if out}
        for name in labels:
            del self._labels[name]
        self.node, self.reason, self._asked = before
        return results

    def _settle(self, node: Node) -> None:
        """Check every output got labels; forbid labels along axes whose size may change."""
        for name in node.outputs:
            if not name:
                continue
            value = self.value(name)
            if name not in self._labels or not value.is_float:
                self._labels[name] = pinned(self._rank_or_zero(name))
                continue
            dynamic = [axis for axis in value.dynamic if self._labels[name].shape[axis] > 1]
            if dynamic:
                self._labels[name] = self.uniform(self._labels[name], dynamic, "axis of variable size")

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
        return name in self._labels

    def is_weight(self, name: str) -> bool:
        return name in self._weights and name not in self._labels

    def depends_on_weights(self, name: str) -> bool:
        """Whether a value is made of weights only, opened (see `forward`) or not."""
        return name in self._weights

    def is_constant(self, name: str) -> bool:
        return name in self._constants

    def constant(self, name: str) -> Array | None:
        """The data of a constant, where it is known."""
        return self.graph.constants.get(name)

    def held(self, name: str) -> Array | None:
        """The data of a constant, or of a weight that is only moved on its way and is held from now on."""
        data, maker = self.constant(name), self.producers.get(name)
        if data is not None or not self.is_weight(name):
            return data
        if name in self.graph.weights:
            if name not in self.lasting:
                return None
            self.pin_value(name, "its value is used")
            return self.graph.weights[name]
        if maker is None or maker.op not in MOVES or (source := self.held(maker.inputs[0])) is None:
            return None
        found = self.moved(maker, source)
        self._asked.add(name)
        return None if found is None else found[maker.outputs.index(name)]

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

    def labels(self, name: str, role: str = "bias") -> Labels:
        """Labels of an operand of any kind; a weight gets labels of its own, one per entry, and that role."""
        self._asked.add(name)
        if name in self._labels:
            return self._labels[name]
        if not self.is_weight(name):
            return self._constant_labels(name)
        shape, maker = self.shape(name), self.producers.get(name)
        if maker is not None and maker.op == "Expand":
            return align(self.labels(maker.inputs[0], role), len(shape))
        if size(shape) > ENTRY_LIMIT or not self.value(name).is_float:
            self.pin_value(name)
            return pinned(len(shape))
        return self.entries(name, role)

    def entries(self, name: str, role: str) -> Labels:
        """A label of its own for each entry of a weight (expression)."""
        own = self.fresh(self.shape(name), f"entries of {name}")
        before = len(self.demands)
        self.demand(name, [(1.0, own)], role)
        self._entries.append((own, range(before, len(self.demands))))
        return own

    def _pin_unread(self) -> None:
        """An entry that no equation and no other weight mentions is never read: it keeps its value."""
        if not self._entries:
            return
        mentions = np.zeros(self.constraints.count, dtype=np.int64)
        for batch in self.constraints.rows:
            mentions[batch.labels] = 2
        for item in self.demands:
            if item.terms:
                found = np.unique(np.concatenate([labels.ravel() for _, labels in item.terms]))
                mentions[found] += 1
        by_weight = Counter(item.weight for item in self.demands)
        for own, mine in self._entries:
            shared = Counter(self.demands[i].weight for i in mine)
            if all(by_weight[weight] == count for weight, count in shared.items()):
                self.constraints.pin(own[mentions[own] < 2], self.node, "entry that is never read")

    def _constant_labels(self, name: str) -> Labels:
        data = self.constant(name)
        rank = self._rank_or_zero(name)
        maker = self.producers.get(name)
        if data is None and maker is not None and maker.op in MOVES and self.value(name).shape is not None:
            moved = self.moved(maker, self._constant_labels(maker.inputs[0]))
            return pinned(rank) if moved is None else moved[maker.outputs.index(name)]
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

    def moved(self, node: Node, labels: Labels) -> Sequence[Labels] | None:
        """What a data movement makes of labels of its operand; None if that is not known."""
        try:
            return MOVES[node.op](self, node, labels)
        except DEFECTS as error:
            self.defect(node, "rule", error)
            return None

    # What rules may state.

    def asked(self, name: str) -> None:
        """Declare that an operand was considered and may move as it likes."""
        self._asked.add(name)

    def fresh(self, shape: Sequence[int], what: str) -> Labels:
        return self.constraints.fresh(shape, self.node, what)

    def equation(self, terms: Sequence[Term], reason: str = "") -> None:
        self.constraints.equation(terms, self.node, reason or self.reason)

    def tie(self, first: Labels, second: Labels, reason: str = "") -> None:
        rank = max(first.ndim, second.ndim)
        self.constraints.tie(align(first, rank), align(second, rank), self.node, reason or self.reason)

    def uniform(self, labels: Labels, axes: Sequence[int], reason: str = "") -> Labels:
        return self.constraints.uniform(labels, axes, self.node, reason or self.reason)

    def demand(self, name: str, terms: Sequence[Term], role: str) -> None:
        """Require that weight (expression) `name` has the log-scale `terms`; see `demands.demand`."""
        self._asked.add(name)
        demand(self, name, terms, role)

    def set(self, name: str, labels: Labels) -> None:
        """Give a result its labels."""
        if name:
            self._labels[name] = align(labels, self.rank(name))

    def pin_value(self, name: str, reason: str = "") -> None:
        """Keep the value of an operand of any kind as it is."""
        self._asked.add(name)
        if self.is_data(name):
            self.constraints.pin(self._labels[name], self.node, reason or self.reason)
        elif self.is_weight(name):
            before, self.reason = self.reason, reason or self.reason
            self.demand(name, [], "fixed")
            self.reason = before

    def defect(self, node: Node, what: str, error: Exception) -> None:
        """Report that something failed in a rule of a node; whoever calls this pins the node."""
        self.constraints.defects[defect(what, node.op, node.label, error)] = None

    def set_pinned(self, node: Node) -> None:
        for name in node.outputs:
            if name:
                self._labels[name] = pinned(self._rank_or_zero(name))

    def pin_node(self, node: Node, reason: str = "") -> None:
        """Pin all operands and results of a node."""
        for name in dict.fromkeys(node.inputs):
            if name:
                self.pin_value(name, reason)
        self.set_pinned(node)

    def _rank_or_zero(self, name: str) -> int:
        shape = self.value(name).shape
        return 0 if shape is None else len(shape)


def _unscalable(data: Array) -> npt.NDArray[np.bool_]:
    """Entries that a positive factor leaves as they are: 0 and infinities."""
    return np.asarray((data == 0) | np.isinf(data.astype(np.float64)))


def propagate(graph: Graph, registry: Registry, lasting: Collection[str] | None = None) -> Scales:
    """Find the scale constraints of `graph` under the rules of `registry`.

    `lasting` are the weights whose values may be relied upon; None: all, as what is found is applied at once.
    """
    return Propagation(graph, registry, lasting).run()
