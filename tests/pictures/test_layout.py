"""Pictures: nothing lies on anything, and large networks are drawn smaller."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.errors import InputError
from graphnorm.pictures import Picture
from graphnorm.pictures.collapse import collapse, deepest, overview
from graphnorm.pictures.layout import arrange
from graphnorm.pictures.repeats import fold_repeats
from graphnorm.rescaling.graph import RescalingGraph
from tests.support.pictures import MODELS, Block, layout_problems, residual


@pytest.fixture(scope="module", params=list(MODELS))
def graph(request: pytest.FixtureRequest) -> RescalingGraph:
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def two_blocks() -> Picture:
    return Picture(residual(4, 5))


# Where things are.


def test_nothing_lies_on_anything(graph: RescalingGraph) -> None:
    flow = Picture(graph, layers="all").flow
    assert not layout_problems(flow, arrange(flow))


def test_a_misplaced_box_is_noticed(two_blocks: Picture) -> None:
    layout = arrange(two_blocks.flow)
    layout.boxes[3] = replace(layout.boxes[3], y=layout.boxes[2].y)
    found = layout_problems(two_blocks.flow, layout)
    assert any("lies on" in problem for problem in found)
    assert any("misses 3" in problem for problem in found)


def test_a_deep_chain_is_cut_into_strips() -> None:
    graph = graphnorm.trace(
        nn.Sequential(*(layer for _ in range(40) for layer in (nn.Linear(2, 2), nn.ReLU()))),
        torch.randn(1, 2),
    )
    flow = Picture(graph, layers="all").flow
    layout = arrange(flow)
    assert len(flow.boxes) == 42
    assert 0.7 < layout.aspect < 3.0
    assert not layout_problems(flow, layout)
    strips = {round(rect.centre) for rect in layout.boxes.values()}  # a chain has one lane
    assert len(strips) > 1
    assert sum(route.source.port == "bottom" for route in layout.routes) == len(strips) - 1


# Smaller pictures.


def test_equal_blocks_are_drawn_once() -> None:
    picture = Picture(residual(4, 4, 4, 4), layers="all")
    folded = fold_repeats(picture.flow)
    (frame,) = folded.frames
    assert (frame.count, frame.title) == (4, "blocks.0 – blocks.3")
    drawn = folded.boxes[frame.first : frame.last + 1]
    assert [box.title for box in drawn] == ["blocks.0.conv1", "blocks.0.conv2", "blocks.0"]
    assert [box.short for box in drawn] == ["conv1", "conv2", ""]
    assert [one.title for one in drawn[0].same] == [f"blocks.{i}.conv1" for i in (1, 2, 3)]
    assert len(folded.boxes) == len(picture.flow.boxes) - 9
    assert {name for box in folded.boxes for name in box.weights} == {
        name for box in picture.flow.boxes for name in box.weights
    }
    out = next(link for link in folded.links if link.source == frame.last)  # of the last block
    assert out.values == next(k for k in picture.flow.links if k.source == frame.first + 11).values


def test_blocks_that_differ_are_not_folded() -> None:
    assert not fold_repeats(Picture(residual(4, 5, 6), layers="all").flow).frames
    two_and_one = fold_repeats(Picture(residual(4, 4, 5), layers="all").flow)
    assert [(frame.count, frame.title) for frame in two_and_one.frames] == [(2, "blocks.0 – blocks.1")]


def test_blocks_with_other_pins_are_not_folded() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            for number, layer in enumerate(self.layers):
                x = torch.tanh(layer(x)) if number == 2 else torch.relu(layer(x))
            return x

    flow = Picture(graphnorm.trace(Mixed(), torch.randn(1, 4)), layers="all").flow
    assert all(frame.last < 3 for frame in fold_repeats(flow).frames)


def test_blocks_that_are_read_from_behind_are_not_folded() -> None:
    class Taps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Block(6, 4) for _ in range(3))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            found = []
            for block in self.blocks:
                x = block(x)
                found.append(x)
            return tuple(found)

    flow = Picture(graphnorm.trace(Taps().eval(), torch.randn(1, 6, 4, 4)), layers="all").flow
    assert not fold_repeats(flow).frames


def test_modules_to_a_depth() -> None:
    picture = Picture(residual(4, 5), depth=2)
    assert [box.title for box in picture.flow.boxes][1:4] == ["stem", "blocks.0", "blocks.1"]
    block = picture.flow.boxes[2]
    assert [part.text for part in block.parts] == ["2 Conv", "2 Relu", "BatchNorm", "Add"]
    everything = picture.everything
    inside = {s.group for box in everything.boxes[2:5] for s in box.seams()}
    assert inside < {strand.group for strand in block.inner}
    assert sorted(i for box in picture.flow.boxes for i in box.nodes) == sorted(
        i for box in everything.boxes for i in box.nodes
    )


def test_every_depth_is_without_cycle(graph: RescalingGraph) -> None:
    flow = Picture(graph, layers="all").flow
    weights = {name for box in flow.boxes for name in box.weights}
    for depth in range(1, deepest(flow) + 1):
        smaller = collapse(flow, depth)
        assert all(link.source < link.target for link in smaller.links)
        assert {name for box in smaller.boxes for name in box.weights} == weights
        assert not layout_problems(smaller, arrange(smaller))


def test_the_overview_prefers_detail() -> None:
    flow = Picture(residual(*[4] * 12), layers="all").flow
    assert overview(flow, most=100) is flow
    folded = overview(flow, most=12)
    assert folded.view == "equal blocks drawn once"
    assert len(folded.boxes) == 9
    differing = Picture(residual(*range(2, 14)), layers="all").flow
    assert overview(differing, most=20).view == "modules to depth 2"


def test_options_that_do_not_fit(two_blocks: Picture) -> None:
    with pytest.raises(InputError, match="layers must be one of auto, all, got 'some'"):
        Picture(two_blocks.graph, layers="some")
    with pytest.raises(InputError, match="not both"):
        Picture(two_blocks.graph, depth=1, layers="all")
    with pytest.raises(InputError, match=r"depth 9: .* have 1 to 3 components"):
        Picture(two_blocks.graph, depth=9)
