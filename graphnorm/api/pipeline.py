"""One canonicalisation, stage by stage: solve, apply, emit, verify, and order channels if asked to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from graphnorm import ir
from graphnorm.api.confirming import check_emitted, measured_on, probes, prove, shown_in
from graphnorm.api.options import Options
from graphnorm.api.records import ClipRun, Objective, solver_run
from graphnorm.api.reports import Report, degenerate_groups
from graphnorm.api.sources import Source
from graphnorm.api.stages import Stages
from graphnorm.api.verdicts import Verdict, Verification
from graphnorm.permutation.order import canonical_order
from graphnorm.permutation.symmetry import Permutation, Symmetry, inverse, symmetry
from graphnorm.rescaling.clips import Rewriting
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.rescaling.objective import Change, build_problem, energy_by_weight
from graphnorm.solver.problem import Problem
from graphnorm.solver.solve import Solution, solve
from graphnorm.util.typing import Bools, Integers
from graphnorm.verification.certificate import check_certificate
from graphnorm.verification.inputs.probes import Probes
from graphnorm.verification.layers import inexact_variables
from graphnorm.weights.extremes import activation_extremes, leaving_half, weight_extremes, worth_running
from graphnorm.weights.fitting import ROUNDS, Fit, fit

_MEMORY = 1.25  # of the weights' bytes: the solver's default memory budget


@dataclass(frozen=True)
class Outcome:
    """The result of a canonicalisation.

    Attributes:
        fitted: log-scales and rescaled weights.
        emitted: the re-parameterised model.
        permutation: of hidden channels, after the rescaling.
        report: what was done.
    """

    fitted: Fit
    emitted: Any
    permutation: Permutation
    report: Report


@dataclass
class Pipeline:
    """The stages of one run, and what several of them need.

    Attributes:
        original: the model that was given.
        source: the same, or with rewritten clips.
        rewriting: which clips were rewritten, if that was asked for.
        graph: the rescaling graph of `source`.
        options: what was asked for.
        stages: clock and progress.
    """

    original: Source
    source: Source
    rewriting: Rewriting | None
    graph: RescalingGraph
    options: Options
    stages: Stages

    @cached_property
    def inputs(self) -> Probes:
        """Inputs that the original takes, with its runs."""
        return probes(self.original, self.options.device)

    @cached_property
    def symmetry(self) -> Symmetry:
        """Permutations of hidden channels that keep the function."""
        return symmetry(self.graph.network)

    @cached_property
    def problem(self) -> Problem:
        """The objective in arrays."""
        return build_problem(self.graph, self.options.p, self.options.c, self.options.biases)

    @property
    def memory(self) -> int:
        """Bytes for the solver's masses."""
        if self.options.memory is not None:
            return self.options.memory
        return int(_MEMORY * sum(array.nbytes for array in self.source.network.weights.values()))

    def run(self) -> Outcome:
        """All stages.

        Raises:
            NotEquivalentError: the result is not the same function.
        """
        options, graph = self.options, self.graph
        fitted, emitted, verification = self._fitted()
        weights: Mapping[str, ir.Array] = fitted.rescaled.weights
        permutation: Permutation = {}
        if options.permute:
            with self.stages("permute", "ordering channels"):
                weights, permutation = self._ordered(fitted)
                emitted, verification = self._permuted(fitted, weights, permutation, verification)
        if options.inplace:
            emitted = self.source.emit(weights, inplace=True)
        extremes = self._extremes(fitted)
        limited = len(fitted.rescaled.lost)
        report = Report(
            model=self.source.network.name,
            dimension=graph.dimension,
            objective=Objective(fitted.solution.before, fitted.objective),
            solver=solver_run(
                fitted.solution, options.method, fitted.objective if options.exact else None, limited
            ),
            options=options,
            pins=graph.pins,
            degenerate=degenerate_groups(graph, fitted.solution.degenerate),
            unknown=graph.scales.unknown,
            energy=energy_by_weight(graph, fitted.rescaled.weights, options.p),
            verification=verification,
            permuted=len(permutation),
            seconds=self.stages.seconds,
            clips=None if self.rewriting is None else ClipRun(self.rewriting.rewritten, self.rewriting.left),
            remarks=(
                *graph.remarks,
                *(self.symmetry.defects if options.permute else ()),
                *verification.remarks,
                *shown_in(self.source.network, verification.measurement),
                *leaving_half(extremes),
            ),
            extremes=extremes,
        )
        return Outcome(fitted, emitted, permutation, report)

    def _fitted(self) -> tuple[Fit, Any, Verification]:
        """Solve and verify; in exact mode again, without the channels by which an activation loses bits."""
        frozen = np.zeros(self.problem.count, dtype=bool)
        for _ in range(ROUNDS):
            with self.stages("solve", "solving"):
                fitted = fit(self.graph, self.problem, self.options.exact, self._solved, frozen, self.memory)
            emitted, verification = self._applied(fitted)
            measured = verification.measurement
            if not self.options.exact or measured is None or measured.bit_identical:
                break
            underflow = self._underflow(fitted)
            if frozen[underflow].all():
                break
            frozen[underflow] = True
        return fitted, emitted, verification

    def _solved(self, held: Bools) -> Solution:
        options = self.options
        return solve(
            self.problem, options.tol, options.max_cycles, method=options.method, gap=options.gap,
            certify=options.verify, frozen=held, memory=self.memory,
            watch=lambda at, cycles, seen: self.stages.tell(f"solving: cycle {cycles}, imbalance {seen:.1e}"),
        )  # fmt: skip

    def _applied(self, fitted: Fit) -> tuple[Any, Verification]:
        """The emitted model, and proof and measurement of its equivalence."""
        options, stages = self.options, self.stages
        verification = Verification(Verdict.UNVERIFIED)
        if options.verify:
            with stages("verify", "checking the certificate"):
                verification = prove(self.original, self.graph, fitted, options.exact)
        with stages("apply", "applying"):
            emitted = self.source.emit(fitted.rescaled.weights)
        if options.verify:
            with stages("verify", "measuring"):
                runner = self.source.runner(emitted, options.device)
                verification = measured_on(self.inputs, runner, verification)
                check_emitted(self.source, emitted, self.graph, fitted.x, verification, self.inputs)
        return emitted, verification

    def _underflow(self, fitted: Fit) -> Integers:
        """Variables by which some activation of the test inputs leaves its float format."""
        found = [
            inexact_variables(self.graph, self.source.hidden_values(self.source.model, inputs), fitted.x)
            for _, inputs in self.inputs
        ]
        return np.unique(np.concatenate(found))

    def _ordered(self, fitted: Fit) -> tuple[dict[str, ir.Array], Permutation]:
        """Rescaled weights with hidden channels in their canonical order; only weights that change."""
        old, rescaled = self.graph.network.weights, fitted.rescaled
        weights = {**old, **rescaled.weights}
        exact = {
            name: weights[name].astype(np.float64)
            if name not in rescaled.coefficients
            else old[name].astype(np.float64) * rescaled.coefficients[name]
            for name in weights
        }
        permutation = canonical_order(self.symmetry, exact)
        moved = self.symmetry.apply(permutation, weights)
        return {
            name: np.asarray(array, order="C")
            for name, array in moved.items()
            if name in rescaled.weights or array is not weights[name]
        }, permutation

    def _permuted(
        self,
        fitted: Fit,
        weights: Mapping[str, ir.Array],
        permutation: Permutation,
        verification: Verification,
    ) -> tuple[Any, Verification]:
        """The emitted model with permuted weights, verified once more."""
        emitted = self.source.emit(weights)
        if not self.options.verify:
            return emitted, verification
        back = self.symmetry.apply(inverse(permutation), {**self.graph.network.weights, **weights})
        certificate = check_certificate(self.graph, back, fitted.x)
        proof = Verification(Verdict.PROVED if certificate.valid else Verdict.DIFFERS, certificate)
        measured = measured_on(self.inputs, self.source.runner(emitted, self.options.device), proof)
        check_emitted(self.source, emitted, self.graph, None, measured, self.inputs)
        return emitted, measured

    def _extremes(self, fitted: Fit) -> dict[str, Change]:
        """The largest numbers before and after; and of activations where they may have grown."""
        found = weight_extremes(self.graph, fitted.rescaled, fitted.x)
        if self.options.verify and worth_running(self.graph, found):
            self.stages.tell("measuring activations")
            _, inputs = self.inputs[0]
            hidden = self.source.hidden_values(self.source.model, inputs)
            found["activation"] = activation_extremes(self.graph, hidden, fitted.x)
        return found
