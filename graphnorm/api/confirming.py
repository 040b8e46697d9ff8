"""Proof and measurement that a rewritten model is the same function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from graphnorm import ir
from graphnorm.api.reports import Verification
from graphnorm.api.sources import Source
from graphnorm.errors import NotEquivalentError
from graphnorm.permutation.symmetry import Permutation, inverse, symmetry
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
from graphnorm.weights.coefficients import LOG2, Rescaled


def prove(
    original: Source, graph: RescalingGraph, rescaled: Rescaled, z: Floats, exact: bool
) -> Verification:
    """The certificate of a rescaling; of the rewriting before it too, if there was one."""
    x = log_scales_of(graph, z, exact)
    certificate = check_certificate(graph, {**graph.network.weights, **rescaled.weights}, x, exact)
    if graph.network is not original.network:
        departure = first_departure(original.network, graph.network)
        if departure:
            certificate = replace(certificate, valid=False, failure=f"rewriting clips changed {departure}")
    return Verification("proved" if certificate.valid else "differs", certificate)


def log_scales_of(graph: RescalingGraph, z: Floats, exact: bool) -> Floats:
    """Log-scale of each label; in exact mode whole multiples of log 2."""
    x = graph.log_scales(z)
    return np.asarray(np.rint(x / LOG2) * LOG2) if exact else x


def permuted(
    original: Source,
    source: Source,
    graph: RescalingGraph,
    weights: Mapping[str, ir.Array],
    permutation: Permutation,
    x: Floats,
    verify: bool,
    device: str,
    verification: Verification,
) -> tuple[Any, Verification]:
    """The emitted model with permuted weights, verified once more."""
    emitted = source.emit(weights)
    if not verify:
        return emitted, verification
    back = symmetry(graph.network).apply(inverse(permutation), {**graph.network.weights, **weights})
    certificate = check_certificate(graph, back, x)
    proof = Verification("proved" if certificate.valid else "differs", certificate)
    measured = measured_on(original, source.runner(emitted, device), proof, device)
    if measured.verdict == "differs":
        raise NotEquivalentError(
            f"{source.network.name}: permuted, it is not the same function: {measured.failure}"
        )
    return emitted, measured


def measured_on(original: Source, emitted: Runner, verification: Verification, device: str) -> Verification:
    """A proof, and what both models give on the battery of inputs."""
    inputs = probes(original, device)
    if not inputs[:1]:
        remarks = (*inputs.remarks, "no input was found that the model takes: the proof stands alone")
        return replace(verification, remarks=remarks)
    measurement = measure(inputs.original, emitted, inputs)
    verdict = verification.verdict if measurement.agrees else "differs"
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


def failure_of(
    source: Source, emitted: Any, graph: RescalingGraph, x: Floats, verification: Verification, device: str
) -> str:
    """What a rescaled model that is not the same function differs in."""
    message = f"{source.network.name}: the rescaled model is not the same function: {verification.failure}"
    layer = next(
        (
            first_difference(
                graph, source.hidden_values(source.model, inputs), source.hidden_values(emitted, inputs), x
            )
            for _, inputs in probes(source, device)[:1]
        ),
        "",
    )
    return f"{message}; the first layer that parts is {layer}" if layer else message
