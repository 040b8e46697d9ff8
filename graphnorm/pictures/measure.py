"""Sizes: of text, boxes and bands.  Lengths are in points of the picture (1/72 inch at scale 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphnorm.pictures.flow import JOIN, Box, Strand, shorten

TITLE, SMALL = 10.0, 8.0  # font sizes
PAD = 8.0
SEPARATOR = 11.0  # between parts
PIN = 8.0
WIDEST, _NARROWEST = 230.0, 96.0
_NARROW, _WIDE = frozenset("ijl.,:;|!'()[]/ft "), frozenset("mwMW%@–—")


def text_width(text: str, size: float, bold: bool = False) -> float:
    """An upper estimate of the width in DejaVu Sans."""
    ems = sum(0.37 if c in _NARROW else 0.97 if c in _WIDE else 0.7 if c.isupper() else 0.62 for c in text)
    return ems * size * (1.1 if bold else 1.0)


def fitted(text: str, size: float, width: float, bold: bool = False) -> str:
    """The text, shortened in the middle until it fits."""
    limit = len(text)
    while limit > 3 and text_width(shorten(text, limit), size, bold) > width:
        limit -= 1
    return shorten(text, limit)


def parts_width(box: Box) -> float:
    """Width of a box's line of operators."""
    marks = sum(PIN for part in box.parts if part.pins)
    return sum(text_width(p.text, SMALL) for p in box.parts) + marks + SEPARATOR * (len(box.parts) - 1)


def box_size(box: Box, chips: int = 0) -> tuple[float, float]:
    """Width and height."""
    if box.kind == JOIN:
        return parts_width(box) + 2 * PAD, 20.0
    natural = max(text_width(box.short or box.title, TITLE, bold=True), parts_width(box)) + 2 * PAD
    return min(WIDEST, max(_NARROWEST, natural)), 36.0 + (12.0 if chips else 0.0)


def strand_width(strand: Strand) -> float:
    """Grows with the logarithm of the number of scales."""
    return 1.4 + 0.75 * math.log2(1 + strand.scales)


def band_widths(strands: Sequence[Strand], most: float = 13.0) -> list[float]:
    """Widths of the strands of a link side by side."""
    widths = [strand_width(strand) for strand in strands]
    total = sum(widths)
    return [width * most / total for width in widths] if total > most else widths
