"""One torch model: export, trace, apply a random rescaling, compare in float64."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from graphnorm.emission.torch_module import named_tensors, rescale_torch
from graphnorm.frontends.torch.read import read_torch
from graphnorm.rescaling.graph import build
from graphnorm.scales.registry import Registry
from graphnorm.util.typing import Floats
from tools.coverage.float64 import randomise, run
from tools.coverage.records import FELT, TOLERANCE, Record
from tools.coverage.rescaling import Coefficients, describe, difference, probes, random_element

Build = Callable[[], tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]


def check(record: Record, make: Build, registry: Registry | None = None) -> Iterator[Record]:
    """Fill in `record`; yields it whenever a step begins, and at the end."""
    torch.manual_seed(0)
    module, args, kwargs = make()
    module.eval()
    randomise(module)
    record.stage = "export"
    yield record
    start = time.process_time()
    program = torch.export.export(module, args, kwargs, strict=False)  # as graphnorm.trace does
    record.export_seconds = time.process_time() - start
    record.stage = "trace"
    yield record
    start = time.process_time()
    graph = build(read_torch(program), registry)
    record.trace_seconds = time.process_time() - start
    coefficients = Coefficients(graph, random_element(graph))
    describe(record, graph, coefficients)
    record.stage = "compare"
    yield record
    compare(record, module, args, kwargs, coefficients)
    record.stage = "done"
    yield record


def compare(
    record: Record, module: nn.Module, args: Any, kwargs: Any, coefficients: Mapping[str, Floats]
) -> None:
    """Fill in how much the outputs change in float64; the module is widened and rescaled in place."""
    module = module.double()
    tensors = named_tensors(module)

    def multiply(name: str) -> None:
        rescale_torch(module, {name: tensors[name].detach().numpy() * coefficients[name]}, inplace=True)

    before = run(module, args, kwargs)
    for name in probes(coefficients):
        kept = tensors[name].detach().clone()
        multiply(name)
        record.probed += 1
        record.felt += difference(before, run(module, args, kwargs)) > FELT
        tensors[name].detach().copy_(kept)
    for name in coefficients:
        multiply(name)
    record.criterion = "float64"
    record.difference = difference(before, run(module, args, kwargs))
    record.preserved = record.difference <= TOLERANCE
