"""Random small networks: programs over a vocabulary of layers, for property tests.

A program prints as the lines of a function, so that what is left after shrinking can be read and pasted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.random_layers import VOCABULARY, Parameters, Shape

LARGEST = 12  # entries of a value besides rows
STATISTICS = ("mean", "var")  # buffers


@dataclass(frozen=True)
class Step:
    """One line of a program: a word applied to earlier values (0 is the input)."""

    layer: str
    operands: tuple[int, ...]
    shares: int = -1  # the step whose parameters this one uses too

    def line(self, number: int) -> str:
        shared = f"  # with the parameters of v{self.shares}" if self.shares >= 0 else ""
        return f"v{number} = {self.layer}({', '.join(f'v{k}' for k in self.operands)}){shared}"


class Program(nn.Module):
    """A network that runs its steps, then a linear head on all that nobody read."""

    def __init__(self, shape: Shape, steps: tuple[Step, ...]) -> None:
        super().__init__()
        self.shape, self.steps = shape, steps
        shapes = [shape]
        for number, step in enumerate(steps, 1):
            layer = VOCABULARY[step.layer]
            own = layer.parameters(shapes[step.operands[0]]) if step.shares < 0 else {}
            for name, size in own.items():
                ones = torch.ones(size, dtype=torch.float64)
                if name in STATISTICS:
                    self.register_buffer(f"v{number}_{name}", ones)
                else:
                    self.register_parameter(f"v{number}_{name}", nn.Parameter(ones))
            zeros = (torch.zeros(shapes[k], dtype=torch.float64) for k in step.operands)
            shapes.append(tuple(layer.apply(self._parameters_of(number), *zeros).shape))
        read = {k for step in steps for k in step.operands}
        self.ends = [k for k in range(1, len(shapes)) if k not in read] or [0]
        width = sum(torch.zeros(shapes[k]).flatten(1).shape[1] for k in self.ends)
        self.head = nn.Parameter(torch.ones(2, width, dtype=torch.float64))

    def _parameters_of(self, number: int) -> Parameters:
        step = self.steps[number - 1]
        prefix = f"v{step.shares if step.shares >= 0 else number}_"
        tensors = [*self.named_parameters(), *self.named_buffers()]
        return {name.removeprefix(prefix): p for name, p in tensors if name.startswith(prefix)}

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for number, step in enumerate(self.steps, 1):
            operands = (values[k] for k in step.operands)
            values.append(VOCABULARY[step.layer].apply(self._parameters_of(number), *operands))
        return F.linear(torch.cat([values[k].flatten(1) for k in self.ends], 1), self.head)

    def __repr__(self) -> str:
        lines = [f"v0: {self.shape}", *(step.line(number) for number, step in enumerate(self.steps, 1))]
        return "\n".join([*lines, f"head({', '.join(f'v{k}' for k in self.ends)})"])


@st.composite
def programs(draw: Any, most: int = 7) -> Program:
    """Programs of up to `most` steps."""
    shape = draw(st.sampled_from([(3, 3), (2, 2, 3), (3, 4)]))
    shapes: list[Shape] = [shape]
    steps: list[Step] = []
    for _ in range(draw(st.integers(1, most))):
        step = draw(_steps(shapes, steps))
        size = _result(step, steps, shapes)
        if 0 < torch.Size(size[1:]).numel() <= LARGEST:
            steps.append(step)
            shapes.append(size)
    return Program(shape, tuple(steps))


@st.composite
def _steps(draw: Any, shapes: list[Shape], steps: list[Step]) -> Step:
    recent = st.integers(max(0, len(shapes) - 3), len(shapes) - 1)
    first = draw(recent)
    words = [
        (name, second)
        for name, layer in VOCABULARY.items()
        for second in (range(len(shapes)) if layer.arity == 2 else [-1])
        if not (name == "divide" and second == first)  # is 1
        if layer.fits(shapes[first], *([shapes[second]] if second >= 0 else []))
    ]
    name, second = draw(st.sampled_from(words))
    operands = (first,) if second < 0 else (first, second)
    sizes = VOCABULARY[name].parameters
    same = [k for k, step in enumerate(steps, 1) if step.layer == name and step.shares < 0]
    twins = [k for k in same if sizes(shapes[steps[k - 1].operands[0]]) == sizes(shapes[first]) != {}]
    return Step(name, operands, draw(st.sampled_from([-1, *twins])))


def _result(step: Step, steps: list[Step], shapes: list[Shape]) -> Shape:
    layer = VOCABULARY[step.layer]
    sizes = layer.parameters(shapes[step.operands[0]])
    parameters = {name: torch.ones(size, dtype=torch.float64) for name, size in sizes.items()}
    zeros = (torch.zeros(shapes[k], dtype=torch.float64) for k in step.operands)
    return tuple(layer.apply(parameters, *zeros).shape)
