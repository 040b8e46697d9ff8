"""Affine layers folded: products and sums with weights go into the layer before, or into each other.

    (W x) a = (a W) x        (y + b) a = y a + b a        (y a) c = y (a c)        (y + b) + c = y + (b + c)

so that a BatchNorm, a gain or a second bias after a convolution or a matrix product is absorbed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from graphnorm import ir
from graphnorm.alignment import leaves
from graphnorm.alignment.builder import Normal
from graphnorm.alignment.leaves import Leaf


def fold(normal: Normal) -> Normal:
    """The same function with affine layers folded."""
    state = _Folding(normal)
    for node in normal.graph.nodes:
        state.visit(node)
    return state.result()


class _Folding:
    def __init__(self, normal: Normal) -> None:
        self._normal = normal
        graph = normal.graph
        self.leaves = dict(normal.leaves)
        self._uses = Counter(name for node in graph.nodes for name in node.inputs)
        self._uses.update(graph.outputs)
        self._nodes: dict[str, ir.Node] = {}  # by node name, in order
        self._producer: dict[str, str] = {}
        self._alias: dict[str, str] = {}

    def visit(self, node: ir.Node) -> None:
        node = replace(node, inputs=tuple(self._resolved(name) for name in node.inputs))
        data, held = self._affine(node)
        if held and self._absorbed(node, data, held):
            self._alias[node.outputs[0]] = data
            self._uses[data] = self._uses[node.outputs[0]]
            return
        self._keep(node)

    def result(self) -> Normal:
        graph = self._normal.graph
        self._drop_zero_sums()
        used = {name for node in self._nodes.values() for name in node.inputs}
        held = {name: leaf for name, leaf in self.leaves.items() if name in used}
        values = dict(graph.values)
        for name, leaf in held.items():
            values[name] = ir.Value(name, leaf.shape, leaf.value.dtype.name)
        for name in set(self.leaves) - set(held):
            del values[name]
        origin = dict(self._normal.origin)
        for old, new in self._alias.items():
            if old in origin:  # the folded layer computes what the last of the folded nodes did
                origin[new] = origin[old]
        folded = replace(
            graph,
            nodes=tuple(self._nodes.values()),
            outputs=tuple(self._resolved(name) for name in graph.outputs),
            values=values,
            weights={name: leaf.value for name, leaf in held.items()},
        )
        return Normal(folded, held, origin, self._normal.double, self._normal.defects)

    def _drop_zero_sums(self) -> None:
        """A bias of zeros stays zero under every rescaling and permutation: it is dropped."""
        nodes, self._nodes = list(self._nodes.values()), {}
        for node in nodes:
            node = replace(node, inputs=tuple(self._resolved(name) for name in node.inputs))
            data, held = self._affine(node)
            if held and node.op == "Add" and not self.leaves[held].value.any():
                self._alias[node.outputs[0]] = data
            else:
                self._nodes[node.name] = node

    def _resolved(self, name: str) -> str:
        while name in self._alias:
            name = self._alias[name]
        return name

    def _keep(self, node: ir.Node) -> None:
        self._nodes[node.name] = node
        self._producer.update(dict.fromkeys((name for name in node.outputs if name), node.name))

    def _affine(self, node: ir.Node) -> tuple[str, str]:
        """(data operand, leaf operand) of a sum or product with a weight that broadcasts into the data."""
        if node.op not in {"Add", "Mul"}:
            return "", ""
        data, held = node.inputs
        if held not in self.leaves or data in self.leaves:
            return "", ""
        values = self._normal.graph.values
        fits = values[data].shape == values[node.outputs[0]].shape
        return (data, held) if fits else ("", "")

    def _absorbed(self, node: ir.Node, data: str, held: str) -> bool:
        """Fold `node` into the node that makes `data`, if nothing else reads it."""
        maker = self._nodes.get(self._producer.get(data, ""))
        if maker is None or self._uses[data] != 1:
            return False
        leaf = self.leaves[held]
        inner, other = self._affine(maker)
        if node.op == "Add":
            return maker.op == "Add" and bool(other) and self._merge(other, leaves.add, leaf)
        if maker.op == "Mul" and other:
            return self._merge(other, leaves.multiply, leaf)
        if maker.op == "Add" and other:
            return self._push(maker, inner, other, node, held)
        return self._into_weight(maker, leaf, data)

    def _merge(self, name: str, combine: object, leaf: Leaf) -> bool:
        self.leaves[name] = combine(self.leaves[name], leaf)  # type: ignore[operator]
        return True

    def _push(self, maker: ir.Node, inner: str, bias: str, node: ir.Node, held: str) -> bool:
        """(y + b) a = y a + b a: the product is moved before the sum."""
        leaf = self.leaves[held]
        values = self._normal.graph.values
        self.leaves[bias] = leaves.multiply(self.leaves[bias], leaf)
        if self._uses[inner] == 1 and self._absorbed(replace(node, inputs=(inner, held)), inner, held):
            return True
        product = f"{node.name}.product"
        values[product] = replace(values[inner], name=product)  # type: ignore[index]
        del self._nodes[maker.name]
        self._keep(replace(node, name=product, inputs=(inner, held), outputs=(product,)))
        self._uses[product] = 1
        self._keep(replace(maker, inputs=(product, bias)))
        return True

    def _into_weight(self, maker: ir.Node, leaf: Leaf, data: str) -> bool:
        """A factor per output channel is folded into the weight."""
        if maker.op not in {"Conv", "ConvTranspose", "MatMul"} or maker.inputs[1] not in self.leaves:
            return False
        weight = self.leaves[maker.inputs[1]]
        shape = self._normal.graph.values[data].shape or ()
        if maker.op == "MatMul" and len(weight.shape) != 2:
            return False
        axis = len(shape) - 1 if maker.op == "MatMul" else 1
        padded = (1,) * (len(shape) - len(leaf.shape)) + leaf.shape
        if any(size > 1 and i != axis for i, size in enumerate(padded)):
            return False
        if maker.op == "ConvTranspose" and (int(maker.attributes["group"]) != 1 or weight.shape[1] == 1):
            return False
        out = {"Conv": 0, "MatMul": 1, "ConvTranspose": 1}[maker.op]
        spread = tuple(padded[axis] if i == out else 1 for i in range(len(weight.shape)))
        factor = leaf.moved(lambda array: array.reshape(spread))
        self.leaves[maker.inputs[1]] = leaves.multiply(weight, factor)
        return True
