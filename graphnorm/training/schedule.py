"""Which channel groups a descent updates together, and by how much a step must be damped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
import numpy.typing as npt

from graphnorm.training.forms import Forms
from graphnorm.training.layout import Layout
from graphnorm.training.parts import Part
from graphnorm.util.typing import Integers

ORDERS = ("layers", "colours")
Pair = tuple[Integers, Integers]
"""The different forms of a weight's rows, and of its columns."""


@dataclass(frozen=True)
class Counted:
    """A matrix of masses: its layout, its weight lambda, and whether this process counts it."""

    layout: Layout
    weight: float = 1.0
    mine: bool = True


class Profiles:
    """The groups of each form: (forms, terms), -1 where there is none."""

    def __init__(self, forms: Forms, groups: Integers) -> None:
        index, self.coefficient = forms.index, forms.coefficient
        self.groups = np.append(groups, -1)[np.where(self.coefficient != 0, index, forms.count)]
        self.count = int(groups.max(initial=-1)) + 1

    def of(self, side: Integers) -> list[int]:
        """All groups in the forms of one side."""
        found = np.unique(self.groups[np.unique(side)])
        return [int(group) for group in found if group >= 0]

    def degrees(self, pairs: Iterable[Pair]) -> npt.NDArray[np.float64]:
        """Per group, the largest sum of |coefficients| in one exponent; at least 1."""
        of_form = np.zeros((len(self.groups), self.count + 1))
        np.add.at(of_form, (np.arange(len(self.groups))[:, None], self.groups), np.abs(self.coefficient))
        degree = np.ones(self.count + 1)
        for pair in pairs:
            both = [of_form[side].max(axis=0) for side in pair]
            degree = np.maximum(degree, both[0] + both[1])
        return degree[: self.count]


def pair_of(part: Part) -> Pair:
    """The forms of a part's sides."""
    sides = [np.unique(side.forms) for side in part.sides]
    return (sides[0], sides[1]) if len(sides) == 2 else (sides[0], np.zeros(1, dtype=np.int64))


def schedule(profiles: Profiles, pairs: Sequence[Pair], order: str) -> list[list[int]]:
    """Groups to be updated together, stage after stage; groups that no weight counts are left out.

    Args:
        profiles: the groups of each form.
        pairs: of all counted weights, also those that other processes hold: stages must be the same in all.
        order: ``layers`` or ``colours``.
    """
    graph = nx.Graph()
    for pair in pairs:
        rows, columns = (np.unique(profiles.groups[side], axis=0) for side in pair)
        for row in rows:
            for column in columns:
                present = sorted({int(group) for group in (*row, *column) if group >= 0})
                graph.add_nodes_from(present)
                graph.add_edges_from((a, b) for i, a in enumerate(present) for b in present[i + 1 :])
    if order == "layers":
        return [[group] for group in sorted(graph.nodes)]
    colour = nx.greedy_color(graph, strategy=lambda g, _: sorted(g.nodes))
    stages: list[list[int]] = [[] for _ in range(max(colour.values(), default=-1) + 1)]
    for group in sorted(colour):
        stages[colour[group]].append(group)
    return stages
