"""Pictures: their file formats, and the command that writes them."""

from __future__ import annotations

import io
import json
import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import graphnorm
from graphnorm.cli import draw as _command  # noqa: F401  (registers itself)
from graphnorm.cli.commands import app
from graphnorm.cli.models.demo import small_onnx
from graphnorm.errors import InputError
from graphnorm.pictures import Picture, draw
from graphnorm.pictures.colours import PINNED
from graphnorm.pictures.measure import fitted, text_width
from graphnorm.pictures.output import render
from tests.support.paths import ROOT
from tests.support.pictures import SVG, page_data, residual, titled


@pytest.fixture(scope="module")
def two_blocks() -> Picture:
    return Picture(residual(4, 5))


# Files.


def test_hostile_names_are_escaped(two_blocks: Picture) -> None:
    name = '</script><b>"&\\'
    picture = Picture(two_blocks.graph, title=name)
    svg = ET.fromstring(render(picture, ".svg"))
    assert svg.findtext(f"{SVG}title") == name
    page = render(picture, ".html").decode()
    assert page.count("</script>") == 2
    assert "<b>" not in page
    assert render(picture, ".dot").decode().startswith('digraph "</script><b>\\"&\\\\" {')


def test_the_page_needs_nothing_from_outside(two_blocks: Picture) -> None:
    page = render(Picture(residual(*[4] * 20)), ".html").decode()
    assert not re.search(r"(src|href)=|@import|url\(|https?://(?!www\.w3\.org/2000/svg)", page)
    data = page_data(page)
    assert [view["name"] for view in data["views"]] == ["equal blocks drawn once", "all layers"]
    assert page.count("<svg ") == 2
    assert [len(view["boxes"]) for view in data["views"]] == [9, 66]
    for number, view in enumerate(data["views"]):
        section = page.split(f'data-view="{number}"')[1].split("</section>")[0]
        keys = {int(key) for key in re.findall(r'<g class="box" data-key="(\d+)"', section)}
        assert keys == set(range(len(view["boxes"])))
        assert {int(k) for k in re.findall(r'<g class="link" data-key="(\d+)"', section)} <= set(
            range(len(view["links"]))
        )


def test_dot_has_the_same_links_and_colours(two_blocks: Picture) -> None:
    text = render(two_blocks, ".dot").decode()
    edges = re.findall(r'b(\d+) -> b(\d+) \[color="([#0-9a-f:]+)", penwidth=([\d.]+)', text)
    colours = two_blocks.colours
    assert [(int(a), int(b), c) for a, b, c, _ in edges] == [
        (k.source, k.target, ":".join(PINNED if s.group is None else colours[s.group] for s in k.strands))
        for k in two_blocks.flow.links
    ]
    widths = {(int(a), int(b)): float(w) for a, b, _, w in edges}
    flow = two_blocks.flow
    trunk, inner = titled(flow, "stem", "blocks.0"), titled(flow, "blocks.0.conv1", "blocks.0.conv2")
    assert widths[trunk.source, trunk.target] > widths[inner.source, inner.target]  # 6 scales and 4
    assert len(re.findall(r"^  b\d+ \[", text, re.M)) == len(flow.boxes)


def test_frames_are_clusters_in_dot() -> None:
    picture = Picture(residual(*[4] * 20))
    assert 'label="blocks.0 – blocks.19 ×20"; style=dashed; b2; b3; b4; }' in render(picture, ".dot").decode()


def test_png_has_the_colours_of_the_groups(two_blocks: Picture) -> None:
    from PIL import Image

    image = Image.open(io.BytesIO(render(two_blocks, ".png"))).convert("RGB")
    pixels = {f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.asarray(image).reshape(-1, 3).tolist()}
    linked = {s.group for link in two_blocks.flow.links for s in link.strands if s.group is not None}
    assert linked
    assert {two_blocks.colours[group] for group in linked} <= pixels
    assert PINNED in pixels


