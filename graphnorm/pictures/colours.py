"""One colour for each channel group: strong if several layers write it, pale if it is one layer's own."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.scales.demands import Role

PINNED = "#b4bac2"
_GOLDEN = 0.6180339887498949  # successive hues end up far apart
_FIRST_HUE = 0.58  # blue
_STRONG = ((0.44, 0.78), (0.56, 0.72), (0.36, 0.70))  # (lightness, saturation), in turn
_PALE = ((0.70, 0.52), (0.78, 0.55), (0.64, 0.42))


def group_colours(graph: RescalingGraph) -> dict[int, str]:
    """Group index -> colour, ``#rrggbb``, no two alike."""
    writers = group_layers(graph)[0]
    shared = [group.index for group in graph.groups if len(writers[group.index]) > 1]
    own = [group.index for group in graph.groups if len(writers[group.index]) < 2]
    colours: dict[int, str] = {}
    used = {PINNED}
    for indices, tones in ((shared, _STRONG), (own, _PALE)):
        for number, index in enumerate(indices):
            colours[index] = _unused(_tone(number, tones), used)
    return colours


def group_layers(graph: RescalingGraph) -> tuple[list[list[str]], list[list[str]]]:
    """For each group the multiplicative weights whose outputs carry it, and those whose inputs do."""
    owner = np.zeros(graph.solution.count, dtype=np.int64)
    for group in graph.groups:
        owner[group.variables] = group.index
    sides: tuple[list[list[str]], list[list[str]]] = ([[] for _ in graph.groups], [[] for _ in graph.groups])
    for demand in sorted(graph.demands, key=lambda d: d.node):
        if demand.role != Role.WEIGHT:
            continue
        for c, labels in demand.terms:
            found = sides[c < 0]
            for index in np.unique(owner[graph.solution.basis[labels.ravel()].indices]).tolist():
                if demand.weight not in found[index]:
                    found[index].append(demand.weight)
    return sides


def _tone(number: int, tones: Sequence[tuple[float, float]]) -> tuple[int, int, int]:
    lightness, saturation = tones[number % len(tones)]
    red, green, blue = colorsys.hls_to_rgb((_FIRST_HUE + number * _GOLDEN) % 1.0, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def _unused(rgb: tuple[int, int, int], used: set[str]) -> str:
    """The colour, or the nearest one with more blue that no group has yet."""
    red, green, blue = rgb
    while (name := f"#{red:02x}{green:02x}{blue:02x}") in used:
        blue = (blue + 1) % 256
    used.add(name)
    return name
