"""Why one layer's channels can or can't be rescaled: chains of operators, and what is rescaled together."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graphnorm.errors import InputError
from graphnorm.explain.chains import Chain
from graphnorm.explain.status import SIDES, Describer, Layer, Side, Status, side_labels
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.util.typing import Integers


@dataclass(frozen=True, slots=True)
class Reasons:
    """The reasons of one side.

    Attributes:
        pin: from the layer to the operator that pins the side, or a part of it.
        partner: the nearest of the layers that it is tied to.
        tie: from the layer to that partner.
        moves: for the first channel that can move, weight -> the powers of its factor d that some entries
            of the weight are multiplied by.
    """

    pin: Chain = ()
    partner: str = ""
    tie: Chain = ()
    moves: dict[str, tuple[float, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A layer with the reasons of both its sides."""

    layer: Layer
    output: Reasons
    input: Reasons

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return {
            **self.layer.to_dict(),
            "why": {"output": asdict(self.output), "input": asdict(self.input)},
        }


def explain(graph: RescalingGraph, layer: str, describer: Describer | None = None) -> list[Explanation]:
    """Explain the weights that a name means: a weight, a node, or the start of their paths.

    Raises:
        InputError: no weight has this name.
    """
    describer = describer or Describer(graph)
    found = [describer.layer(name) for name in _matching(describer, layer)]
    return [Explanation(x, _reasons(describer, x, 0), _reasons(describer, x, 1)) for x in found]


def why(graph: RescalingGraph, layer: str) -> Chain:
    """The operators from a layer to what pins its output channels (its input's, if the output is free).

    Empty for a layer that is free on both sides.

    Raises:
        InputError: no weight has this name.
    """
    first = explain(graph, layer)[0]
    return first.output.pin or first.input.pin


def _reasons(describer: Describer, layer: Layer, number: int) -> Reasons:
    side: Side = (layer.output, layer.input)[number]
    if side.status is Status.NONE:
        return Reasons()
    pin = describer.pin_chain(layer.name, number) if side.free < side.channels else ()
    if not side.free:
        return Reasons(pin)
    labels = describer.movable(side_labels(describer.demands[layer.name], SIDES[number]))
    partner, tie = _tie(describer, layer, side, labels, number)
    return Reasons(pin, partner, tie, _moves(describer, int(labels[0])))


def _tie(describer: Describer, layer: Layer, side: Side, labels: Integers, number: int) -> tuple[str, Chain]:
    """The nearest partner and the path to it, for the first label that has one."""
    basis = describer.graph.solution.basis
    for label in labels.tolist() if side.tied else ():
        shared = np.unique(basis[[label]].indices)
        names = [
            name
            for name in side.tied
            if np.isin(shared, describer.variables(side_labels(describer.demands[name], SIDES[number]))).any()
        ]
        if names:
            ends = []
            for name in names:
                theirs = side_labels(describer.demands[name], SIDES[number])
                hit = [x for x in theirs.tolist() if np.isin(basis[[x]].indices, shared).any()]
                ends.append((np.array(hit, dtype=np.int64), describer.demands[name][0].node))
            nearest, chain = describer.finder.tie(label, describer.demands[layer.name][0].node, ends)
            return (names[nearest], chain) if nearest >= 0 else (names[0], ())
    return "", ()


def _moves(describer: Describer, label: int) -> dict[str, tuple[float, ...]]:
    """Weight -> powers of d, when the first variable of this label moves so that the label's factor is d."""
    basis = describer.graph.solution.basis
    row = basis[[label]]
    variable, unit = int(row.indices[0]), float(row.data[0])
    column = np.asarray(basis[:, [variable]].todense()).ravel() / unit
    found: dict[str, tuple[float, ...]] = {}
    for name, demands in describer.demands.items():
        powers = {
            float(power)
            for demand in demands
            for c, labels in demand.terms
            for power in np.unique(c * column[labels])
            if power
        }
        if powers:
            found[name] = tuple(sorted(powers, reverse=True))
    return found


def _matching(describer: Describer, text: str) -> list[str]:
    layers = describer.layer_names()
    nodes = {name: describer.finder.link(found[0].node).node for name, found in describer.demands.items()}
    if text in describer.demands:
        return [text]
    found = [name for name in layers if nodes[name] == text]
    inside = (f"{text}.", f"{text}/")
    found = found or [name for name in layers if name.startswith(inside) or nodes[name].startswith(inside)]
    if not found and text in describer.graph.network.overridable:
        raise InputError(
            f"--why {text}: an initializer that is a graph input, too; callers may replace it, so it keeps "
            "its value; --initializers-as-weights takes it as a weight"
        )
    if not found:
        names = dict.fromkeys(x for name in describer.demands for x in (nodes[name], name))
        close = difflib.get_close_matches(text, names, n=4, cutoff=0.4) or list(names)[:4]
        hint = f"close names: {', '.join(close)}" if close else "the network has no layer with weights"
        raise InputError(f"--why {text}: no layer of this name; {hint}")
    return found
