"""Passes over ``onnx_ir.Model``, to be composed with ``onnx_ir.passes.Sequential`` and ``PassManager``.

A pass is a dataclass whose fields are its options; a call returns ``PassResult(model, modified)``.
`FoldBatchNormPass` works in place; `RewriteClipsPass` and `CanonicalizePass` are functional: they return a
new model that shares unchanged tensors with the given one.  All are idempotent: a second run reports
``modified=False``.

    Sequential(FoldBatchNormPass(), RewriteClipsPass(), CanonicalizePass())(onnx_ir.load("model.onnx"))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import graphnorm
from graphnorm.util.extras import needing

with needing("graphnorm.passes.onnx"):
    import onnx_ir
    from onnx_ir.passes import FunctionalPass, PassResult

    from graphnorm.passes.onnx.clip import RewriteClipsPass
    from graphnorm.passes.onnx.constants import require_model
    from graphnorm.passes.onnx.fold import FoldBatchNormPass

__all__ = ["CanonicalizePass", "FoldBatchNormPass", "RewriteClipsPass"]

MODIFIED_TOLERANCE = 1e-6  # a coefficient this close to 1 counts as 1


@dataclass(eq=False)
class CanonicalizePass(FunctionalPass):
    """Replace the weights by the rescaling-equivalent ones of least l_p norm (`graphnorm.canonicalize`).

    Attributes:
        example_inputs: Inputs by name or in order, to fix symbolic sizes; None: sizes are chosen.
        p: Exponent of the norm.
        c: Depth penalty of asymmetric ENorm; 1 is none.
        biases: Count biases in the norm, too.
        mode: ``"optimal"``, or ``"exact"``: coefficients are powers of two, outputs bit-identical.
        tol: Largest log-imbalance left at any neuron.
        verify: Check that the result computes the same function.
        inputs_as_weights: Take initializers as weights even where they are graph inputs, and remove them
            from the inputs.
        device: Where to solve and to verify: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        report: After a call, the report of `graphnorm.canonicalize`.

    >>> import onnx.parser, onnx_ir
    >>> model = onnx_ir.from_proto(onnx.parser.parse_model(
    ...     '<ir_version: 10, opset_import: ["": 20]> small (float[1,2] x) => (float[1,2] y)'
    ...     "<float[2,2] a = {1, 2, 3, 4}, float[2,2] b = {5, 6, 7, 8}>"
    ...     "{ h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }"))
    >>> CanonicalizePass()(model).modified
    True
    """

    example_inputs: Any = None
    p: float = 2.0
    c: float = 1.0
    biases: bool = False
    mode: str = "optimal"
    tol: float = 1e-8
    verify: bool = True
    inputs_as_weights: bool = False
    device: str = "auto"
    report: Any = field(default=None, init=False, repr=False)

    def call(self, model: onnx_ir.Model) -> PassResult:
        """Solve and emit; a plain clone comes back if the model was canonical already.

        Raises:
            InputError: `model` is no ``onnx_ir.Model``.
        """
        require_model(self, model)
        result = graphnorm.canonicalize(
            model,
            self.example_inputs,
            p=self.p,
            c=self.c,
            biases=self.biases,
            mode=self.mode,
            tol=self.tol,
            verify=self.verify,
            inputs_as_weights=self.inputs_as_weights,
            device=self.device,
        )
        self.report = result.report
        modified = any(
            bool(np.any(np.abs(coefficient - 1) > MODIFIED_TOLERANCE))
            for coefficient in result.coefficients.values()
        )
        return PassResult(result.model if modified else model.clone(), modified)
