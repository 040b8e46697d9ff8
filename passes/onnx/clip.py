"""Bounds of clips as weights, in an ``onnx_ir.Model`` (see `graphnorm.rescaling.clips` for which, and why).

    Clip(x, lo, hi) -> Min(Max(x, LO), HI)      LO, HI initializers, e.g. of shape (channels, 1, 1)
    Clip(x, 0, hi)  -> Min(Relu(x), HI)
    Min(x, hi)      -> Min(x, HI)

A limit that no rescaling has to move (an upper limit at 0, the largest float, which is the default) stays in
the Clip, between Max and Min.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx_ir
from onnx_ir.passes import FunctionalPass, PassResult

from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.ir import Graph, Node
from graphnorm.passes.onnx.constants import Constants, is_standard, require_model
from graphnorm.passes.onnx.fold import take_over
from graphnorm.rescaling.clips import PINNED_ANYWAY, Rewriting, bounded_clips, is_bound, limits, movable_clips

_BROADCASTING = 8  # from this opset on, the operands of Max and Min may have different shapes
_NAMES = ("clip_min", "clip_max")  # of initializers; exporters give such names to no literal
_OLD = f"Max and Min of opsets before {_BROADCASTING} do not broadcast; convert the model to a newer one"
_INNER = "it lies in a function of the model; inline it with onnx_ir.passes.common.InlinePass"


@dataclass(eq=False)
class RewriteClipsPass(FunctionalPass):
    """Make initializers of the bounds of Clip, Max and Min, one entry per channel; the same function.

    Only clips whose channels could be rescaled then are rewritten, so that `CanonicalizePass` finds more
    freedom.  Works on the main graph.

    Attributes:
        input_shapes: Sizes of symbolic dimensions, by input name; None: sizes are chosen.
        rewritten: After a call, the names of the clips that were rewritten.
        skipped: After a call, why each other bounded clip was left: ``"node_clip: ..."``.

    >>> import onnx.parser, onnx_ir
    >>> model = onnx_ir.from_proto(onnx.parser.parse_model(
    ...     '<ir_version: 10, opset_import: ["": 20]> small (float[1,2] x) => (float[1,2] y)'
    ...     "<float[2,2] a = {1, 2, 3, 4}, float[2,2] b = {5, 6, 7, 8}, float zero = {0}, float six = {6}>"
    ...     "{ h = MatMul(x, a) r = Clip(h, zero, six) y = MatMul(r, b) }"))
    >>> RewriteClipsPass()(model).modified
    True
    """

    input_shapes: Mapping[str, Sequence[int]] | None = None
    rewritten: tuple[str, ...] = field(default=(), init=False)
    skipped: tuple[str, ...] = field(default=(), init=False)

    def call(self, model: onnx_ir.Model) -> PassResult:
        """Rewrite a copy; a plain clone comes back if nothing gains from it.

        Raises:
            InputError: `model` is no ``onnx_ir.Model``.
        """
        require_model(self, model)
        found = rewrite_clips(model, self.input_shapes)
        self.rewritten, self.skipped = found.rewritten, found.left
        modified = found.model is not model
        return PassResult(found.model if modified else model.clone(), modified)


def rewrite_clips(model: onnx_ir.Model, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Rewriting:
    """A copy of an ONNX model whose clips have per-channel bounds where that gives freedom."""
    network = read_onnx(model, input_shapes)
    own = {node.outputs[0].name: node for node in model.graph if node.outputs}
    shapes = movable_clips(network)
    constants = Constants(model)
    obstacles = {
        node.name: _obstacle(constants, own.get(node.outputs[0]), node.op)
        for node in network.nodes
        if node.name in shapes
    }
    fixed = {name: reason for name, reason in obstacles.items() if reason}
    if fixed:
        shapes = movable_clips(network, fixed)
    left = tuple(
        f"{node.label}: {fixed.get(node.name, PINNED_ANYWAY)}"
        for node in bounded_clips(network)
        if node.name not in shapes
    )
    if not shapes:
        return Rewriting(model, (), left)
    rewritten = model.clone()
    writer = _Writer(rewritten, network)
    for node in network.nodes:
        if node.name in shapes:
            writer.rewrite(node, shapes[node.name])
    return Rewriting(rewritten, tuple(node.label for node in network.nodes if node.name in shapes), left)


def _obstacle(constants: Constants, node: onnx_ir.Node | None, operator: str) -> str:
    """Why the bounds of the clip that yields a result may not be replaced; empty if they may.

    Args:
        constants: those of the model.
        node: the node of the main graph that yields the result, if there is one.
        operator: what yields it once functions are inlined.
    """
    if constants.model.opset_imports[""] < _BROADCASTING:
        return _OLD
    if node is None or node.op_type != operator or not is_standard(node):
        return _INNER
    limits_read = [value for value in node.inputs if value is not None and value.is_initializer()]
    return next((reason for value in limits_read if (reason := constants.obstacle(value))), "")


class _Writer:
    """Rewrites clips of one model, of which `network` is a reading."""

    def __init__(self, model: onnx_ir.Model, network: Graph) -> None:
        self._network = network
        self._constants = Constants(model)
        self._nodes = {node.outputs[0].name: node for node in model.graph if node.outputs}

    def rewrite(self, found: Node, shape: tuple[int, ...]) -> None:
        """Give a clip bounds of that shape."""
        name = self._network.values[found.outputs[0]].dtype
        dtype = np.dtype(getattr(ml_dtypes, name, name))
        numbers = limits(self._network, found)
        low, high = (
            self._constants.store(np.full(shape, number, dtype), None, name) if is_bound(number) else None
            for number, name in zip(numbers, _NAMES, strict=True)
        )
        node = self._nodes[found.outputs[0]]
        old = node.inputs
        if node.op_type == "Clip":
            self._split(node, low, high, at_zero=numbers[0] == 0)
        else:
            index = next(i for i, name in enumerate(found.inputs) if name in self._network.constants)
            node.replace_input_with(index, high if low is None else low)
        for value in old:
            self._constants.drop_if_unused(value)

    def _split(
        self, clip: onnx_ir.Node, low: onnx_ir.Value | None, high: onnx_ir.Value | None, at_zero: bool
    ) -> None:
        """Move these bounds from a Clip to a Max before it and a Min after it."""
        x, *given = clip.inputs
        assert x is not None
        value = x if low is None else self._before(clip, "Max", x, low)
        if at_zero:  # then the other limit is a bound
            value = self._before(clip, "Relu", value)
        elif low is None or high is None:
            given = [None if new else old for new, old in zip((low, high), given, strict=False)]
            kept = [clip.attributes.get(key) for key, new in (("min", low), ("max", high)) if not new]
            value = self._before(clip, "Clip", value, *given, attributes=kept)
        if high is not None:
            value = self._before(clip, "Min", value, high)
        take_over(value, clip)

    def _before(
        self,
        clip: onnx_ir.Node,
        operator: str,
        *operands: onnx_ir.Value | None,
        attributes: Sequence[onnx_ir.Attr | None] = (),
    ) -> onnx_ir.Value:
        """The result of a new node before `clip`, of the type of what `clip` computes."""
        old, suffix = clip.outputs[0], operator.lower()
        node = onnx_ir.Node("", operator, operands, [item for item in attributes if item], num_outputs=1)
        node.name = f"{clip.name}_{suffix}" if clip.name else None
        node.metadata_props.update(clip.metadata_props)
        result = node.outputs[0]
        result.name, result.type, result.shape = (
            self._constants.unused(f"{old.name}_{suffix}"),
            old.type,
            old.shape,
        )
        assert clip.graph is not None
        clip.graph.insert_before(clip, node)
        return result
