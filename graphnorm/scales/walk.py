"""One walk over the graph that applies each operator's rule: forward propagation of scales.

Sound by default: an operator without a rule pins everything that it touches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphnorm.ir import Graph, Node
from graphnorm.ops.table import having
from graphnorm.ops.traits import Trait
from graphnorm.scales import backward
from graphnorm.scales.constraints import Constraints, Term
from graphnorm.scales.context import Context
from graphnorm.scales.demands import Demand, Role
from graphnorm.scales.forward import Expressions
from graphnorm.scales.labels import PINNED, Labels, pinned, squeeze_constant_axes
from graphnorm.scales.merging import representatives
from graphnorm.scales.registry import Registry
from graphnorm.scales.rules.movement import MOVES
from graphnorm.util.defects import DEFECTS

CONTROL_FLOW = having(Trait.REGIONS) | {"graphnorm::State"}  # always data
MAKES_ZEROS = frozenset({"Concat", "Pad", "Where", "Mul"})  # their results may hold known zeros
TAKES_ZEROS = frozenset({"graphnorm::State"})  # a state that starts at zero may have any scale
_MANY = 1 << 16  # number of labels from which merging equal ones early pays off


@dataclass(frozen=True, slots=True)
class Scales:
    """What a walk found: constraints, the demand on each weight, and each data value's labels."""

    constraints: Constraints
    demands: tuple[Demand, ...]
    labels: dict[str, Labels]
    unknown: dict[str, list[str]]


class Walk(Context):
    """The state of one walk."""

    def __init__(self, graph: Graph, registry: Registry, lasting: Collection[str] | None = None) -> None:
        super().__init__(graph, MOVES, lasting)
        self.registry = registry
        self.unknown: dict[str, list[str]] = {}
        self._merge_at = _MANY
        self._expressions = Expressions(self)

    def run(self) -> Scales:
        """Walk the graph; network inputs and outputs are pinned."""
        for name in self.graph.inputs:
            self.found[name] = pinned(self.rank_or_zero(name))
        for index, node in enumerate(self.graph.nodes):
            self.node = index
            self._visit(node)
            if self.constraints.count >= self._merge_at:
                self._merge()
                self._merge_at = 2 * self.constraints.count
        self.node = len(self.graph.nodes)
        self.reason = "network output"
        for name in self.graph.outputs:
            if name in self.found or self.is_weight(name):
                self.pin_value(name)
        self._pin_unread()
        return Scales(self.constraints, tuple(self.demands), self.found, self.unknown)

    def _merge(self) -> None:
        """Replace labels that are equal by now, so that they stop multiplying.

        Norms in elementary operators pin a scale per position only at their epsilon, and an attention
        would square the number of such labels.
        """
        equal = representatives(self.constraints.count, self.constraints.rows)
        for name, labels in self.found.items():
            self.found[name] = squeeze_constant_axes(equal[labels])

    def _visit(self, node: Node) -> None:
        operands = [name for name in node.inputs if name]
        if operands and not any(self.is_data(name) for name in operands) and node.op not in CONTROL_FLOW:
            weights = any(self.is_weight(name) for name in operands)
            target = self.made_of_weights if weights else self.constant_names
            target.update(out for out in node.outputs if out)
            return
        self._apply(node)

    def _apply(self, node: Node) -> None:
        """Give the node's results labels by its rule."""
        operands = [name for name in node.inputs if name]
        data = [name for name in operands if self.is_data(name)]
        weights = [name for name in operands if self.is_weight(name)]
        settled = all((self.found[name] == PINNED).all() for name in data)
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
            self.touched.clear()
            try:
                rule.apply(self, node)
            except DEFECTS as error:
                self.defect(node, "rule", error)
                self.pin_node(node, f"defect in the rule of {node.op}")
            for name in (*data, *weights):  # an operand that the rule never read must not be rescaled
                if name not in self.touched:
                    self.pin_value(name, "operand without a scale of its own")
            self._settle(node)

    def apply_to_weights(self, index: int, node: Node, labels: Mapping[str, Labels]) -> dict[str, Labels]:
        """The operands are data for this call only; other consumers see weights."""
        before = self.node, self.reason, set(self.touched)
        self.found.update(labels)
        self.node = index
        self._apply(node)
        results = {out: self.found.pop(out) for out in node.outputs if out}
        for name in labels:
            del self.found[name]
        self.node, self.reason, self.touched = before
        return results

    def _settle(self, node: Node) -> None:
        """Check every output got labels; forbid labels along axes whose size may change."""
        for name in node.outputs:
            if not name:
                continue
            value = self.value(name)
            if name not in self.found or not value.is_float:
                self.found[name] = pinned(self.rank_or_zero(name))
                continue
            dynamic = [axis for axis in value.dynamic if self.found[name].shape[axis] > 1]
            if dynamic:
                self.found[name] = self.uniform(self.found[name], dynamic, "axis of variable size")

    def _pin_unread(self) -> None:
        """An entry that no equation and no other weight mentions is never read: it keeps its value."""
        if not self.own:
            return
        mentions = np.zeros(self.constraints.count, dtype=np.int64)
        for batch in self.constraints.rows:
            mentions[batch.labels] = 2
        for item in self.demands:
            if item.terms:
                found = np.unique(np.concatenate([labels.ravel() for _, labels in item.terms]))
                mentions[found] += 1
        by_weight = Counter(item.weight for item in self.demands)
        for own, mine in self.own:
            shared = Counter(self.demands[i].weight for i in mine)
            if all(by_weight[weight] == count for weight, count in shared.items()):
                self.constraints.pin(own[mentions[own] < 2], self.node, "entry that is never read")

    def demand(self, name: str, terms: Sequence[Term], role: Role) -> None:
        """Require that weight (expression) `name` has the log-scale `terms`; see `backward.demand`."""
        self.touched.add(name)
        backward.demand(self, name, terms, role)

    def opened(self, name: str, role: Role) -> Labels | None:
        """Labels of a weight expression walked forwards; None if that takes too many (`forward`)."""
        return self._expressions.labels(name, role)

    def leaves(self, name: str) -> list[str]:
        """The weights that a weight expression is made of."""
        return self._expressions.leaves(name)


def propagate(graph: Graph, registry: Registry, lasting: Collection[str] | None = None) -> Scales:
    """Find the scale constraints of `graph` under the rules of `registry`.

    `lasting` are the weights whose values may be relied upon; None: all, as the result is applied
    immediately.
    """
    return Walk(graph, registry, lasting).run()
