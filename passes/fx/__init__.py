"""Passes over ``torch.fx.GraphModule``, for ``torch.fx.passes.infra.pass_manager.PassManager``.

A pass is a dataclass whose fields are its options; a call returns ``PassResult(graph_module, modified)``.
All are idempotent: a second run reports ``modified=False``.

    example = (images,)
    PassManager([FoldBatchNormPass(), RewriteClipsPass(example), CanonicalizePass(example)])(graph_module)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import graphnorm
from graphnorm.util.extras import needing

with needing("graphnorm.passes.fx"):
    from torch.fx import GraphModule
    from torch.fx.passes.infra.pass_base import PassBase, PassResult

    from graphnorm.passes.fx.calls import require_graph_module
    from graphnorm.passes.fx.clip import RewriteClipsPass
    from graphnorm.passes.fx.clip_calls import ChannelClip
    from graphnorm.passes.fx.equinorm_convert import ConvertToEquiNormPass
    from graphnorm.passes.fx.equinorm_fold import FoldEquiNormPass
    from graphnorm.passes.fx.equinorm_norms import ConvertToBatchNormPass, ConvertToGroupNormPass
    from graphnorm.passes.fx.fold import FoldBatchNormPass
    from graphnorm.passes.fx.norm_split import SplitNormPass

__all__ = [
    "CanonicalizePass",
    "ChannelClip",
    "ConvertToBatchNormPass",
    "ConvertToEquiNormPass",
    "ConvertToGroupNormPass",
    "FoldBatchNormPass",
    "FoldEquiNormPass",
    "RewriteClipsPass",
    "SplitNormPass",
]

MODIFIED_TOLERANCE = 1e-6  # a coefficient this close to 1 counts as 1


@dataclass(eq=False)
class CanonicalizePass(PassBase):
    """Replace the weights by the rescaling-equivalent ones of least l_p norm (`graphnorm.canonicalize`).

    Attributes:
        example_inputs: Positional arguments of the module; only their shapes and types matter.
        p: Exponent of the norm.
        c: Depth penalty of asymmetric ENorm; 1 is none.
        biases: Count biases in the norm, too.
        mode: ``"optimal"``, or ``"exact"``: coefficients are powers of two, outputs bit-identical.
        tol: Largest log-imbalance left at any neuron.
        verify: Check that the result computes the same function.
        inplace: Change the given module instead of a copy.
        device: Where to solve and to verify: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        report: After a call, the report of `graphnorm.canonicalize`.

    >>> import torch
    >>> from torch.fx import symbolic_trace
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> run = CanonicalizePass((torch.randn(3, 4),))
    >>> result = run(symbolic_trace(model))
    >>> result.modified, run(result.graph_module).modified
    (True, False)
    """

    example_inputs: tuple[Any, ...]
    p: float = 2.0
    c: float = 1.0
    biases: bool = False
    mode: str = "optimal"
    tol: float = 1e-8
    verify: bool = True
    inplace: bool = False
    device: str = "auto"
    report: Any = field(default=None, init=False, repr=False)

    def requires(self, graph_module: GraphModule) -> None:
        require_graph_module(self, graph_module)

    def call(self, graph_module: GraphModule) -> PassResult:
        """Solve and emit; the given module itself comes back if it was canonical already."""
        result = graphnorm.canonicalize(
            graph_module,
            self.example_inputs,
            p=self.p,
            c=self.c,
            biases=self.biases,
            mode=self.mode,
            tol=self.tol,
            verify=self.verify,
            inplace=self.inplace,
            device=self.device,
        )
        self.report = result.report
        modified = any(
            bool(np.any(np.abs(coefficient - 1) > MODIFIED_TOLERANCE))
            for coefficient in result.coefficients.values()
        )
        return PassResult(result.model if modified else graph_module, modified)
