"""Pictures as one self-contained web page: hover, search, and a switch between views."""

from __future__ import annotations

import json
from importlib.resources import files
from string import Template
from typing import Any

from graphnorm.pictures.details import View
from graphnorm.pictures.picture import Picture
from graphnorm.pictures.svg import escape, write_svg
from graphnorm.util.printable import printable

_MOST_BOXES = 600  # that the view of all layers may have


def write_page(picture: Picture) -> str:
    """The page: the chosen view and, unless it is huge, that of all layers."""
    views = [picture.view]
    everything = picture.everything
    if everything is not picture.flow and len(everything.boxes) <= _MOST_BOXES:
        views.append(picture.notes.view(everything))
    drawn = [
        f'<section class="view" data-view="{number}">{write_svg(picture.scene(view))}</section>'
        for number, view in enumerate(views)
    ]
    data = {"groups": picture.groups(), "views": [_view(view) for view in views]}
    template = Template((files("graphnorm.pictures") / "page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(picture.title), views="\n".join(drawn), data=embedded(data))


def embedded(data: Any) -> str:
    """JSON that cannot end the script element that holds it."""
    return json.dumps(_shown(data), ensure_ascii=False).replace("<", "\\u003c")


def _shown(data: Any) -> Any:
    """The same values with text that is safe to show."""
    if isinstance(data, str):
        return printable(data)
    if isinstance(data, dict):
        return {_shown(key): _shown(value) for key, value in data.items()}
    return [_shown(item) for item in data] if isinstance(data, list | tuple) else data


def _view(view: View) -> dict[str, Any]:
    return {
        "name": view.flow.view,
        "boxes": [
            {"kind": box.kind, **note.to_dict()}
            for box, note in zip(view.flow.boxes, view.boxes, strict=True)
        ],
        "links": view.links,
    }
