"""The whole picture as a scene: heading, frames, links, boxes, legend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphnorm.pictures.details import View
from graphnorm.pictures.layout import arrange
from graphnorm.pictures.legend import HEADING, Legend, facts, heading, least_width
from graphnorm.pictures.paint import draw_box, draw_frame, draw_route
from graphnorm.pictures.scene import Item, Scene
from graphnorm.pictures.strip_layout import Layout, Rect, Route
from graphnorm.rescaling.graph import RescalingGraph


def compose(graph: RescalingGraph, view: View, colours: Mapping[int, str], title: str) -> Scene:
    """Lay a view out and draw it."""
    flow = view.flow
    layout = arrange(flow)
    line = facts(graph, flow)
    width = max(layout.width, least_width(line))
    _shift(layout, (width - layout.width) / 2, HEADING)
    legend = Legend(graph, flow, colours, width)
    top = HEADING + layout.height
    items = [heading(title, line, width)]
    items += [draw_frame(frame, rect) for frame, rect in zip(flow.frames, layout.frames, strict=True)]
    items += [_link(view, route, colours) for route in layout.routes]
    for index, box in enumerate(flow.boxes):
        note = view.boxes[index].text() if view.boxes else ""
        items.append(draw_box(index, box, layout.boxes[index], colours, note))
    return Scene(width, top + legend.height, [*items, legend.item(top)], title)


def _link(view: View, route: Route, colours: Mapping[int, str]) -> Item:
    """A route as the link that it is a piece of; where links share a piece, the first of them."""
    number = next(
        number
        for number, link in enumerate(view.flow.links)
        if link.source == route.source.box and (route.target.port or link.target == route.target.box)
    )
    note = "\n".join(view.links[number]) if view.links else ""
    return draw_route(number, route, colours, note)


def _shift(layout: Layout, right: float, down: float) -> None:
    def moved(rect: Rect) -> Rect:
        return replace(rect, x=rect.x + right, y=rect.y + down)

    layout.boxes = {index: moved(rect) for index, rect in layout.boxes.items()}
    layout.frames = [moved(rect) for rect in layout.frames]
    layout.routes = [
        replace(route, points=tuple((x + right, y + down) for x, y in route.points))
        for route in layout.routes
    ]
