"""Building a normal form: nodes with all arguments written out, equal nodes made once, weights as leaves.

Each operand that is a weight becomes a leaf of its own, so that a model whose exporter merged equal
weights, or whose layers share one, still aligns: a certificate about single uses covers shared ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphnorm import ir
from graphnorm.alignment import leaves
from graphnorm.alignment.leaves import Leaf
from graphnorm.alignment.terms import Data, Known, Term
from graphnorm.alignment.views import axis_of, whole
from graphnorm.ops.table import having
from graphnorm.ops.traits import Trait
from graphnorm.scales.labels import reshape_blocks
from graphnorm.util.typing import Shape

_ONE = 4.0  # units of rounding: a factor this close to 1 is a product of inverses
# Equal nodes are made once, but not those that may draw random numbers, nor operators outside ONNX ("::").
_DRAWS = having(Trait.RANDOM) | having(Trait.REGIONS)


@dataclass(frozen=True)
class Normal:
    """A network's normal form.

    Attributes:
        graph: the normal form; its weights are the leaves' values.
        leaves: weight name -> leaf.
        origin: value of the normal form -> the value of the network that it stands for.
        double: whether the network computes in float64 somewhere, so that its numbers are taken exactly.
        defects: one sentence per operator that was kept because its lowering failed.
    """

    graph: ir.Graph
    leaves: Mapping[str, Leaf]
    origin: Mapping[str, str]
    double: bool
    defects: tuple[str, ...] = ()


class Builder:
    """The normal form so far, and the vocabulary of lowerings."""

    def __init__(self, name: str, double: bool, numbers: bool = False) -> None:
        self.name = name
        self.double = double
        self.numbers = numbers
        self.eps = float(np.finfo(np.float64 if double else np.float32).eps)
        self.inputs: list[str] = []
        self.nodes: list[ir.Node] = []
        self.values: dict[str, ir.Value] = {}
        self.leaves: dict[str, Leaf] = {}
        self.constants: dict[str, ir.Array] = {}
        self.origin: dict[str, str] = {}
        self.defects: dict[str, None] = {}
        self.current = ir.Node("", "", (), ())
        self._made: dict[Any, tuple[str, ...]] = {}
        self._between: set[str] = set()  # steps on the way to a view

    # Terms.

    def input(self, value: ir.Value) -> Data:
        """A network input under its own name."""
        self.inputs.append(value.name)
        self.values[value.name] = value
        self.origin[value.name] = value.name
        return Data(value.name, whole(value.shape or ()), value.dtype, value.dynamic)

    def rounded(self, value: float) -> float:
        """A number of the program; in float32 where nothing is finer, as an ONNX file would hold it."""
        return float(value) if self.double else float(np.float32(value))

    def number(self, value: float) -> Known:
        """A number as a constant."""
        return Known(np.asarray(value, dtype=np.float64 if self.double else np.float32))

    def leaf(self, term: Term) -> Leaf | None:
        """A weight, or a float constant with finite entries, as a leaf."""
        if isinstance(term, Leaf):
            return term
        if isinstance(term, Known) and term.is_float and not term.dynamic and np.isfinite(term.array).all():
            return Leaf(term.array, None, ir.float_format(term.array.dtype).eps, ())
        return None

    def dtype(self, term: Term) -> str:
        if isinstance(term, Data):
            return term.dtype
        array = term.array if isinstance(term, Known) else term.value
        return str(array.dtype.name)

    def reshape(self, term: Term, shape: Sequence[int]) -> Term:
        """The same entries in another shape."""
        target = tuple(int(size) for size in shape)
        if isinstance(term, Data):
            axes = _reshaped_axes(term.shape, target, term.dynamic)
            return Data(term.base, term.view.reshaped(target), term.dtype, axes, term.factor)
        if isinstance(term, Leaf):
            return term.moved(lambda array: array.reshape(target))
        dynamic = _reshaped_axes(term.shape, target, term.dynamic)
        return Known(term.array.reshape(target), dynamic, term.source)

    def transpose(self, term: Term, perm: Sequence[int]) -> Term:
        """Axes in another order."""
        order = tuple(int(axis) for axis in perm)
        if isinstance(term, Leaf):
            return term.moved(lambda array: array.transpose(order))
        if isinstance(term, Known):
            dynamic = frozenset(order.index(axis) for axis in term.dynamic)
            return Known(term.array.transpose(order), dynamic, term.source)
        view = term.view.transposed(order)
        if view is None:
            stored = self.stored(term)
            view = stored.view.transposed(order)
            assert view is not None  # of a tensor as it lies in memory
            term = stored
        axes = frozenset(order.index(axis) for axis in term.dynamic)
        return Data(term.base, view, term.dtype, axes, term.factor)

    def cut(self, term: Data, axis: int, start: int, stop: int) -> Data | None:
        """A slice, taken before the view: exporters and optimisers swap the two.  None if that can't be."""
        base, found = self.values[term.base], term.view.cut(axis, start, stop)
        shape = base.shape or ()
        place = axis_of(shape, found.size, found.stride) if found is not None else None
        if found is None or place is None or place in base.dynamic:
            return None
        stride = found.stride // math.prod(shape[place + 1 :])
        split = [shape[place] // (found.size * stride), found.size, stride]
        before = [size for size in split[:1] if size > 1]
        after = [size for size in split[2:] if size > 1]
        at = place + len(before)
        target = (*shape[:place], *before, found.size, *after, *shape[place + 1 :])
        name, axes = term.base, _reshaped_axes(shape, target, base.dynamic)
        if target != shape:
            name = self._moved(name, "Reshape", {"shape": target}, target, axes)
        cut = (*target[:at], found.stop - found.start, *target[at + 1 :])
        attributes = {"starts": (found.start,), "ends": (found.stop,), "axes": (at,), "steps": (1,)}
        result = ir.Value("", cut, term.dtype, self.values[name].dynamic)
        (out,) = self.raw("Slice", [name], [result], attributes)
        return Data(out, found.view, term.dtype, term.dynamic, term.factor)

    def stored(self, term: Data) -> Data:
        """The same with its view carried out."""
        return Data(self._viewed(term), whole(term.shape), term.dtype, term.dynamic, term.factor)

    def of_known_sizes(self, term: Term, value: ir.Value) -> Term:
        """A term whose axes of variable size are those of the network's value, at most."""
        if not isinstance(term, Data) or term.shape != value.shape:
            return term
        found = replace(term, dynamic=term.dynamic & value.dynamic)
        base = self.values[term.base]
        if not term.view.moves and base.shape == term.shape:
            self.values[term.base] = replace(base, dynamic=base.dynamic & found.dynamic)
        return found

    # Operands.

    def operand(self, term: Term | None) -> str:
        """The name of a value that holds a term, factor included; "" for an absent one."""
        if term is None:
            return ""
        if isinstance(term, Leaf):
            return self._add_leaf(term)
        if isinstance(term, Known):
            return self._add_constant(term)
        if abs(term.factor - 1.0) <= _ONE * self.eps:
            return self._viewed(term)
        bare = Data(term.base, term.view, term.dtype, term.dynamic)
        factor = leaves.number(term.factor, self.eps)
        return self.node("Mul", [bare, factor], term.shape, term.dtype).base

    def node(
        self,
        op: str,
        operands: Sequence[Term | None],
        shape: Shape | None,
        dtype: str,
        attributes: Mapping[str, Any] | None = None,
        dynamic: frozenset[int] = frozenset(),
    ) -> Data:
        """Add a node of one result."""
        names = tuple(self.operand(term) for term in operands)
        value = ir.Value("", shape, dtype, dynamic)
        (out,) = self.raw(op, names, [value], attributes or {})
        return Data(out, whole(shape or ()), dtype, self.values[out].dynamic)

    def raw(
        self,
        op: str,
        names: Sequence[str],
        results: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        claims: bool = True,
    ) -> tuple[str, ...]:
        """Add a node; equal ones without weights of their own are made once, unless they may be random.

        `claims`: whether the results' axes of variable size are known to be no others.
        """
        types = tuple(None if value is None else (value.shape, value.dtype) for value in results)
        key = (op, tuple(names), tuple(sorted((k, repr(v)) for k, v in attributes.items())), types)
        single = op not in _DRAWS and "::" not in op
        if single and key in self._made:
            if claims:
                self._narrow(self._made[key], results)
            return self._made[key]
        base = f"n{len(self.nodes)}"
        outputs = tuple("" if value is None else f"{base}.{i}" for i, value in enumerate(results))
        for name, value in zip(outputs, results, strict=True):
            if value is not None:
                self.values[name] = ir.Value(name, value.shape, value.dtype, value.dynamic)
        label = self.current.label or op
        node = ir.Node(base, op, tuple(names), outputs, dict(attributes), label, self.current.source)
        self.nodes.append(node)
        self._made[key] = outputs
        if not claims:
            self._between.update(outputs)
        return outputs

    def _narrow(self, names: Sequence[str], results: Sequence[ir.Value | None]) -> None:
        """Take over which axes are of variable size from a node that computes the same."""
        for name, value in zip(names, results, strict=True):
            if value is not None:
                made = self.values[name]
                known = made.dynamic & value.dynamic if name not in self._between else value.dynamic
                self.values[name] = replace(made, dynamic=known)
                self._between.discard(name)

    def _viewed(self, term: Data) -> str:
        """A view carried out: both ends know their axes of variable size, what is between claims nothing."""
        base, view = self.values[term.base], term.view
        name, shape = term.base, base.shape or ()
        if view.moves:
            sizes = tuple(view.fine[axis] for axis in view.perm)
            behind = _longer(term.shape, sizes, term.dynamic)
            back = frozenset(view.perm[axis] for axis in behind)
            if view.fine != shape:
                varies = _longer(shape, view.fine, base.dynamic) & back
                name = self._moved(name, "Reshape", {"shape": view.fine}, view.fine, varies, claims=False)
            ahead = frozenset(view.perm.index(axis) for axis in self.values[name].dynamic) & behind
            same = view.shape == sizes
            varies = term.dynamic if same else ahead
            name = self._moved(name, "Transpose", {"perm": view.perm}, sizes, varies, claims=same)
            shape = sizes
        if view.shape == shape:
            return name
        return self._moved(name, "Reshape", {"shape": view.shape}, view.shape, term.dynamic)

    def _moved(
        self,
        name: str,
        op: str,
        attributes: Mapping[str, Any],
        shape: Shape,
        dynamic: frozenset[int],
        claims: bool = True,
    ) -> str:
        value = ir.Value("", shape, self.values[name].dtype, dynamic)
        return self.raw(op, [name], [value], attributes, claims)[0]

    def _add_leaf(self, leaf: Leaf) -> str:
        base = "+".join(leaf.sources) or "number"
        name = base
        for count in range(2, len(self.leaves) + 3):
            if name not in self.values:
                break
            name = f"{base}#{count}"
        self.leaves[name] = leaf
        self.values[name] = ir.Value(name, leaf.shape, leaf.value.dtype.name)
        return name

    def _add_constant(self, term: Known) -> str:
        array = np.ascontiguousarray(term.array)
        key = ("constant", array.dtype.name, array.shape, term.dynamic, array.tobytes())
        if key not in self._made:
            name = f"constant{len(self.constants)}"
            self.constants[name] = term.array
            self.values[name] = ir.Value(name, term.shape, array.dtype.name, term.dynamic)
            self._made[key] = (name,)
        return self._made[key][0]

    def finished(self, outputs: Sequence[str]) -> Normal:
        """The graph without nodes that no output needs."""
        return pruned(self, outputs)


def pruned(builder: Builder, outputs: Sequence[str]) -> Normal:
    """The normal form with only what leads to `outputs`."""
    needed = set(outputs)
    nodes: list[ir.Node] = []
    for node in reversed(builder.nodes):
        if any(name in needed for name in node.outputs):
            nodes.append(node)
            needed.update(node.inputs)
    held = {name: leaf for name, leaf in builder.leaves.items() if name in needed}
    defined = {name for node in nodes for name in node.outputs} | needed | set(builder.inputs)
    graph = ir.Graph(
        name=builder.name,
        inputs=tuple(builder.inputs),
        outputs=tuple(outputs),
        nodes=tuple(reversed(nodes)),
        values={name: value for name, value in builder.values.items() if name in defined},
        weights={name: leaf.value for name, leaf in held.items()},
        constants={name: array for name, array in builder.constants.items() if name in needed},
    )
    return Normal(graph, held, builder.origin, builder.double, tuple(builder.defects))


def _longer(old: Shape, new: Shape, dynamic: frozenset[int]) -> frozenset[int]:
    """The same without axes of size 1, which are no part of others'."""
    return _reshaped_axes(old, new, frozenset(axis for axis in dynamic if old[axis] > 1))


def _reshaped_axes(old: Shape, new: Shape, dynamic: frozenset[int]) -> frozenset[int]:
    """Axes of variable size after a reshape."""
    if not dynamic or math.prod(old) == 0:
        return frozenset() if not dynamic else frozenset(range(len(new)))
    found: set[int] = set()
    for before, after in reshape_blocks(old, new):
        if dynamic & set(before):
            found |= {axis for axis in after if new[axis] > 1} or set(after)
    return frozenset(found)
