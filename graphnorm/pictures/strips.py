"""Ranks of boxes, and where a long picture is cut into strips that stand side by side.

A wire that crosses a cut ends at a port at the bottom of its strip and goes on from a port at the top of the
next one; all wires of one box share a port, and fan out behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from graphnorm.pictures.flow import Flow, Strand, merge

_CROSSING, _IN_FRAME = 0.08, 5.0  # cost of a wire that is cut, of a frame that is cut


@dataclass(frozen=True, slots=True, order=True)
class End:
    """Where a wire ends: at a box, or at the port for its wires at the ``top`` or ``bottom`` of a strip."""

    box: int
    port: str = ""


@dataclass(frozen=True, slots=True)
class Wire:
    """Strands between two ends of one strip."""

    source: End
    target: End
    strands: tuple[Strand, ...]


@dataclass(frozen=True, slots=True)
class Strip:
    """Ranks ``low`` up to ``high`` (exclusive): ends with their ranks within the strip, and wires."""

    ranks: dict[End, int]
    wires: tuple[Wire, ...]


def ranks(flow: Flow) -> list[int]:
    """Length of the longest path to each box; a source stands right above what reads it."""
    found = [0] * len(flow.boxes)
    for link in sorted(flow.links, key=lambda link: link.target):
        found[link.target] = max(found[link.target], found[link.source] + 1)
    sources = set(range(len(flow.boxes))) - {link.target for link in flow.links}
    for index in sources:
        found[index] = min((found[k.target] for k in flow.links if k.source == index), default=1) - 1
    return found


def cut(flow: Flow, rank: Sequence[int], count: int) -> list[int]:
    """Ranks at which `count` strips begin (and the end): about equal lengths, few wires and no frame cut."""
    total = max(rank) + 1
    count = min(count, total)
    price = [0.0] * (total + 1)
    for at in range(1, total):
        crossing = {k.source for k in flow.links if rank[k.source] < at <= rank[k.target]}
        inside = [f for f in flow.frames if rank[f.first] < at <= rank[f.last]]
        price[at] = _CROSSING * len(crossing) + _IN_FRAME * len(inside)
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]
    for _ in range(count):
        reached: dict[int, tuple[float, int]] = {}
        for start, (cost, _) in best[-1].items():
            for stop in range(start + 1, total + 1):
                uneven = ((stop - start) * count / total - 1.0) ** 2
                found = cost + uneven + price[stop]
                if stop not in reached or found < reached[stop][0]:
                    reached[stop] = (found, start)
        best.append(reached)
    cuts = [total]
    for table in reversed(best[1:]):
        cuts.append(table[cuts[-1]][1])
    return cuts[::-1]


def strips(flow: Flow, rank: Sequence[int], cuts: Sequence[int]) -> list[Strip]:
    """Boxes, ports and wires of each strip."""
    return [_strip(flow, rank, low, high) for low, high in pairwise(cuts)]


def _strip(flow: Flow, rank: Sequence[int], low: int, high: int) -> Strip:
    ends = {End(i): r - low for i, r in enumerate(rank) if low <= r < high}
    bundles: dict[tuple[End, End], list[tuple[Strand, ...]]] = {}
    for link in flow.links:
        if rank[link.source] >= high or rank[link.target] < low:
            continue
        source = End(link.source) if rank[link.source] >= low else End(link.source, "top")
        target = End(link.target) if rank[link.target] < high else End(link.source, "bottom")
        bundles.setdefault((source, target), []).append(link.strands)
        for end, at in ((source, -1), (target, high - low)):
            ends.setdefault(end, at)
    wires = [Wire(a, b, merge(found)) for (a, b), found in sorted(bundles.items())]
    return Strip(ends, tuple(wires))
