"""The outcome of an equivalence check as a table, stage by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from graphnorm.api.check_report import CheckReport
    from graphnorm.fingerprint.compute import Fingerprint

COLOURS = {
    "identical": "green",
    "proved": "green",
    "proved at these sizes": "green",
    "agrees": "yellow",
    "not exercised": "yellow",
    "not verified": "yellow",
    "differs": "red",
}


def check_table(report: CheckReport, first: str, second: str, saved: str = "") -> Table:
    """Verdict, then what each stage found."""
    table = Table(title=escape(f"{first}  against  {second}"), title_justify="left", show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    colour = COLOURS[report.verdict]
    table.add_row("verdict", f"[{colour}]{report.verdict}[/{colour}]")
    for name, text in stages(report, saved):
        table.add_row(name, escape(text))
    return table


def stages(report: CheckReport, saved: str = "") -> list[tuple[str, str]]:
    """(stage, what it found), for people."""
    found: list[tuple[str, str]] = []
    structure, measured = report.structure, report.verification.measurement
    if structure is not None:
        if structure.aligned:
            sizes = ", at the sizes that were traced" if structure.sized else ""
            text = f"{structure.nodes} operators stand for each other ({structure.form}{sizes})"
            found.append(("structure", text))
            if structure.departure:
                found.append(("", f"as written: {structure.departure}"))
        else:
            found.append(("structure", f"{structure.nodes} operators aligned, then: {structure.departure}"))
    certificate = report.verification.certificate
    if certificate is not None:
        permuted = f", {report.permuted} groups of channels permuted" if report.permuted else ""
        found.append(
            (
                "proof",
                f"every weight within {certificate.worst_ulp:.2g} half ulps of its coefficient{permuted}",
            )
        )
    elif report.note:
        found.append(("no proof", report.note))
    if measured is not None:
        bits = ", bit-identical" if measured.bit_identical else ""
        kinds = ", ".join(f"{n} {kind}" for kind, n in measured.kinds.items())
        found.append(("measured", f"{measured.inputs} inputs ({kinds}){bits}"))
        found.append(
            (
                "RMSE ratio",
                f"{measured.rmse_ratio:.2f}: B {measured.rmse:.2g}, A's own {measured.noise:.2g}, "
                "both against the reference",
            )
        )
        found.append(
            ("ran on", f"A {measured.runtimes[0]}; B {measured.runtimes[1]}; reference {measured.anchor}")
        )
    if report.search is not None:
        found.append(
            (
                "search",
                f"{report.search.method}: {report.search.inputs} inputs in {report.search.seconds:.1f} s",
            )
        )
    if report.verification.failure:
        found.append(("failure", report.verification.failure))
    if report.layer:
        found.append(("first layer", report.layer))
    if report.layers_unknown:
        found.append(("layers", f"not compared: {report.layers_unknown}"))
    if report.counterexample is not None:
        entries = sum(array.size for array in report.counterexample.values())
        filled = sum(int((array != 0).sum()) for array in report.counterexample.values())
        where = f", saved to {saved}" if saved else " (--counterexample OUT.npz saves it)"
        shown = f"{filled} of {entries} entries are not zero" if filled else f"all {entries} entries are zero"
        found.append(("counterexample", shown + where))
    found += [("remark", remark) for remark in report.remarks]
    found.append(("seconds", ", ".join(f"{stage} {value:.2f}" for stage, value in report.seconds.items())))
    return found


def fingerprint_table(found: Fingerprint, title: str) -> Table:
    """The invariants in a few lines."""
    table = Table(title=escape(title), title_justify="left", show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    table.add_row("id", found.id)
    table.add_row("graph", found.graph[:16])
    for name, value in found.path_norms.items():
        table.add_row(
            f"path-norm {name}", f"none: {escape(found.missing[name])}" if value is None else f"{value:.6g}"
        )
    shown = ", ".join(f"{mass:.6g}" for mass in found.masses[:6])
    more = f" and {len(found.masses) - 6} more" if len(found.masses) > 6 else ""
    table.add_row("balanced masses", shown + more)
    return table
