"""What the solver costs: cycles and seconds of each method, against a copy of the weights, and with growth.

    python tools/bench_solver.py [--networks PATTERN] [--runs 5] [--json PATH]     methods and costs
    python tools/bench_solver.py --growth [--most 1e9] [--plot PATH] [--json PATH] cost against size and depth

Solve + apply starts from a traced network and ends with new weights: channel masses from the weights, the
solve, all weights multiplied.  It is compared with cloning all weights in turns, medians in one process.
`scipy.linalg.matrix_balance` (LAPACK gebal, powers of two only) runs on the neuron-by-neuron matrix where it
has at most 4000 rows.  Peak memory counts NumPy's allocations, with the weights themselves, over the weights.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import re
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import scipy.linalg
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import graphnorm
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.rescaling.objective import build_problem
from graphnorm.solver.problem import Problem
from graphnorm.solver.solve import METHODS, hold, solve
from graphnorm.weights.coefficients import rescale
from tools.bench_networks import NETWORKS, mlp

_GEBAL_ROWS = 4000
_LIMIT_S = 30.0  # of one run of a method
_REPEAT_S = 5.0  # methods that are faster run again


class _TooSlowError(Exception):
    """A run passed its limit."""


def seconds(run: Callable[[], Any]) -> float:
    """Wall seconds of one call, in newly allocated memory, as in a single run.

    A clone into pages that an earlier one left is three times as fast.
    """
    gc.collect()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def solve_and_apply(graph: RescalingGraph, tol: float) -> None:
    """Masses, solve, new weights."""
    rescale(graph, solve(build_problem(graph), tol).z)


def method_row(problem: Problem, method: str, tol: float, runs: int) -> dict[str, Any]:
    """Cycles and seconds of a method, masses held beforehand; what it reached if it was too slow.

    Seconds are the median of `runs` after a first one, where that took less than `_REPEAT_S`.
    """
    seen = [0.0, np.inf]
    start = time.perf_counter()

    def watch(at: object, cycles: int, imbalance: float) -> None:
        seen[:] = [cycles, imbalance]
        if time.perf_counter() - start > _LIMIT_S:
            raise _TooSlowError

    try:
        found = solve(problem, tol, 100_000, method=method, watch=watch)
    except _TooSlowError:
        return {"cycles": int(seen[0]), "imbalance": seen[1], "seconds": _LIMIT_S, "reached": False}
    times = [time.perf_counter() - start]
    while times[0] < _REPEAT_S and len(times) <= runs:
        times.append(seconds(lambda: solve(problem, tol, 100_000, method=method)))
    return {
        "cycles": found.cycles, "imbalance": found.imbalance, "reached": found.converged,
        "seconds": median(times[1:] or times),
    }  # fmt: skip


def gebal_seconds(problem: Problem) -> float | None:
    """Seconds of LAPACK's balancing on the same graph; None if too large, or if the graph has products."""
    n = problem.count + 1
    if n > _GEBAL_ROWS:
        return None
    matrix = np.zeros((n, n))
    for block in hold(problem, np.dtype(np.float64), None).blocks:
        ends = []
        for forms, sign in ((block.rows, 1.0), (block.columns, -1.0)):
            if (np.diff(forms.indptr) > 1).any() or (forms.data != sign).any():
                return None
            index = np.full(forms.shape[0], n - 1)
            index[np.diff(forms.indptr) == 1] = forms.indices
            ends.append(index)
        matrix[np.ix_(*ends)] += block.mass.array  # type: ignore[attr-defined]
    return seconds(lambda: scipy.linalg.matrix_balance(matrix, permute=False, separate=True))


def peak_memory(graph: RescalingGraph, tol: float) -> float:
    """Peak bytes of weights and of what solve + apply allocates, over the weights' bytes."""
    weights = sum(w.nbytes for w in graph.network.weights.values())
    memory = int(1.25 * weights)
    tracemalloc.start()
    rescale(graph, solve(build_problem(graph), tol, memory=memory).z)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return (weights + peak) / weights


def measure(name: str, runs: int, tol: float) -> dict[str, Any]:
    """Everything about one network."""
    torch.manual_seed(0)
    model, example = NETWORKS[name]()
    graph = graphnorm.trace(model, example)
    parameters = [p.detach() for p in model.parameters()]
    problem = build_problem(graph)
    held = hold(problem, np.dtype(np.float64), None)
    row: dict[str, Any] = {
        "network": name, "weights": sum(p.numel() for p in parameters), "variables": problem.count,
        "methods": {},
    }  # fmt: skip
    for method in METHODS:
        row["methods"][method] = method_row(held, method, tol, runs)
    certified = solve(held, tol, certify=True)
    row["gap"], row["gebal_s"] = certified.gap, gebal_seconds(problem)
    del held
    times: dict[str, list[float]] = {"clone": [], "1e-6": [], "1e-8": []}
    for _ in range(runs):
        times["clone"].append(seconds(lambda: [p.clone() for p in parameters]))
        times["1e-6"].append(seconds(lambda: solve_and_apply(graph, 1e-6)))
        times["1e-8"].append(seconds(lambda: solve_and_apply(graph, 1e-8)))
    row["seconds"] = {key: median(values) for key, values in times.items()}
    row["over_clone"] = {key: row["seconds"][key] / row["seconds"]["clone"] for key in ("1e-6", "1e-8")}
    row["peak_memory"] = {"1e-6": peak_memory(graph, 1e-6), "1e-8": peak_memory(graph, 1e-8)}
    return row


