"""Which weight of B corresponds to which weight of A: node by node, or through the normal forms of both.

Where the graphs are written alike, weights are compared as the models hold them.  Otherwise both are
brought to a normal form, whose weights are computed from the models'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from graphnorm import ir
from graphnorm.alignment.builder import Normal
from graphnorm.alignment.leaves import Leaf
from graphnorm.alignment.matching import Matching, different_attribute, match
from graphnorm.alignment.normal import normalise
from graphnorm.verification.certificate import Computed

WRITTEN, NORMAL = "as written", "normal form"
_FLOAT64 = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Pair:
    """Two networks of one structure.

    Attributes:
        network: A, as written or in normal form.
        weights: B's weights under A's names.
        form: in which form the networks agree.
        nodes: number of nodes that were matched.
        computed: sums behind weights that were computed.
        values: float values of A that both models compute -> B's.
        sized: whether the pairing is one at the sizes that were traced: others may be open.
    """

    network: ir.Graph
    weights: Mapping[str, ir.Array]
    form: str
    nodes: int
    computed: Mapping[str, Computed] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    sized: bool = False

    @property
    def identical(self) -> bool:
        """Whether the graphs are the same, at all sizes, and all weights the same bits."""
        mine = self.network.weights
        return (
            self.form == WRITTEN
            and not self.sized
            and all(same_bits(mine[name], self.weights[name]) for name in mine)
        )


def pair_written(a: ir.Graph, b: ir.Graph) -> tuple[Pair | None, str]:
    """Pair two graphs node by node; None and the first difference if they are not written alike."""
    pairing, failure = pair_weights(a, b)
    sized = pairing is None and (a.is_open or b.is_open)
    if sized:
        traced = (replace(graph, sizing=(), symbols={}) for graph in (a, b))
        pairing, _ = pair_weights(*traced)
    if pairing is None:
        return None, failure
    weights = {name: b.weights[other] for name, other in pairing.items()}
    for name, held in weights.items():
        if held.shape != a.weights[name].shape:
            return None, f"weight {name!r} has the shapes {a.weights[name].shape} and {held.shape}"
    outputs = [
        (one, two)
        for node, other in zip(a.nodes, b.nodes, strict=True)
        for one, two in zip(node.outputs, other.outputs, strict=True)
    ]
    return Pair(a, weights, WRITTEN, len(a.nodes), {}, dict(outputs), sized), failure


def counterparts(a: ir.Graph, b: ir.Graph) -> Mapping[str, str]:
    """Values of A -> what B computes in the same way, as both are written: tracing back from the outputs."""
    return match(a, b).values


def pair_normal(a: ir.Graph, b: ir.Graph) -> tuple[Pair | None, Matching]:
    """Pair the normal forms of two graphs.

    An optimiser may hold a number of the program as a weight: where the forms do not align, weights of one
    entry are taken for such numbers.
    """
    sized = a.is_open or b.is_open
    pair, found = _pair_forms((normalise(a), normalise(b)))
    if pair is None:
        again, other = _pair_forms((normalise(a, numbers=True), normalise(b, numbers=True)))
        if again is not None:
            return replace(again, sized=sized), other
    return None if pair is None else replace(pair, sized=sized), found


def _pair_forms(forms: tuple[Normal, Normal]) -> tuple[Pair | None, Matching]:
    double = any(form.double for form in forms)
    found = match(forms[0].graph, forms[1].graph, double)
    found = replace(found, defects=(*forms[0].defects, *forms[1].defects))
    values = {
        forms[0].origin[one]: forms[1].origin[two]
        for one, two in found.values.items()
        if one in forms[0].origin and two in forms[1].origin
    }
    if found.failure:
        return None, replace(found, values=values)
    weights: dict[str, ir.Array] = {}
    computed: dict[str, Computed] = {}
    for name, leaf in forms[0].leaves.items():
        other = found.values[name]
        held = forms[1].leaves.get(other)
        if held is None:
            held = Leaf(forms[1].graph.constants[other], None, leaf.eps, ())
        weights[name] = held.value
        if not (leaf.direct and held.direct and leaf.value.dtype == held.value.dtype):
            eps = _FLOAT64 if double else min(leaf.eps, held.eps) or leaf.eps
            computed[name] = Computed(leaf.size(), held.size(), eps)
        if not (
            np.isfinite(leaf.value.astype(np.float64)).all()
            and np.isfinite(weights[name].astype(np.float64)).all()
        ):
            failure = f"weight {name!r}, as computed, is not finite or underflows float64"
            return None, replace(found, values=values, failure=failure)
    network = replace(forms[0].graph, values=_marked(forms, found))
    return Pair(network, weights, NORMAL, found.nodes, computed, values), replace(found, values=values)


def _marked(forms: tuple[Normal, Normal], found: Matching) -> dict[str, ir.Value]:
    """A's values, of variable size wherever one of both is: then the proof covers both."""
    one, two = (form.graph.values for form in forms)
    marked = dict(one)
    for name, other in found.values.items():
        if name and two[other].dynamic - one[name].dynamic:
            value = one[name]
            marked[name] = ir.Value(name, value.shape, value.dtype, value.dynamic | two[other].dynamic)
    return marked


