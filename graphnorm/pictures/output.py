"""Pictures into files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from graphnorm.errors import InputError
from graphnorm.pictures.dot import write_dot
from graphnorm.pictures.page import write_page
from graphnorm.pictures.picture import Picture
from graphnorm.pictures.raster import write_png
from graphnorm.pictures.svg import write_svg
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.util.atomic import replacing

FORMATS = (".svg", ".png", ".html", ".dot")


def draw(
    graph: RescalingGraph,
    path: str | Path,
    depth: int | None = None,
    layers: str = "auto",
    title: str = "",
    force: bool = False,
) -> Picture:
    """Draw a rescaling graph into a file.

    Args:
        graph: what to draw.
        path: ``.svg``, ``.png``, ``.html`` or ``.dot``.
        depth: put layers together whose module paths share so many components.
        layers: ``all`` draws every layer; ``auto`` folds equal blocks and modules until the picture is small.
        title: heading; the network's name if it is empty.
        force: overwrite an existing file.

    Raises:
        InputError: an unknown suffix, an existing file, a missing library, or an option that does not fit.

    Returns:
        The picture, with its boxes, links and groups as data.

    >>> import tempfile, torch, graphnorm
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> graph = graphnorm.trace(model, torch.randn(3, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     picture = draw(graph, Path(folder, "graph.svg"))
    ...     Path(folder, "graph.svg").read_text()[:4]
    '<svg'
    """
    path = Path(path)
    check_format(path)
    if path.exists() and not force:
        raise InputError(f"{path}: exists already; give force=True to overwrite it")
    picture = Picture(graph, depth, layers, title)
    save(picture, path)
    return picture


def check_format(path: Path) -> None:
    """Refuse a file that could not be drawn in the end.

    Raises:
        InputError: an unknown suffix, or matplotlib is missing and the picture is a ``.png``.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: pictures are written to {', '.join(FORMATS[:-1])} or {FORMATS[-1]} files")
    if path.suffix == ".png" and importlib.util.find_spec("matplotlib") is None:
        raise InputError(
            f"{path}: needs matplotlib: pip install 'graphnorm[plot]', or write .svg, .html or .dot"
        )


def save(picture: Picture, path: Path) -> None:
    """Write a picture, atomically; the format follows the suffix.

    Raises:
        InputError: see `check_format`.
    """
    check_format(path)
    data = render(picture, path.suffix)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def render(picture: Picture, suffix: str) -> bytes:
    """The content of a file of this suffix."""
    if suffix == ".png":
        return write_png(picture.scene())
    if suffix == ".svg":
        return write_svg(picture.scene(picture.view)).encode()
    if suffix == ".html":
        return write_page(picture).encode()
    return write_dot(picture.view, picture.colours, picture.title).encode()