def methods_table(rows: list[dict[str, Any]]) -> Table:
    """Cycles and seconds by method."""
    table = Table("network", *METHODS, "cyclic / auto", "certified gap", "gebal s")
    for row in rows:
        cells = []
        for method in METHODS:
            found = row["methods"][method]
            short = "" if found["reached"] else f" ({found['imbalance']:.0e})"
            cells.append(f"{found['cycles']}: {found['seconds']:.3g} s{short}")
        ratio = row["methods"]["cyclic"]["seconds"] / row["methods"]["auto"]["seconds"]
        more = "" if row["methods"]["cyclic"]["reached"] else "> "
        gebal = "" if row["gebal_s"] is None else f"{row['gebal_s']:.3g}"
        table.add_row(row["network"], *cells, f"{more}{ratio:.0f}", f"{row['gap']:.0e}", gebal)
    return table


def costs_table(rows: list[dict[str, Any]]) -> Table:
    """Solve + apply against a clone of the weights."""
    table = Table(
        "network", "weights", "variables", "clone s", "1e-6 s", "over clone", "1e-8 s", "over clone",
        "peak memory 1e-6", "1e-8",
    )  # fmt: skip
    for row in rows:
        s, over, peak = row["seconds"], row["over_clone"], row["peak_memory"]
        table.add_row(
            row["network"], f"{row['weights'] / 1e6:.1f} M", str(row["variables"]), f"{s['clone']:.3g}",
            f"{s['1e-6']:.3g}", f"{over['1e-6']:.1f}", f"{s['1e-8']:.3g}", f"{over['1e-8']:.1f}",
            f"{peak['1e-6']:.2f}", f"{peak['1e-8']:.2f}",
        )  # fmt: skip
    return table


def growth(most: float, runs: int) -> dict[str, list[dict[str, float]]]:
    """Seconds of clone and of solve + apply for ten-layer nets of growing width, and for growing depth."""
    found: dict[str, list[dict[str, float]]] = {"size": [], "depth": []}
    widths = [n for n in (333, 590, 1054, 1860, 3333, 5900, 10540) if 9 * n * n <= 1.02 * most]
    for key, nets in (
        ("size", [(10, n, n) for n in widths]),
        ("depth", [(d, 100, 100) for d in (10, 30, 100, 300, 1000)]),
    ):
        for depth, width, inputs in nets:
            found[key].append(growth_point(depth, width, inputs, runs))
            print(key, found[key][-1], file=sys.stderr, flush=True)
    return found


def growth_point(depth: int, width: int, inputs: int, runs: int) -> dict[str, float]:
    """Clone and solve + apply of one net, in turns."""
    torch.manual_seed(0)
    model, example = mlp(depth, width, inputs)
    graph = graphnorm.trace(model, example)
    parameters = [p.detach() for p in model.parameters()]
    clone, ours = [], []
    for _ in range(runs):
        clone.append(seconds(lambda: [p.clone() for p in parameters]))
        ours.append(seconds(lambda: solve_and_apply(graph, 1e-6)))
    return {
        "depth": depth, "weights": sum(p.numel() for p in parameters), "clone": median(clone),
        "ours": median(ours), "cycles": solve(build_problem(graph), 1e-6).cycles,
    }  # fmt: skip


def plot(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Cost against number of weights and against depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axis, (key, x, label) in zip(
        figure.subplots(1, 2),
        (("size", "weights", "weights (10 layers)"), ("depth", "depth", "layers of 100 x 100")),
        strict=True,
    ):
        points = found[key]
        for name, text in (("ours", "solve + apply, imbalance 1e-6"), ("clone", "clone of all weights")):
            axis.loglog([q[x] for q in points], [q[name] for q in points], marker="o", label=text)
        axis.set(xlabel=label, ylabel="seconds")
        axis.grid(alpha=0.3, which="both")
        axis.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default="", metavar="PATTERN", help="regular expression of names")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tol", type=float, default=1e-8, help="imbalance that the methods are to reach")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--most", type=float, default=1e9, help="weights of the largest network of --growth")
    parser.add_argument("--plot", type=Path, metavar="PATH")
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args()
    console = Console(width=200)
    result: Any
    if options.growth:
        result = growth(options.most, options.runs)
        if options.plot:
            plot(result, options.plot)
    else:
        names = [name for name in NETWORKS if re.search(options.networks, name)]
        result = []
        for name in names:
            print(name, file=sys.stderr, flush=True)
            result.append(measure(name, options.runs, options.tol))
        console.print(methods_table(result))
        console.print(costs_table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
