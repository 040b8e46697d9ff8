"""What people see: progress, and the tables of results."""

from __future__ import annotations

import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from graphnorm.cli.check_table import COLOURS
from graphnorm.cli.inspection import status_counts
from graphnorm.util.printable import printable, shortened

if TYPE_CHECKING:
    from graphnorm.api.records import ClipRun
    from graphnorm.api.reports import Report
    from graphnorm.api.verdicts import Verification
    from graphnorm.explain import Summary
    from graphnorm.rescaling.graph import Cause

_PIPED_WIDTH = 140  # columns where the output is no terminal
_MOST = 6  # items of a list that are shown


class PlainConsole(Console):
    """A console on which names of models cannot steer the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As in rich, where all strings pass."""
        return super().render_str(shortened(printable(text)), **options)


def console(json_target: str | None) -> Console:
    """Standard output, or standard error where JSON has standard output."""
    out = PlainConsole(stderr=json_target == "-", highlight=False)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = _PIPED_WIDTH
    return out


@contextmanager
def progress(first: str) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr with the name of the stage, only on a terminal; yields what sets the name.

    What others print on stderr meanwhile follows at the end, or is dropped where an error says what
    happened (torch.export prints half a graph before it fails).
    """
    err = Console(file=sys.stderr)
    printed = io.StringIO()
    with err.status(first) if err.is_terminal else nullcontext() as status, redirect_stderr(printed):
        yield lambda stage: None if status is None else status.update(stage)
    sys.stderr.write(printable(printed.getvalue()))


def report_table(report: Report, title: str, output: str = "", weights: str = "") -> Table:
    """The outcome of a canonicalisation."""
    table = _pairs(title)
    if weights:
        table.add_row("weights", escape(weights))
    before, after = report.objective.before, report.objective.after
    change = f"  ({_change(before, after)})" if before else ""
    p = report.options.p
    stopped = "" if report.solver.converged else f"  [yellow]{report.solver.message}[/yellow]"
    nothing = "" if report.dimension else ": nothing to do"
    table.add_row("dimension", f"{report.dimension} independent rescalings{nothing}")
    what = "largest |w|" if p == float("inf") else f"sum |w|^{p:g}"
    said = f"{before:.6g} → {after:.6g}{change}"
    if report.unchanged:
        said = f"{before:.6g}, unchanged: {report.unchanged}"
    table.add_row(f"objective ({what})", escape(said))
    table.add_row("cycles", f"{report.solver.cycles}{stopped}")
    table.add_row("imbalance", f"{report.solver.imbalance:.2g}")
    if report.solver.gap is not None:
        table.add_row("optimality gap", f"≤ {report.solver.gap:.2g} of the norm (certified)")
    if report.solver.exact_cost is not None:
        table.add_row("cost of exactness", f"{report.solver.exact_cost:+.2%} of the optimum")
    if report.solver.limited_channels:
        table.add_row(
            "limited",
            f"{report.solver.limited_channels} channels held at 1: out of the float type's range",
        )
    _verification_rows(table, report.verification)
    _graph_rows(table, report.pins, report.degenerate, report.unknown)
    for kind, (before, after) in report.extremes.items():
        table.add_row(f"largest {kind}", f"{before:.3g} → {after:.3g}")
    for remark in report.remarks:
        table.add_row("remark", escape(remark))
    table.add_row("seconds", _seconds(report.seconds))
    if output:
        table.add_row("written to", escape(output))
    return table


def clips_table(clips: ClipRun) -> Table:
    """Which clips were rewritten, and why the others were not."""
    table = _pairs("clips")
    names = escape(_few(clips.rewritten, 12))
    table.add_row("rewritten", f"{len(clips.rewritten)}: {names}" if names else "none")
    for line in clips.left:
        table.add_row("left", escape(line))
    return table


def graph_table(summary: Summary, title: str, weights: str) -> Table:
    """The rescaling graph in a few lines."""
    graph = summary.graph
    table = _pairs(title)
    if weights:
        table.add_row("weights", escape(weights))
    table.add_row(
        "dimension", f"{graph.dimension} independent rescalings in {len(graph.groups)} channel groups"
    )
    moved = len({demand.weight for demand in graph.movable()})
    table.add_row("weights that move", f"{moved} of {len(graph.network.weights)}")
    table.add_row("layers", status_counts(summary.layers))
    _graph_rows(table, graph.pins, summary.degenerate, graph.scales.unknown)
    for remark in graph.remarks:
        table.add_row("remark", escape(remark))
    return table


def _change(before: float, after: float) -> str:
    if 0 < after < before / 100:
        return f"{before / after:.3g} times smaller"
    return f"{100 * (after / before - 1):+.1f} %"


def _pairs(title: str) -> Table:
    table = Table(title=escape(title), title_justify="left", show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    return table


def _verification_rows(table: Table, verification: Verification) -> None:
    colour = COLOURS[verification.verdict]
    table.add_row("verdict", f"[{colour}]{verification.verdict}[/{colour}]")
    measured = verification.measurement
    if measured is not None:
        bits = ", bit-identical" if measured.bit_identical else ""
        table.add_row(
            "RMSE ratio",
            f"{measured.rmse_ratio:.2f} of the original's own error against {measured.anchor} "
            f"({measured.inputs} inputs on {measured.device}{bits})",
        )
    if verification.failure:
        table.add_row("failure", escape(verification.failure))


def _graph_rows(
    table: Table, pins: Sequence[Cause], degenerate: Mapping[str, int], unknown: Mapping[str, Sequence[str]]
) -> None:
    nodes: dict[str, set[str]] = {}
    for pin in pins:
        nodes.setdefault(pin.op, set()).add(pin.node)
    counted = Counter({op: len(found) for op, found in nodes.items()}).most_common()
    if counted:
        table.add_row("pinned by", escape(_few([f"{op} ×{n}" for op, n in counted], 12)))
    if degenerate:
        named = [f"{name}: {n}" for name, n in degenerate.items()]
        table.add_row("degenerate, left at 1", f"{sum(degenerate.values())} channels: {escape(_few(named))}")
    if unknown:
        named = [f"{op} ×{len(where)}" for op, where in unknown.items()]
        table.add_row(
            "unknown operators", f"[yellow]{escape(_few(named, 12))}[/yellow]: all they touch is pinned"
        )


def _seconds(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{stage} {value:.2f}" for stage, value in seconds.items())


def _few(items: Sequence[str], limit: int = _MOST) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
