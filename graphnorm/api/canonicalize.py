"""`graphnorm.canonicalize`: trace, solve, apply, emit, verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphnorm.api.options import Mode, Options
from graphnorm.api.pipeline import Pipeline
from graphnorm.api.reports import Report
from graphnorm.api.sources import Source, open_model
from graphnorm.api.stages import Progress, Stages
from graphnorm.errors import InputError
from graphnorm.permutation.symmetry import Permutation
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.util.callers_state import kept_filters
from graphnorm.util.limits import enough_memory
from graphnorm.util.typing import Floats


@dataclass(frozen=True)
class Result:
    """A canonicalised model.

    Attributes:
        model: the re-parameterised model, of the kind that was given.
        coefficients: weight name -> factors (multiplied), broadcastable to the weight.
        report: what was done, and the proof.
        source: the original with its front end (to save the model in its format); with rewritten clips if
            there are any.
        graph: the rescaling graph.
        log_scales: of each label of the graph.
        permutation: of hidden channels, after the rescaling; which old channel stands at each new place.

    >>> import torch, graphnorm
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> result = graphnorm.canonicalize(model, torch.randn(3, 4), mode="exact")
    >>> {name: factors.shape for name, factors in result.coefficients.items()}
    {'0.weight': (8, 1), '0.bias': (8,), '2.weight': (2, 8)}
    """

    model: Any
    coefficients: Mapping[str, Floats]
    report: Report
    source: Source
    graph: RescalingGraph
    log_scales: Floats
    permutation: Permutation

    def __repr__(self) -> str:
        return f"Result(model={type(self.model).__name__}, report={self.report!r})"


@kept_filters()
@enough_memory()
def canonicalize(
    model: Any,
    example_inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    inputs_as_weights: bool = False,
    p: float = 2.0,
    c: float = 1.0,
    biases: bool = False,
    mode: str = "optimal",
    tol: float = 1e-8,
    gap: float | None = None,
    max_cycles: int = 1000,
    method: str = "auto",
    memory: int | None = None,
    verify: bool = True,
    inplace: bool = False,
    rewrite_clips: bool = False,
    permute: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> Result:
    """Rescale a model to the unique minimum of its weights' l_p norm, keeping its function.

    Args:
        model: see `graphnorm.trace`.
        example_inputs: inputs to trace a torch module with, and to verify on.
        kwargs: keyword inputs of a torch module.
        input_shapes: sizes of an ONNX model's symbolic dimensions, by input name.
        inputs_as_weights: take an ONNX model's initializers as weights even where they are graph inputs,
            whose values callers could replace; in the result they are no longer inputs.
        p: exponent of the norm, > 0; ``inf`` balances the largest absolute weights.
        c: asymmetry of ENorm-c (Stock et al. 2019, section 3.4), > 0; 1 is symmetric.
        biases: count what is added (biases, running means, initial states) in the norm, too: convex and
            unique as without, with a somewhat larger norm of the weights, and no bias grows beyond measure.
        mode: ``optimal``, or ``exact``: coefficients are powers of two, outputs stay bit-identical.
        tol: stop when max |log(in / out)| over all neurons is at most this.
        gap: go on until the objective is proved to be within this fraction of its minimum, too.
        max_cycles: limit on solver cycles.
        method: ``auto``, ``coarse``, ``newton``, ``cyclic`` (the paper's algorithm 1) or ``paper_blocks``.
        memory: bytes for the solver's channel-by-channel masses; layers beyond it are read again in each
            cycle.  Default: a quarter more than the weights have.
        verify: check the certificate and run both models.
        inplace: change a torch model itself.
        rewrite_clips: first make weights of the bounds of ReLU6, Hardtanh and Clip, one per channel, where
            their channels can be rescaled then; an ``nn.Module`` with functional or shared clips comes back
            as an ``fx.GraphModule``.
        permute: put hidden channels in a canonical order, too.
        device: where to measure: ``auto``, ``cpu``, ``cuda``.
        progress: called with the name of each stage.

    Raises:
        InputError: options or model cannot be taken.
        NotEquivalentError: verification failed; nothing was changed.

    Returns:
        The model with new weights, their coefficients (linear factors), and a report with proof and
        measurement.  The objective is that of Stock et al. 2019 (matrix balancing: Osborne 1960).

    >>> import torch, graphnorm
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> result = graphnorm.canonicalize(model, torch.randn(3, 4))
    >>> result.report.verification.verdict, result.model is model
    ('proved', False)
    """
    options = Options(
        inputs_as_weights=inputs_as_weights, p=p, c=c, biases=biases, mode=Mode.given(mode),
        tol=tol, gap=gap, max_cycles=max_cycles, method=method, memory=memory, verify=verify, inplace=inplace,
        rewrite_clips=rewrite_clips, permute=permute, device=device,
    )  # fmt: skip
    stages = Stages(progress)
    with stages("trace", "tracing"):
        source = original = open_model(model, example_inputs, kwargs, input_shapes, inputs_as_weights)
        if inplace and not hasattr(source, "call"):
            raise InputError("inplace=True is for torch models; an ONNX model comes back as result.model")
        rewriting = None
        if rewrite_clips:
            stages.tell("rewriting clips")
            source, rewriting = original.rewrite_clips()
        source.network.check_finite()
        graph = build(source.network)
    found = Pipeline(original, source, rewriting, graph, options, stages).run()
    return Result(
        source.given(found.emitted), found.fitted.rescaled.coefficients, found.report, source, graph,
        found.fitted.x, found.permutation,
    )  # fmt: skip
