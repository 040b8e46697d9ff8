"""What a picture shows: boxes (layers and operators), links between them, and the groups that they carry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LAYER, JOIN, MODULE, INPUT, OUTPUT = "layer", "join", "module", "input", "output"


@dataclass(frozen=True, slots=True)
class Strand:
    """The scales of one channel group in a tensor.

    Attributes:
        group: index into ``graph.groups``; None is the pinned part of the tensor.
        scales: number of independent scales; of pinned channels where `group` is None.
        degenerate: how many of them have no minimiser.
    """

    group: int | None
    scales: int
    degenerate: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """An operator inside a box.

    Attributes:
        text: its usual name.
        node: index into ``graph.network.nodes``; -1 for inputs and outputs.
        pins: whether it pins scales of its operands.
        seam: what the tensor between the part before and this one carries, where both have weights.
        layer: whether it has multiplicative weights.
    """

    text: str
    node: int
    pins: bool = False
    seam: tuple[Strand, ...] = ()
    layer: bool = False


@dataclass(frozen=True, slots=True)
class Box:
    """One box.

    Attributes:
        title: the name of its first layer, or the module around a join.
        kind: ``layer``, ``join``, ``module``, ``input`` or ``output``.
        path: the module's path, by components.
        parts: what is written in it, in order.
        nodes: indices into ``graph.network.nodes`` of everything that it stands for.
        weights: names of all parameters that these nodes read.
        inner: groups of the tensors inside a module.
        same: boxes of later repetitions that this one stands for too.
        short: the title without what a frame around the box says already.
    """

    title: str
    kind: str
    path: tuple[str, ...]
    parts: tuple[Part, ...]
    nodes: tuple[int, ...] = ()
    weights: tuple[str, ...] = ()
    inner: tuple[Strand, ...] = ()
    same: tuple[Box, ...] = ()
    short: str = ""

    @property
    def pins(self) -> bool:
        return any(part.pins for part in self.parts)

    def seams(self) -> tuple[Strand, ...]:
        """Everything that tensors inside the box carry."""
        return merge([*(part.seam for part in self.parts), self.inner])


@dataclass(frozen=True, slots=True)
class Link:
    """Tensors from one box to another (indices into ``Flow.boxes``) and what they carry."""

    source: int
    target: int
    strands: tuple[Strand, ...]
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """Boxes ``first`` to ``last`` stand for ``count`` consecutive equal blocks."""

    first: int
    last: int
    count: int
    title: str


@dataclass(frozen=True, slots=True)
class Flow:
    """A picture before it is laid out; boxes are in topological order."""

    boxes: tuple[Box, ...]
    links: tuple[Link, ...]
    frames: tuple[Frame, ...] = ()
    view: str = "all layers"

    def groups(self) -> tuple[int, ...]:
        """Groups that some link or box shows, in order."""
        shown = [s for link in self.links for s in link.strands] + [s for b in self.boxes for s in b.seams()]
        return tuple(sorted({strand.group for strand in shown if strand.group is not None}))


def merge(bundles: Iterable[Iterable[Strand]]) -> tuple[Strand, ...]:
    """One strand per group, the largest of each; pinned channels last."""
    best: dict[int | None, Strand] = {}
    for strand in (strand for bundle in bundles for strand in bundle):
        if strand.group not in best or strand.scales > best[strand.group].scales:
            best[strand.group] = strand
    return tuple(sorted(best.values(), key=lambda s: (s.group is None, s.group or 0)))


def shorten(text: str, limit: int) -> str:
    """Cut out the middle.

    >>> shorten("layers.0.blocks.1.attn.qkv", 16)
    'layers.…attn.qkv'
    """
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"
