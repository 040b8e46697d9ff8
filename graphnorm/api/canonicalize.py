"""Canonicalisation: trace, solve, apply, emit, verify."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphnorm import ir
from graphnorm.api.confirming import failure_of, log_scales_of, measured_on, permuted, probes, prove, shown_in
from graphnorm.api.reports import Report, Verification, degenerate_groups
from graphnorm.api.sources import Source, open_model
from graphnorm.errors import InputError, NotEquivalentError
from graphnorm.permutation.order import canonical_order
from graphnorm.permutation.symmetry import Permutation, Symmetry, symmetry
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.rescaling.objective import build_problem, energy_by_weight
from graphnorm.solver.solve import METHODS, Solution, solve
from graphnorm.util.callers_state import kept_filters
from graphnorm.util.limits import enough_memory
from graphnorm.util.typing import Floats
from graphnorm.verification.layers import inexact_variables
from graphnorm.weights.coefficients import Rescaled
from graphnorm.weights.extremes import activation_extremes, leaving_half, weight_extremes, worth_running
from graphnorm.weights.fitting import ROUNDS, fit

MODES = ("optimal", "exact")
Progress = Callable[[str], None]
_MEMORY = 1.25  # of the weights' bytes: what the solver may hold beside them


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
            whose values callers could replace; in the result they are no inputs any more.
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
    """
    _check_options(p, c, mode, tol, gap, method, memory)
    if permute and mode == "exact":
        raise InputError("permute=True changes the order of sums, so outputs cannot stay bit-identical; "
                         "leave out mode='exact'")  # fmt: skip
    tell = progress or (lambda stage: None)
    clock = _Clock()
    tell("tracing")
    source = original = open_model(model, example_inputs, kwargs, input_shapes, inputs_as_weights)
    if inplace and rewrite_clips:
        raise InputError("rewrite_clips=True gives a new model, result.model; leave out inplace=True")
    if inplace and not hasattr(source, "call"):
        raise InputError("inplace=True is for torch models; an ONNX model comes back as result.model")
    rewriting = None
    if rewrite_clips:
        tell("rewriting clips")
        source, rewriting = original.rewrite_clips()
    source.network.check_finite()
    graph = build(source.network)
    clock.lap("trace")
    problem = build_problem(graph, p, c, biases)
    frozen = np.zeros(problem.count, dtype=bool)
    if memory is None:
        memory = int(_MEMORY * sum(w.nbytes for w in source.network.weights.values()))

    def solved(held: npt.NDArray[np.bool_]) -> Solution:
        return solve(
            problem, tol, max_cycles, method=method, gap=gap, certify=verify, frozen=held, memory=memory,
            watch=lambda at, cycles, seen: tell(f"solving: cycle {cycles}, imbalance {seen:.1e}"),
        )  # fmt: skip

    for _ in range(ROUNDS):
        tell("solving")
        solution, rescaled, z, final = fit(graph, problem, mode == "exact", solved, frozen, memory)
        clock.lap("solve")
        emitted, verification = _applied(
            original, source, graph, rescaled, z, mode, verify, device, tell, clock
        )
        measured = verification.measurement
        if mode != "exact" or measured is None or measured.bit_identical:
            break
        underflow = _underflow(source, graph, z, device)
        if frozen[underflow].all():
            break
        frozen[underflow] = True
    x = log_scales_of(graph, z, mode == "exact")
    weights: Mapping[str, ir.Array] = rescaled.weights
    permutation: Permutation = {}
    remarks = graph.remarks
    if permute:
        tell("ordering channels")
        allowed = symmetry(graph.network)
        remarks += allowed.defects
        weights, permutation = _ordered(graph, rescaled, allowed)
        emitted, verification = permuted(
            original, source, graph, weights, permutation, x, verify, device, verification
        )
        clock.lap("permute")
    if inplace:
        emitted = source.emit(weights, inplace=True)
    energy = energy_by_weight(graph, rescaled.weights, p)
    extremes = weight_extremes(graph, rescaled, x)
    if verify and worth_running(graph, extremes):
        tell("measuring activations")
        _, inputs = probes(source, device)[0]
        extremes["activation"] = activation_extremes(graph, source.hidden_values(source.model, inputs), x)
    report = Report(
        model=source.network.name,
        dimension=graph.dimension,
        objective={"before": solution.before, "after": final},
        solver={
            "method": method,
            "cycles": solution.cycles,
            "imbalance": solution.imbalance,
            "gap": solution.gap,
            "converged": solution.converged,
            "status": solution.status.name.lower(),
            "message": solution.status.message,
            "optimum": solution.after,
            "exact_cost": final / solution.after - 1 if mode == "exact" and solution.after else None,
            "limited_channels": len(rescaled.lost),
        },
        options={"p": p, "c": c, "biases": biases, "mode": mode, "tol": tol, "gap": gap},
        pins=graph.pins,
        degenerate=degenerate_groups(graph, solution.degenerate),
        unknown=graph.scales.unknown,
        energy=energy,
        verification=verification,
        permuted=len(permutation),
        seconds=clock.laps,
        clips=None if rewriting is None else {"rewritten": rewriting.rewritten, "left": rewriting.left},
        remarks=(
            *remarks,
            *verification.remarks,
            *shown_in(source.network, verification.measurement),
            *leaving_half(extremes),
        ),
        extremes=extremes,
    )
    return Result(source.given(emitted), rescaled.coefficients, report, source, graph, x, permutation)


