"""One ONNX file: read, trace, apply a random rescaling by powers of two, compare.

Powers of two multiply the file's weights without rounding, so that its runs in float64 must agree.  Files
that ONNX's reference implementation doesn't cover are measured in float32, against their own noise.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from graphnorm.api.sources import Source, open_model
from graphnorm.ir import Array
from graphnorm.rescaling.graph import build
from graphnorm.scales.registry import Registry
from graphnorm.verification.anchor import Truth
from graphnorm.verification.inputs.battery import battery
from graphnorm.verification.measure import measure
from graphnorm.verification.onnx.float64 import Float64Runner
from graphnorm.weights.coefficients import powers_of_two, rescale
from tools.coverage.records import FELT, TOLERANCE, Record
from tools.coverage.rescaling import describe, difference, probes, random_element

TYPICAL = 1.0  # log-scale: coefficients from 1/8 to 8


def check(record: Record, path: Path, registry: Registry | None = None) -> Iterator[Record]:
    """Fill in `record`; yields it whenever a step begins, and at the end."""
    record.stage = "trace"
    yield record
    start = time.process_time()
    source = open_model(path)
    graph = build(source.network, registry)
    record.trace_seconds = time.process_time() - start
    rescaled = rescale(graph, powers_of_two(graph, random_element(graph, TYPICAL)), exact=True)
    describe(record, graph, rescaled.coefficients)
    record.stage = "compare"
    yield record
    _compare(record, source, rescaled.weights)
    record.stage = "done"
    yield record


def _compare(record: Record, source: Source, weights: Mapping[str, Array]) -> None:
    """Fill in how much the outputs change on a normal input."""
    inputs = battery(source.network, source.example)
    _, arrays = inputs[0]
    original = source.runner(source.model, "cpu")
    truth = Truth(original)
    runs = [original.run(arrays), *(variant.run(arrays) for variant in truth.reference.variants)]
    before, believed = truth(arrays, runs)
    record.criterion = truth.name
    if not believed:
        measured = measure(original, source.runner(source.emit(weights), "cpu"), inputs)
        record.difference, record.preserved = measured.rmse_ratio, measured.agrees
        return

    def change(changed: Mapping[str, Array]) -> float:
        return difference(before, Float64Runner(source.emit(changed), source.network).run(arrays))

    for name in probes(weights):
        record.probed += 1
        record.felt += change({name: weights[name]}) > FELT
    record.difference = change(weights)
    record.preserved = record.difference <= TOLERANCE
