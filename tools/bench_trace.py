"""What `graphnorm.trace` costs beside the export that it starts with.

    python tools/bench_trace.py [MODEL ...] [--runs 5] [--limit RATIO] [--json PATH]

MODEL is timm:NAME, torchvision:NAME or module.path:callable.  After a warm-up, the two take turns in one
process: `torch.export.export(model, inputs, strict=False)`, and the trace, which includes its own export.
Printed are medians over the turns: CPU seconds (which other work on the machine changes least), wall seconds,
and the ratio trace / export of each turn.  "read" (export -> intermediate representation) and "build"
(-> rescaling graph) are the trace's other parts, timed by themselves, in CPU seconds.

Exits with 1 if a ratio of CPU seconds is above --limit.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

import graphnorm
from graphnorm.cli.models.zoo import build_module
from graphnorm.frontends.torch.read import read_torch
from graphnorm.rescaling.graph import build

DEFAULT = (
    "torchvision:resnet50", "torchvision:vit_b_16", "torchvision:mobilenet_v2", "torchvision:densenet121",
    "torchvision:swin_t", "torchvision:convnext_tiny",
)  # fmt: skip
COLUMNS = {
    "model": "model", "ratio": "trace / export", "wall_ratio": "by wall", "export": "export s",
    "trace": "trace s", "read": "read s", "build": "build s", "export_wall": "export wall s",
    "trace_wall": "trace wall s", "nodes": "nodes",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """Medians over the turns, in CPU seconds but for those of the wall clock."""

    model: str
    runs: int
    nodes: int
    ratio: float
    wall_ratio: float
    export: float
    trace: float
    read: float
    build: float
    export_wall: float
    trace_wall: float


@dataclass(frozen=True, slots=True)
class Seconds:
    """What one call took."""

    cpu: float
    wall: float


def timed(call: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Seconds, Any]:
    """Time a call that begins without garbage of those before it."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    result = call(*arguments, **options)
    return Seconds(time.process_time() - cpu, time.perf_counter() - wall), result


def measure(spec: str, runs: int) -> Row:
    """Export and trace one model `runs` times after a warm-up."""
    home, _, name = spec.partition(":")
    built = build_module(home, name, seed=0)
    model = built.module.eval()
    example = tuple(torch.randn(*shape.sizes) for shape in built.example.shapes)
    nodes = len(graphnorm.trace(model, example).network.nodes)
    turns: dict[str, list[Seconds]] = {name: [] for name in ("export", "trace", "read", "build")}
    for _ in range(runs):
        export, program = timed(torch.export.export, model, example, strict=False)
        read, network = timed(read_torch, program)
        built_in, _ = timed(build, network)
        del program, network
        trace, _ = timed(graphnorm.trace, model, example)
        for name, seconds in zip(turns, (export, trace, read, built_in), strict=True):
            turns[name].append(seconds)
    cpu = {name: median(seconds.cpu for seconds in found) for name, found in turns.items()}
    pairs = list(zip(turns["trace"], turns["export"], strict=True))
    return Row(
        model=spec,
        runs=runs,
        nodes=nodes,
        ratio=median(trace.cpu / export.cpu for trace, export in pairs),
        wall_ratio=median(trace.wall / export.wall for trace, export in pairs),
        export_wall=median(export.wall for _, export in pairs),
        trace_wall=median(trace.wall for trace, _ in pairs),
        **cpu,
    )


def line(row: Row) -> str:
    """One line of the Markdown table."""
    values = [getattr(row, name) for name in COLUMNS]
    return f"| {' | '.join(f'{v:.2f}' if isinstance(v, float) else str(v) for v in values)} |"


def main() -> int:
    """Measure each model, print the table line by line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=DEFAULT)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=float, default=None, metavar="RATIO")
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # torch's own, once a decomposition
    print(f"| {' | '.join(COLUMNS.values())} |\n|{'---|' * len(COLUMNS)}", flush=True)
    rows: list[Row] = []
    for spec in options.models:
        rows.append(measure(spec, options.runs))
        print(line(rows[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return int(options.limit is not None and any(row.ratio > options.limit for row in rows))


if __name__ == "__main__":
    sys.exit(main())
