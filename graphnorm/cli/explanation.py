"""``inspect --why``: the chains of operators that pin or tie a layer, and what moves with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.markup import escape

from graphnorm.cli.inspection import COLOURS
from graphnorm.scales.demands import Role

if TYPE_CHECKING:
    from graphnorm.explain import Explanation, Layer, Link, Reasons, Side

_LINES = 12  # of a chain; its middle is folded
_NAMES = 4  # names of a list that are shown


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    """Why a layer can or can't move, in rich's markup."""
    layer = explanation.layer
    where = _where(layer.source, layer.node)
    yield f"[bold]{escape(layer.name)}[/bold]  used by {layer.op} {escape(layer.node)}{where}"
    if layer.role == Role.BIAS:
        yield "  rescaled along with the weights below; not counted by the objective"
    for name, side, reasons in (
        ("output", layer.output, explanation.output),
        ("input", layer.input, explanation.input),
    ):
        if side.status != "none":
            yield from _side_lines(name, layer, side, reasons)


def _side_lines(name: str, layer: Layer, side: Side, reasons: Reasons) -> Iterator[str]:
    colour = COLOURS[side.status]
    yield f"  {name} channels: [{colour}]{side.status}[/{colour}]{_share(side)}"
    if reasons.pin:
        yield f"    {'what pins them' if not side.free else 'what pins the rest'}:"
        yield from _chain_lines(reasons.pin)
    if side.tied:
        others = [other for other in side.tied if other != reasons.partner]
        how = ":" if len(reasons.tie) > 1 else ", by the same operator"
        yield f"    tied to {escape(reasons.partner)}{how}"
        yield from _chain_lines(reasons.tie[1:] and reasons.tie)
        if others:
            yield f"    and to {escape(_few(others))}"
    for reason, count in side.degenerate.items():
        yield f"    no minimum for {count}, left at 1: {escape(reason)}, so weights could shrink for ever"
    if reasons.moves:
        powers = [f"{weight} {' '.join(map(_power, found))}" for weight, found in reasons.moves.items()]
        yield f"    to rescale one channel by d: {escape(_few(powers, 8))}"


def _share(side: Side) -> str:
    if not side.free:
        return f" ({side.channels})" if side.channels > 1 else ""
    part = f"all {side.channels}" if side.free == side.channels else f"{side.free} of {side.channels}"
    scales = f", by {side.scales} independent scales" if side.scales != side.free else ""
    return f" ({part} can move{scales})"


def _chain_lines(chain: Sequence[Link]) -> Iterator[str]:
    lines = list(_steps(chain))
    if len(lines) > _LINES:
        head, tail = _LINES // 2, _LINES - _LINES // 2 - 1
        lines = [*lines[:head], f"… {len(lines) - head - tail} more lines (--json has all)", *lines[-tail:]]
    yield from (f"      {line}" for line in lines)


def _steps(chain: Sequence[Link]) -> Iterator[str]:
    """A line for each operator that ties or pins; those that only pass the scale on share one."""
    last = len(chain) - 1
    numbered = list(enumerate(chain))
    for passing, run in groupby(
        numbered, key=lambda pair: not pair[1].reason and pair[0] not in {0, last} and pair[1].direction
    ):
        links = [link for _, link in run]
        if passing and len(links) > 1:
            yield f"{passing} through {escape(_few([link.op for link in links]))}"
            continue
        for link in links:
            yield f"{link.direction or ' '} {escape(str(link))}{_where(link.source, link.node)}"


def _where(source: str, node: str) -> str:
    """The source, unless all it says is the node's name (ONNX files)."""
    return f"  [dim]{escape(source)}[/dim]" if source and not source.endswith(f"node {node}") else ""


def _power(power: float) -> str:
    size = f"{abs(power):g}"
    return ("×" if power > 0 else "÷") + ("d" if size == "1" else f"d^{size}")


def _few(items: Sequence[str], limit: int = _NAMES) -> str:
    more = f" + {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
