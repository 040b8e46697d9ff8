"""The outcome of an equivalence check as one page: stages, histogram of errors, distance layer by layer."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import TYPE_CHECKING

from graphnorm.cli.check_table import COLOURS, stages
from graphnorm.util.atomic import replacing
from graphnorm.util.printable import printable

if TYPE_CHECKING:
    from graphnorm.api.check_report import CheckReport

_COLOURS = {"green": "#1a7f37", "yellow": "#9a6700", "red": "#cf222e"}
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;
max-width:60rem;padding:0 1rem;color:#1f2328}
h1{font-size:1.3rem}h2{font-size:1.05rem;margin-top:2rem}td{padding:.15rem .8rem .15rem 0;vertical-align:top}
td:first-child{font-weight:600;white-space:nowrap}text{font:11px system-ui,sans-serif;fill:#57606a}"""
_WIDTH, _HEIGHT, _ROW = 760, 160, 16


def write_page(report: CheckReport, first: str, second: str, path: Path, saved: str = "") -> None:
    """Write the page (atomically); it needs nothing but itself."""
    with replacing(path) as temporary:
        temporary.write_text(page(report, first, second, saved), encoding="utf-8")


def escape(text: str) -> str:
    """Text for HTML."""
    return html.escape(printable(text))


def page(report: CheckReport, first: str, second: str, saved: str = "") -> str:
    """The page's text."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in stages(report, saved)
    )
    title = f"{escape(first)} against {escape(second)}"
    verdict = f'<span style="color:{_COLOURS[COLOURS[report.verdict]]}">{report.verdict}</span>'
    parts = [f"<h1>{title}: {verdict}</h1><table>{rows}</table>"]
    measured = report.verification.measurement
    if measured is not None and any(measured.errors[2]):
        parts.append("<h2>Errors of single outputs, over the outputs' root mean square</h2>")
        parts.append(_histogram(*measured.errors))
    if report.layers:
        parts.append("<h2>Layer by layer: relative distance up to a positive factor per channel</h2>")
        parts.append(_layers(report))
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _histogram(first: float, width: float, counts: list[int]) -> str:
    top, bar = math.log10(1 + max(counts)), _WIDTH / len(counts)
    bars = [
        f'<rect x="{i * bar:.1f}" y="{_HEIGHT - (h := _HEIGHT * math.log10(1 + n) / top):.1f}" '
        f'width="{bar - 1:.1f}" height="{h:.1f}" fill="#0969da"><title>{n} entries near '
        f"1e{first + width * i:.1f}</title></rect>"
        for i, n in enumerate(counts)
    ]
    step = round(2 / width)
    ticks = [
        f'<text x="{i * bar:.1f}" y="{_HEIGHT + 14}">1e{first + width * i:.0f}</text>'
        for i in range(0, len(counts), step)
    ]
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 20}" width="100%">{"".join(bars + ticks)}</svg>'


def _layers(report: CheckReport) -> str:
    """One bar per layer, logarithmic from 1e-9 to 1."""
    rows: list[str] = []
    for i, item in enumerate(report.layers):
        share = 1.0 if not math.isfinite(item.distance) else (math.log10(max(item.distance, 1e-9)) + 9) / 9
        colour = "#cf222e" if item.parted else "#1a7f37"
        length = 300 * min(max(share, 0.003), 1.0)
        rows.append(
            f'<rect x="0" y="{i * _ROW + 3}" width="{length:.1f}" height="{_ROW - 5}" fill="{colour}"/>'
            f'<text x="310" y="{i * _ROW + 12}">{item.distance:.1e} {escape(item.layer[:90])}</text>'
        )
    return f'<svg viewBox="0 0 {_WIDTH} {_ROW * len(rows)}" width="100%">{"".join(rows)}</svg>'
