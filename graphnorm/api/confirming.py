"""Proof and measurement that a rewritten model is the same function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphnorm import ir
from graphnorm.api.sources import Source
from graphnorm.api.verdicts import Verdict, Verification
from graphnorm.errors import NotEquivalentError
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.util.typing import Floats
from graphnorm.verification.certificate import check_certificate
from graphnorm.verification.inputs.battery import Drawing, kinds
from graphnorm.verification.inputs.probes import Probes
from graphnorm.verification.layers import first_difference
from graphnorm.verification.measure import Measurement, measure
from graphnorm.verification.movement import of_unmoved, unmoved
from graphnorm.verification.rewriting import first_departure
from graphnorm.verification.runner import Runner
from graphnorm.weights.fitting import Fit


def prove(original: Source, graph: RescalingGraph, fitted: Fit, exact: bool) -> Verification:
    """The certificate of a rescaling; of the rewriting before it too, if there was one."""
    weights = {**graph.network.weights, **fitted.rescaled.weights}
    certificate = check_certificate(graph, weights, fitted.x, exact)
    if graph.network is not original.network:
        departure = first_departure(original.network, graph.network)
        if departure:
            certificate = replace(certificate, valid=False, failure=f"rewriting clips changed {departure}")
    return Verification(Verdict.PROVED if certificate.valid else Verdict.DIFFERS, certificate)


def measured_on(inputs: Probes, emitted: Runner, verification: Verification) -> Verification:
    """A proof, and a measurement of both models on the battery of inputs."""
    if not inputs[:1]:
        remarks = (*inputs.remarks, "no input was found that the model takes: it was not measured")
        return replace(verification, remarks=remarks)
    measurement = measure(inputs.original, emitted, inputs)
    verdict = verification.verdict if measurement.agrees else Verdict.DIFFERS
    return Verification(verdict, verification.certificate, measurement, inputs.remarks)


def probes(source: Source, device: str) -> Probes:
    """Inputs that a model takes."""
    drawing = Drawing(source.network, source.example)
    return Probes(drawing, source.runner(source.model, device), kinds(1, wide=False))


def shown_in(network: ir.Graph, measurement: Measurement | None) -> tuple[str, ...]:
    """Sentences for the report: how the models were run, and outputs about which the runs show nothing."""
    if measurement is None:
        return ()
    still = unmoved(network, measurement.still)
    silent = [of_unmoved(network, still, measurement.inputs)] if still else []
    return (*measurement.remarks, *silent)


def check_emitted(
    source: Source,
    emitted: Any,
    graph: RescalingGraph,
    x: Floats | None,
    verification: Verification,
    inputs: Probes,
) -> None:
    """Refuse an emitted model that is not the same function.

    Args:
        source: the original.
        emitted: the model to judge.
        graph: the rescaling graph.
        x: log-scale of each label, by which hidden values are compared; None: channels stand elsewhere.
        verification: what was found out about it.
        inputs: on which the original was run.

    Raises:
        NotEquivalentError: it is another function; the first layer that differs is named.
    """
    if verification.verdict is not Verdict.DIFFERS:
        return
    name = source.network.name
    if x is None:
        raise NotEquivalentError(f"{name}: permuted, it is not the same function: {verification.failure}")
    message = f"{name}: the rescaled model is not the same function: {verification.failure}"
    for _, arrays in inputs[:1]:
        before, after = source.hidden_values(source.model, arrays), source.hidden_values(emitted, arrays)
        layer = first_difference(graph, before, after, x)
        if layer:
            message += f"; the first layer that differs is {layer}"
    raise NotEquivalentError(message)
