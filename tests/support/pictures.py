"""Small models to draw, and checkers of what was drawn."""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html import escape
from typing import Any

import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.cli.models.demo import resnet18c, small_onnx
from graphnorm.explain import Describer
from graphnorm.pictures import Picture
from graphnorm.pictures.colours import PINNED
from graphnorm.pictures.flow import Flow, Link
from graphnorm.pictures.output import render
from graphnorm.pictures.strip_layout import Layout, Rect
from graphnorm.rescaling.graph import RescalingGraph

SVG = "{http://www.w3.org/2000/svg}"


class Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv2(torch.relu(self.bn1(self.conv1(x)))))


class Residual(nn.Module):
    """A stem, blocks on one trunk, a saturating end."""

    def __init__(self, *inner: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.blocks = nn.Sequential(*(Block(6, width) for width in inner))
        self.wide = nn.Linear(6, 7)
        self.head = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.stem(x)))
        return self.head(torch.tanh(self.wide(x.mean((2, 3)))))


class Attending(nn.Module):
    """Attention over a fused projection, with a skip that starts at a copy of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = self.qkv(self.norm(x.clone())).reshape(2, 4, 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return x.clone() + self.out(mixed.transpose(1, 2).reshape(2, 4, 8))


def residual(*inner: int) -> RescalingGraph:
    torch.manual_seed(0)
    return graphnorm.trace(Residual(*inner).eval(), torch.randn(1, 3, 8, 8))


MODELS: dict[str, Callable[[], RescalingGraph]] = {
    "residual": lambda: residual(4, 5),
    "attention": lambda: graphnorm.trace(Attending(), torch.randn(2, 4, 5)),
    "resnet18": lambda: graphnorm.trace(resnet18c(width=2).eval(), torch.randn(1, 3, 16, 16)),
    "onnx": lambda: graphnorm.trace(small_onnx()),
}


def boxes(flow: Flow) -> list[tuple[str, str]]:
    return [(box.title, " · ".join(part.text for part in box.parts)) for box in flow.boxes]


def titled(flow: Flow, source: str, target: str) -> Link:
    """The link between the first boxes of these titles."""
    titles = [box.title for box in flow.boxes]
    pair = (titles.index(source), titles.index(target))
    return next(link for link in flow.links if (link.source, link.target) == pair)


def page_data(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


def missing_layers(picture: Picture, suffix: str) -> set[str]:
    """Weight layers that a file says nothing about."""
    text = render(picture, suffix).decode()
    names = set(Describer(picture.graph).layer_names())
    if suffix == ".html":
        notes = page_data(text)["views"][0]["boxes"]
        return names - {layer["name"] for note in notes for layer in note["layers"]}
    return {name for name in names if f"{escape(name)}: output " not in text}


def colour_problems(picture: Picture, svg: str) -> list[str]:
    """Groups of more than one colour, colours of more than one group, strands in another group's colour."""
    colours: dict[str, set[str]] = {}
    for mark in ET.fromstring(svg).iter():
        group = mark.get("data-group")
        if group is not None:
            colours.setdefault(group, set()).add(mark.get("stroke") or mark.get("fill") or "")
    bundles = [link.strands for link in picture.flow.links]
    bundles += [part.seam for box in picture.flow.boxes for part in box.parts]
    shown = {str(s.group) for bundle in bundles for s in bundle if s.group is not None}
    problems = [f"group {group} is missing" for group in shown - colours.keys()]
    problems += [f"group {group} has {found}" for group, found in colours.items() if len(found) > 1]
    for one, two in itertools.combinations(colours, 2):
        problems += [f"groups {one} and {two} share {c}" for c in colours[one] & colours[two]]
    if any(PINNED in found for found in colours.values()):
        problems.append("a group is grey")
    return problems


def crossing(a: Rect, left: float, top: float, right: float, bottom: float) -> bool:
    return left < a.right - 1 and right > a.x + 1 and top < a.bottom - 1 and bottom > a.y + 1


def layout_problems(flow: Flow, layout: Layout) -> list[str]:
    """Boxes that overlap, routes that cross a box, slant, leave the picture or miss their boxes."""
    problems = [f"{i} is not placed" for i in range(len(flow.boxes)) if i not in layout.boxes]
    for (i, a), (j, b) in itertools.combinations(layout.boxes.items(), 2):
        if crossing(a, b.x, b.y, b.right, b.bottom):
            problems.append(f"{i} lies on {j}")
    for route in layout.routes:
        source, target = route.source.box, route.target.box
        for (x1, y1), (x2, y2) in itertools.pairwise(route.points):
            if abs(x1 - x2) > 1 and abs(y1 - y2) > 1:
                problems.append(f"{source} -> {target} slants")
            if not (0 <= x1 <= layout.width and 0 <= y1 <= layout.height):
                problems.append(f"{source} -> {target} leaves the picture")
            ends = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            crossed = [i for i, a in layout.boxes.items() if i not in (source, target) and crossing(a, *ends)]
            problems += [f"{source} -> {target} crosses {i}" for i in crossed]
        problems += [f"{source} -> {target} misses {i}" for i in _missed(layout, route)]
    return problems


def _missed(layout: Layout, route: Any) -> list[int]:
    """Boxes at whose edges a route should end and doesn't."""
    missed = []
    for end, (x, y), side in ((route.source, route.points[0], 1), (route.target, route.points[-1], 0)):
        if not end.port:
            rect = layout.boxes[end.box]
            edge = rect.bottom if side else rect.y
            if abs(y - edge) > 1 or not rect.x <= x <= rect.right:
                missed.append(end.box)
    return missed
