"""What ``graphnorm inspect`` prints: layers that are alike on one line, and the lines of ``--why``."""

from __future__ import annotations

import io
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor, nn

import graphnorm
from graphnorm.cli.explanation import explanation_lines
from graphnorm.cli.folding import patterns
from graphnorm.cli.inspection import layer_table, side_text, status_counts
from graphnorm.explain import Describer, Link, Side, explain, summarise
from graphnorm.explain.status import Status
from graphnorm.rescaling.graph import RescalingGraph


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(4), nn.Linear(4, width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Blocks(nn.Module):
    """Eight residual blocks between a projection and a head of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.stages = nn.ModuleList(nn.ModuleList(Block(6 + 2 * i) for _ in range(4)) for i in range(2))
        self.head = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in (block for stage in self.stages for block in stage.children()):
            x = block(x)
        return self.head(x)


@pytest.fixture(scope="module")
def blocks() -> RescalingGraph:
    torch.manual_seed(0)
    return graphnorm.trace(Blocks(), torch.randn(2, 3))


def printed(item: object, width: int = 140) -> str:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    out.print(item)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def expanded(pattern: str) -> set[str]:
    """The names that a pattern of few numbers stands for."""
    parts: list[list[str]] = []
    for piece in pattern.replace("{", "\0{").replace("}", "\0").split("\0"):
        if not piece.startswith("{"):
            parts.append([piece])
            continue
        numbers: list[str] = []
        for run in piece[1:].split(","):
            low, _, high = run.partition("-")
            numbers += [str(n) for n in range(int(low), int(high or low) + 1)]
        parts.append(numbers)
    return {"".join(choice) for choice in product(*parts)}


@given(st.sets(st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.integers(0, 4)), min_size=1))
def test_patterns_stand_for_exactly_their_names(numbers: set[tuple[str, int, int]]) -> None:
    names = {f"{letter}.{i}.w{j}" for letter, i, j in numbers}
    found = patterns(sorted(names))
    listed = [name for pattern in found for name in expanded(pattern)]
    assert sorted(listed) == sorted(names)
    assert len(found) <= len(names)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["w"], ["w"]),
        (["x9", "x10", "x11"], ["x{9-11}"]),
        (["x1", "x3"], ["x{1,3}"]),
        ([f"x{n}" for n in range(0, 40, 2)], ["x{0,2,4,6,…,38}"]),
        (["x01", "x1"], ["x01", "x1"]),
    ],
)
def test_patterns(names: list[str], expected: list[str]) -> None:
    assert patterns(names) == expected


class TestTable:
    def test_layers_that_are_alike_share_a_line(self, blocks: RescalingGraph) -> None:
        layers = summarise(blocks).layers
        text = printed(layer_table(layers, False, 140))
        assert "stages.{0-1}.{0-3}.up.weight  ×8" in text
        assert "pinned by Gelu" in text
        assert "4 free" in text
        assert text.count("\n") < len(layers)

    def test_all_gives_each_its_own(self, blocks: RescalingGraph) -> None:
        layers = summarise(blocks).layers
        text = printed(layer_table(layers, True, 140))
        assert all(layer.name in text for layer in layers)
        assert "×" not in text

    @pytest.mark.parametrize("width", [50, 80, 140])
    def test_fits_the_screen(self, blocks: RescalingGraph, width: int) -> None:
        table = layer_table(summarise(blocks).layers, True, width)
        assert max(map(len, printed(table, width).splitlines())) <= width

    def test_counts(self, blocks: RescalingGraph) -> None:
        assert status_counts(summarise(blocks).layers) == "10 free, 9 pinned in part, 9 pinned"


GELU = Link("act", "Gelu", "not homogeneous")


@pytest.mark.parametrize(
    ("side", "text"),
    [
        (Side(Status.NONE, 0, 0), "–"),
        (Side(Status.FREE, 8, 8, 8), "8 free"),
        (Side(Status.PINNED, 8, 0, pinned_by=GELU), "pinned by Gelu act: not homogeneous"),
        (
            Side(Status.PARTLY, 8, 3, 3, ("b.w",), GELU),
            "3 of 8 free, tied with b.w; the rest pinned by Gelu act: not homogeneous",
        ),
        (Side(Status.TIED, 8, 8, 8, ("b.w", "c.w", "a.x.w", "q")), "8 tied with b.w, c.w + 2 more"),
        (
            Side(Status.DEGENERATE, 2, 2, 2, degenerate={"nothing in": 2}),
            "2 degenerate; no minimum: nothing in",
        ),
        (Side(Status.FREE, 3, 3, 3, degenerate={"nothing in": 1}), "3 free; no minimum: nothing in (1)"),
    ],
)
def test_text_of_a_side(side: Side, text: str) -> None:
    assert printed(side_text([side])).strip() == text


def test_text_of_sides_that_are_alike() -> None:
    sides = [Side(Status.PINNED, n, 0, pinned_by=Link(f"{n}.act", "Gelu", "why")) for n in (4, 5)]
    assert printed(side_text(sides)).strip() == "pinned by Gelu {4-5}.act: why"
    assert printed(side_text([Side(Status.FREE, n, n, n) for n in (4, 9)])).strip() == "4–9 free"


class TestWhy:
    def lines(self, graph: RescalingGraph, name: str) -> str:
        (found,) = explain(graph, name, Describer(graph))
        return "".join(printed(line, 400) for line in explanation_lines(found))

    def test_pinned(self, blocks: RescalingGraph) -> None:
        text = self.lines(blocks, "stages.1.2.up.weight")
        assert "output channels: pinned (8)" in text
        assert "→ Gelu stages.1.2: not homogeneous  cli/test_inspection.py:" in text
        assert "input channels: free (all 4 can move)" in text
        assert "stages.1.2.norm.weight ×d" in text
        assert "stages.1.2.up.weight ÷d" in text

    def test_free(self, blocks: RescalingGraph) -> None:
        text = self.lines(blocks, "head.1.weight")
        assert "to rescale one channel by d: head.1.weight ×d, head.1.bias ×d, head.3.weight ÷d" in text

    def test_tied(self) -> None:
        class Residual(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

            def forward(self, x: Tensor) -> Tensor:
                x = torch.relu(self.a(x))
                return self.c(x + torch.relu(self.b(x)))

        torch.manual_seed(0)
        graph = graphnorm.trace(Residual(), torch.randn(1, 3))
        text = self.lines(graph, "b.weight")
        assert "tied to a.weight:" in text
        assert "→ through Add, Relu\n      → Add add: added or compared" in text
        assert text.index("← through Relu, Add") < text.index("← MatMul a")
        assert "not counted by the objective" in self.lines(graph, "b.bias")

    def test_a_bias_of_the_same_operator(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        graph = graphnorm.trace(model, torch.randn(1, 3, 2, 2))
        assert "tied to 0.weight, by the same operator" in self.lines(graph, "0.bias")

    def test_without_a_minimum(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        with torch.no_grad():
            model[2].weight[:, 1] = 0  # type: ignore[operator]
        text = self.lines(graphnorm.trace(model, torch.randn(1, 3)), "0.weight")
        assert "no minimum for 1, left at 1: no non-zero weight reads it" in text

    def test_a_long_chain_is_folded(self) -> None:
        class Deep(nn.Module):
            """Branches that are added pairwise: each tie is an operator of its own."""

            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.ModuleList(nn.Linear(2, 3) for _ in range(20))
                self.head = nn.Conv1d(19, 2, 3)

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                parts = [layer(x) for layer in self.layers]
                sums = torch.stack([torch.relu(a + b) for a, b in pairwise(parts)], 1)
                return self.head(sums), torch.tanh(parts[-1])

        graph = graphnorm.trace(Deep(), torch.randn(1, 2))
        (found,) = explain(graph, "layers.0.weight")
        assert len(found.output.pin) > 20
        assert (found.output.pin[-1].op, found.output.partner) == ("Tanh", "")
        lines = list(explanation_lines(found))
        assert sum("more lines" in line for line in lines) == 1
        assert len(lines) < 25