def _check_options(
    p: float, c: float, mode: str, tol: float, gap: float | None, method: str, memory: int | None
) -> None:
    if not p > 0:
        raise InputError(f"p must be a positive number or inf, got {p}")
    if not (np.isfinite(c) and c > 0):
        raise InputError(f"c must be a positive number, got {c}")
    if mode not in MODES:
        raise InputError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if not tol > 0:
        raise InputError(f"tol must be positive, got {tol}")
    if gap is not None and not gap > 0:
        raise InputError(f"gap must be positive, got {gap}")
    if gap is not None and not np.isfinite(p):
        raise InputError("gap needs a finite p: the largest weight has no unique minimum to be near")
    if memory is not None and memory < 0:
        raise InputError(f"memory must be a number of bytes, got {memory}")
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")


def _applied(
    original: Source,
    source: Source,
    graph: RescalingGraph,
    rescaled: Rescaled,
    z: Floats,
    mode: str,
    verify: bool,
    device: str,
    tell: Progress,
    clock: _Clock,
) -> tuple[Any, Verification]:
    """The emitted model, and proof and measurement of its equivalence."""
    verification = Verification("not verified")
    if verify:
        tell("checking the certificate")
        verification = prove(original, graph, rescaled, z, mode == "exact")
        clock.lap("verify")
    tell("applying")
    emitted = source.emit(rescaled.weights)
    clock.lap("apply")
    if verify:
        tell("measuring")
        verification = measured_on(original, source.runner(emitted, device), verification, device)
        if verification.verdict == "differs":
            raise NotEquivalentError(
                failure_of(source, emitted, graph, graph.log_scales(z), verification, device)
            )
        clock.lap("verify")
    return emitted, verification


def _underflow(source: Source, graph: RescalingGraph, z: Floats, device: str) -> npt.NDArray[np.int64]:
    """Variables by which some activation of the test inputs leaves its float format."""
    x = graph.log_scales(z)
    found = [
        inexact_variables(graph, source.hidden_values(source.model, inputs), x)
        for _, inputs in probes(source, device)
    ]
    return np.unique(np.concatenate(found))


def _ordered(
    graph: RescalingGraph, rescaled: Rescaled, allowed: Symmetry
) -> tuple[dict[str, ir.Array], Permutation]:
    """Rescaled weights with hidden channels in their canonical order; only weights that change."""
    weights = {**graph.network.weights, **rescaled.weights}
    exact = {
        name: weights[name].astype(np.float64)
        if name not in rescaled.coefficients
        else graph.network.weights[name].astype(np.float64) * rescaled.coefficients[name]
        for name in weights
    }
    permutation = canonical_order(allowed, exact)
    moved = allowed.apply(permutation, weights)
    return {
        name: np.asarray(array, order="C")
        for name, array in moved.items()
        if name in rescaled.weights or array is not weights[name]
    }, permutation


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now
