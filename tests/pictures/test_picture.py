"""Pictures: what is in them, and that colours mean groups."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import graphnorm
from graphnorm.pictures import Picture
from graphnorm.pictures.colours import PINNED, group_colours
from graphnorm.pictures.layout import arrange
from graphnorm.pictures.output import render
from graphnorm.rescaling.graph import RescalingGraph
from tests.support.pictures import (
    MODELS,
    SVG,
    boxes,
    colour_problems,
    layout_problems,
    missing_layers,
    residual,
    titled,
)


@pytest.fixture(scope="module", params=list(MODELS))
def graph(request: pytest.FixtureRequest) -> RescalingGraph:
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def two_blocks() -> Picture:
    return Picture(residual(4, 5))


# What is in a picture.


def test_layers_are_boxes_and_what_follows_them_is_folded_in(two_blocks: Picture) -> None:
    assert boxes(two_blocks.flow) == [
        ("x", "network input"),
        ("stem", "Conv 3×3 · Relu"),
        ("blocks.0.conv1", "Conv 3×3 · BatchNorm · Relu"),
        ("blocks.0.conv2", "Conv 3×3"),
        ("blocks.0", "Add · Relu"),
        ("blocks.1.conv1", "Conv 3×3 · BatchNorm · Relu"),
        ("blocks.1.conv2", "Conv 3×3"),
        ("blocks.1", "Add · Relu"),
        (two_blocks.flow.boxes[8].title, "ReduceMean"),
        ("wide", "Linear · Tanh"),
        ("head", "Linear"),
        (two_blocks.flow.boxes[-1].title, "network output"),
    ]
    assert [box.title for box in two_blocks.flow.boxes if box.pins][1:-1] == ["wide"]


def test_links_carry_the_groups_of_their_tensors(two_blocks: Picture) -> None:
    flow = two_blocks.flow
    skip, branch = titled(flow, "stem", "blocks.0"), titled(flow, "blocks.0.conv2", "blocks.0")
    assert skip.strands == branch.strands
    assert [strand.scales for strand in skip.strands] == [6]
    inner = titled(flow, "blocks.0.conv1", "blocks.0.conv2").strands
    assert [strand.scales for strand in inner] == [4]
    assert inner[0].group != skip.strands[0].group
    (seam,) = flow.boxes[2].parts[1].seam  # between convolution and BatchNorm
    assert seam.group not in {inner[0].group, skip.strands[0].group}
    (pinned,) = titled(flow, "wide", "head").strands
    assert (pinned.group, pinned.scales) == (None, 7)


def test_a_skip_starts_where_its_tensor_was_made() -> None:
    flow = Picture(MODELS["attention"]()).flow
    titles = [box.title for box in flow.boxes]
    add = next(i for i, box in enumerate(flow.boxes) if box.parts[-1].text == "Add")
    assert titles[min(link.source for link in flow.links if link.target == add)] == "embed"
    assert ("qkv", "Linear") in boxes(flow)
    assert "Attention" in {text for _, text in boxes(flow)}


def expected_groups(graph: RescalingGraph, values: tuple[str, ...]) -> set[int]:
    """Groups whose variables move some entry of these tensors, one entry after another."""
    found: set[int] = set()
    for name in values:
        for label in np.unique(graph.scales.labels[name]):
            moved = graph.solution.basis[[label]].indices if label >= 0 else []
            found |= {g.index for g in graph.groups for variable in moved if variable in g.variables}
    return found


def test_links_against_the_labels(graph: RescalingGraph) -> None:
    flow = Picture(graph, layers="all").flow
    assert flow.links
    for link in flow.links:
        shown = {strand.group for strand in link.strands} - {None}
        assert shown == expected_groups(graph, link.values)


def test_every_operator_has_one_box(graph: RescalingGraph) -> None:
    flow = Picture(graph, layers="all").flow
    counted = [i for box in flow.boxes for i in box.nodes]
    data = graph.scales.labels
    nodes = graph.network.nodes
    alive = [i for i, n in enumerate(nodes) if n.op != "Identity" and any(name in data for name in n.inputs)]
    assert sorted(counted) == alive
    assert all(link.source < link.target for link in flow.links)


@pytest.mark.parametrize("suffix", [".svg", ".html", ".dot"])
def test_every_layer_is_named(graph: RescalingGraph, suffix: str) -> None:
    picture = Picture(graph)
    assert not missing_layers(picture, suffix)


@pytest.mark.parametrize("suffix", [".svg", ".html", ".dot"])
def test_a_lost_box_is_noticed(two_blocks: Picture, suffix: str) -> None:
    lost = Picture(two_blocks.graph)
    kept = [box if box.title != "blocks.1.conv2" else replace(box, weights=()) for box in lost.flow.boxes]
    lost.flow = replace(lost.flow, boxes=tuple(kept))
    assert missing_layers(lost, suffix) == {"blocks.1.conv2.weight"}


def test_pinned_layers_say_why(two_blocks: Picture) -> None:
    view = two_blocks.view
    wide = next(note for note in view.boxes if note.title == "wide")
    (layer,) = wide.layers
    assert layer.output == "pinned (7)"
    assert any("Tanh" in cause and "pictures.py:" in cause for cause in layer.causes)
    number = two_blocks.flow.links.index(titled(two_blocks.flow, "wide", "head"))
    assert any("Tanh" in line for line in view.links[number])
    stem = next(note for note in view.boxes if note.title == "stem")
    assert stem.layers[0].output == "tied (6) with blocks.0.conv2.weight, blocks.1.conv2.weight"


# Colours.


def test_a_colour_is_a_group(graph: RescalingGraph) -> None:
    picture = Picture(graph)
    assert not colour_problems(picture, render(picture, ".svg").decode())


def test_merged_colours_are_noticed(two_blocks: Picture) -> None:
    wrong = Picture(two_blocks.graph)
    first, second = wrong.flow.groups()[:2]
    wrong.colours = {**wrong.colours, second: wrong.colours[first]}
    assert any("share" in problem for problem in colour_problems(wrong, render(wrong, ".svg").decode()))


def test_split_colours_are_noticed(two_blocks: Picture) -> None:
    svg = render(two_blocks, ".svg").decode()
    trunk = two_blocks.colours[titled(two_blocks.flow, "stem", "blocks.0").strands[0].group or 0]
    assert any("has" in problem for problem in colour_problems(two_blocks, svg.replace(trunk, "#123456", 1)))


def test_links_have_the_colours_of_their_strands(two_blocks: Picture) -> None:
    links = [
        item
        for item in ET.fromstring(render(two_blocks, ".svg")).iter(f"{SVG}g")
        if item.get("class") == "link"
    ]
    assert links
    for item in links:
        link = two_blocks.flow.links[int(item.get("data-key") or -1)]
        drawn = {path.get("stroke") for path in item.iter(f"{SVG}path")}
        expected = {PINNED if s.group is None else two_blocks.colours[s.group] for s in link.strands}
        assert drawn == expected


def test_many_groups_keep_different_colours() -> None:
    graph = graphnorm.trace(
        nn.Sequential(*(layer for _ in range(120) for layer in (nn.Linear(2, 2), nn.ReLU()))),
        torch.randn(1, 2),
    )
    colours = group_colours(graph)
    assert len(graph.groups) == 119
    assert len(set(colours.values())) == 119


def test_tied_groups_are_stronger_than_a_layers_own(two_blocks: Picture) -> None:
    def saturation(index: int) -> int:
        channels = [int(two_blocks.colours[index][i : i + 2], 16) for i in (1, 3, 5)]
        return max(channels) - min(channels)

    groups = {len(group["written_by"]): group["group"] for group in two_blocks.groups()}
    assert set(groups) == {1, 3}
    assert saturation(groups[3]) > saturation(groups[1])


def test_degenerate_groups_are_dashed() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.zero_()  # type: ignore[operator]
    picture = Picture(graphnorm.trace(model, torch.randn(1, 3)))
    (strand,) = titled(picture.flow, "0", "2").strands
    assert strand.degenerate == strand.scales == 4
    dashed = [
        p for p in ET.fromstring(render(picture, ".svg")).iter(f"{SVG}path") if p.get("stroke-dasharray")
    ]
    assert {path.get("data-group") for path in dashed} == {"0", None}  # the legend's sign has no group
    assert "style=dashed" in render(picture, ".dot").decode()


# Real architectures.

WIDE = {
    "torchvision:resnet50": "equal blocks drawn once",
    "torchvision:mobilenet_v2": "equal blocks drawn once",
    "torchvision:densenet121": "modules to depth 2",
    "timm:vit_tiny_patch16_224": "equal blocks drawn once",
    "timm:swin_tiny_patch4_window7_224": "modules to depth 5, equal blocks drawn once",
    "timm:convnext_atto": "equal blocks drawn once",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WIDE))
def test_real_architectures(name: str) -> None:
    from graphnorm.cli.models.inputs import parse_inputs
    from graphnorm.cli.models.spec import open_spec, parse_model

    opened = open_spec(parse_model(name), parse_inputs([]))
    picture = Picture(graphnorm.trace(opened.model, **opened.arguments))
    assert picture.flow.view == WIDE[name]
    assert len(picture.flow.boxes) <= 60
    assert not layout_problems(picture.flow, arrange(picture.flow))
    assert not layout_problems(picture.everything, arrange(picture.everything))
    assert not colour_problems(picture, render(picture, ".svg").decode())
    assert not missing_layers(picture, ".html")