@dataclass
class _Renaming:
    """Value names of A -> value names of B, one to one."""

    forward: dict[str, str]
    backward: dict[str, str]

    def agree(self, one: str, two: str) -> bool:
        return self.forward.setdefault(one, two) == two and self.backward.setdefault(two, one) == one


def pair_weights(a: ir.Graph, b: ir.Graph) -> tuple[dict[str, str] | None, str]:
    """Match the graphs node by node; returns A's weight names -> B's, or None and the first difference.

    What computes constants from sizes is matched too: the pairing holds at all sizes.
    """
    if len(a.outputs) != len(b.outputs):
        return None, f"the graphs have {len(a.outputs)} and {len(b.outputs)} outputs"
    names = _Renaming({"": ""}, {"": ""})
    for one, two in zip(a.inputs, b.inputs, strict=True):
        names.agree(one, two)
    for these, those, what in ((a.nodes, b.nodes, "operators"), (a.sizing, b.sizing, "operators on sizes")):
        if len(these) != len(those):
            return None, f"the graphs have {len(these)} and {len(those)} {what}"
        for node, other in zip(these, those, strict=True):
            failure = _pair_nodes(node, other, names)
            if failure:
                return None, failure
    if not all(names.agree(one, two) for one, two in zip(a.outputs, b.outputs, strict=True)):
        return None, "the outputs are wired differently"
    if [_open_axes(a, name) for name in a.inputs] != [_open_axes(b, name) for name in b.inputs]:
        return None, "other sizes of the inputs are open"
    for one, two in names.forward.items():
        if (one in a.constants) != (two in b.constants) or (one in a.weights) != (two in b.weights):
            return None, f"{one!r} is a weight in one model and a constant in the other"
        if one in a.constants and not same_bits(a.constants[one], b.constants[two]):
            return None, f"constant {one!r} differs"
    # A weight that no node reads cannot matter: pair it with itself.
    unread = {name: name for name in a.weights if name not in names.forward and name in b.weights}
    pairing = {name: names.forward[name] for name in a.weights if name in names.forward} | unread
    missing = [name for name in a.weights if name not in pairing]
    return (None, f"weight {missing[0]!r} has no counterpart") if missing else (pairing, "")


def _pair_nodes(node: ir.Node, other: ir.Node, names: _Renaming) -> str:
    """Match two nodes; returns the first difference."""
    where = f"{node.op} {node.label}"
    if node.op != other.op:
        return f"{where} stands against {other.op} {other.label}"
    different = different_attribute(node.attributes, other.attributes, close=0.0)
    if different:
        return f"{where} and {other.op} {other.label} differ in their {different}"
    if len(node.inputs) != len(other.inputs) or len(node.outputs) != len(other.outputs):
        return f"{where} and its counterpart have different operands"
    pairs = zip((*node.inputs, *node.outputs), (*other.inputs, *other.outputs), strict=True)
    return "" if all(names.agree(one, two) for one, two in pairs) else f"{where} is wired differently"


def _open_axes(graph: ir.Graph, name: str) -> tuple[bool, ...]:
    return tuple(map(bool, graph.symbols.get(name, ())))


def same_bits(first: ir.Array, second: ir.Array) -> bool:
    """Equal shapes, types and bits."""
    return first.shape == second.shape and first.dtype == second.dtype and first.tobytes() == second.tobytes()