def test_draw_writes_once(two_blocks: Picture, tmp_path: Path) -> None:
    path = tmp_path / "graph.svg"
    draw(two_blocks.graph, path, title="mine")
    assert ET.parse(path).getroot().findtext(f"{SVG}title") == "mine"
    with pytest.raises(InputError, match="exists already"):
        draw(two_blocks.graph, path)
    draw(two_blocks.graph, path, force=True)
    assert ET.parse(path).getroot().findtext(f"{SVG}title") == "Residual"
    assert [found.name for found in tmp_path.iterdir()] == ["graph.svg"]


def test_a_failure_leaves_the_old_file(
    two_blocks: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "graph.svg"
    path.write_text("old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        draw(two_blocks.graph, path, force=True)
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["graph.svg"]


def test_png_without_matplotlib(two_blocks: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs matplotlib: pip install 'graphnorm\[plot\]'"):
        draw(two_blocks.graph, tmp_path / "graph.png")
    draw(two_blocks.graph, tmp_path / "graph.svg")


def test_text_is_shortened_in_the_middle() -> None:
    name = "model.encoder.layers.11.self_attn.in_proj"
    short = fitted(name, 10, 120)
    assert short.startswith("model.")
    assert short.endswith("_proj")
    assert "…" in short
    assert text_width(short, 10) <= 120
    assert fitted("fc", 10, 120) == "fc"


# The command.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import onnx

    onnx.save(small_onnx(), tmp_path / "a.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["draw", *map(str, arguments)])


def test_the_command_writes_each_format(folder: Path) -> None:
    for suffix, begin in (
        (".svg", b"<svg"),
        (".png", b"\x89PNG"),
        (".html", b"<!DOCTYPE html>"),
        (".dot", b"digraph"),
    ):
        result = run("a.onnx", "-o", f"b{suffix}")
        assert result.exit_code == 0, result.stderr
        assert f"written to b{suffix}" in result.stdout
        assert Path(f"b{suffix}").read_bytes().startswith(begin)
    assert ET.parse("b.svg").getroot().findtext(f"{SVG}title") == "a.onnx"


def test_the_command_reports_as_json(folder: Path) -> None:
    result = run("a.onnx", "-o", "b.dot", "--json", "-")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    graph = graphnorm.trace(folder / "a.onnx")
    assert report["dimension"] == graph.dimension
    assert [group["scales"] for group in report["groups"]] == [len(group.variables) for group in graph.groups]
    assert {box["kind"] for box in report["boxes"]} >= {"input", "output", "layer"}
    assert all(link["target"] < len(report["boxes"]) for link in report["links"])
    assert report["output"] == "b.dot"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "b.jpg"), "b.jpg: pictures are written to .svg, .png, .html or .dot files"),
        (("-o", "old.svg"), "--output old.svg: exists already; give --force to overwrite it"),
        (("-o", "none/b.svg"), "its folder does not exist"),
        (("-o", "b.svg", "--depth", "40"), "depth 40"),
        (("-o", "b.svg", "--depth", "0"), "depth 0"),
        (("-o", "b.svg", "--depth", "1", "--layers", "all"), "not both"),
        (("-o", "b.svg", "--json", "c.txt"), "name a .json file"),
    ],
)
def test_the_command_refuses(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    Path("old.svg").write_text("old")
    result = run("a.onnx", *arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["a.onnx", "old.svg"]
    assert Path("old.svg").read_text() == "old"


def test_the_command_overwrites_when_told(folder: Path) -> None:
    Path("old.svg").write_text("old")
    assert run("a.onnx", "-o", "old.svg", "--force").exit_code == 0
    assert Path("old.svg").read_text().startswith("<svg")


# Packaging.


def test_the_page_is_part_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = project["tool"]["setuptools"]
    assert "graphnorm.pictures" in setuptools["packages"]
    assert setuptools["package-data"]["graphnorm.pictures"] == ["page.html"]
    assert (Path(graphnorm.pictures.__file__).parent / "page.html").is_file()
