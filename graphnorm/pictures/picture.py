"""A rescaling graph as a picture, in any of the formats."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from typing import Any

from graphnorm.errors import InputError
from graphnorm.explain import Describer
from graphnorm.pictures.collapse import collapse, deepest, overview
from graphnorm.pictures.colours import group_colours, group_layers
from graphnorm.pictures.compose import compose
from graphnorm.pictures.condense import condense
from graphnorm.pictures.details import Notes, View
from graphnorm.pictures.scene import Scene
from graphnorm.rescaling.graph import RescalingGraph

LAYERS = ("auto", "all")


class Picture:
    """A picture of a rescaling graph.

    Args:
        graph: what to draw.
        depth: put layers together whose module paths share so many components.
        layers: ``all`` draws every layer; ``auto`` folds equal blocks and modules until the picture is small.
        title: heading; the network's name if it is empty.

    Raises:
        InputError: an option that does not fit the network.
    """

    def __init__(
        self, graph: RescalingGraph, depth: int | None = None, layers: str = "auto", title: str = ""
    ) -> None:
        if layers not in LAYERS:
            raise InputError(f"layers must be one of {', '.join(LAYERS)}, got {layers!r}")
        if depth is not None and layers == "all":
            raise InputError("give depth or layers='all', not both: depth puts layers together")
        self.graph = graph
        self.title = title or graph.network.name
        self.colours = group_colours(graph)
        self._describer = Describer(graph)
        self.everything = condense(graph, self._describer.missing.variables)
        if depth is not None:
            if not 1 <= depth <= deepest(self.everything):
                raise InputError(
                    f"depth {depth}: the module paths of {graph.network.name} have 1 to "
                    f"{deepest(self.everything)} components"
                )
            self.flow = collapse(self.everything, depth)
        else:
            self.flow = self.everything if layers == "all" else overview(self.everything)

    @cached_property
    def notes(self) -> Notes:
        """Answers about boxes and links."""
        return Notes(self._describer)

    @cached_property
    def view(self) -> View:
        """The flow with its notes."""
        return self.notes.view(self.flow)

    def scene(self, view: View | None = None) -> Scene:
        """Shapes; those of a view say in titles what it notes."""
        return compose(self.graph, view or View(self.flow), self.colours, self.title)

    def groups(self) -> list[dict[str, Any]]:
        """Channel groups: colour, number of scales, layers that write and read them."""
        writers, readers = group_layers(self.graph)
        return [
            {
                "group": group.index,
                "name": group.name,
                "scales": len(group.variables),
                "colour": self.colours[group.index],
                "written_by": writers[group.index],
                "read_by": readers[group.index],
            }
            for group in self.graph.groups
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only: the JSON form of ``graphnorm draw``."""
        view = self.view
        return {
            "model": self.graph.network.name,
            "dimension": self.graph.dimension,
            "view": view.flow.view,
            "groups": self.groups(),
            "boxes": [
                {"kind": box.kind, "operators": [part.text for part in box.parts], **note.to_dict()}
                for box, note in zip(view.flow.boxes, view.boxes, strict=True)
            ],
            "links": [
                {
                    "source": link.source,
                    "target": link.target,
                    "strands": [asdict(strand) for strand in link.strands],
                }
                for link in view.flow.links
            ],
            "repeated": [asdict(frame) for frame in view.flow.frames],
        }
