"""Which input and output of one model stands for which of the other's.

Callers of ONNX models use names: where the names of both models agree as sets, they decide, whatever the
order of declaration; an ONNX model's inputs against the parameters of a torch module likewise.  Else
positions decide.  An input that no output depends on is added to a model that lacks it.  What callers would
notice is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from graphnorm import ir
from graphnorm.api.sources import OnnxSource, Source, TorchSource, is_torch, loaded, open_model
from graphnorm.errors import InputError


@dataclass(frozen=True)
class Interfaces:
    """Two models whose inputs and outputs stand for each other in order.

    Attributes:
        first: A.
        second: B.
        remarks: what callers would notice, a sentence each; nothing if the interfaces are the same.
    """

    first: Source
    second: Source
    remarks: tuple[str, ...] = ()


def open_pair(
    a: Any,
    b: Any,
    example_inputs: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    inputs_as_weights: bool = False,
) -> Interfaces:
    """Read two models, with the same example inputs, and bring their interfaces into one order.

    Raises:
        InputError: a model cannot be taken, or the two take different inputs.
    """
    held = [loaded(model, inputs_as_weights) for model in (a, b)]
    lead = 1 if is_torch(held[1]) and not is_torch(held[0]) else 0  # a torch module's call fixes the order
    leader = open_model(held[lead], example_inputs, kwargs, input_shapes)
    other = held[1 - lead]
    if is_torch(other):
        follower = open_model(other, example_inputs, kwargs, input_shapes)
    else:
        follower = _following(leader, other, input_shapes)
    return aligned(*((leader, follower) if lead == 0 else (follower, leader)))


def _following(leader: Source, model: Any, input_shapes: Mapping[str, Sequence[int]] | None) -> Source:
    """An ONNX model read with the inputs and sizes of another model."""
    names = [value.name or "" for value in model.graph.inputs if value.name not in model.graph.initializers]
    mine = leader.network.inputs
    alike = set(names) == set(mine)
    counterpart = dict(zip(mine, mine if alike else names, strict=False))
    shapes = {counterpart.get(name, name): shape for name, shape in (input_shapes or {}).items()}
    if leader.example is None:
        return open_model(model, None, None, shapes)
    if len(names) == len(mine):
        given = {counterpart[name]: array for name, array in zip(mine, leader.example, strict=True)}
        return open_model(model, given)
    shared = {n: ir.shape_of(array) for n, array in zip(mine, leader.example, strict=True) if n in names}
    return open_model(model, None, None, shared)


def aligned(first: Source, second: Source) -> Interfaces:
    """Bring the inputs and outputs of two models into one order.

    Raises:
        InputError: the models take different numbers of inputs, and those left over are used.
    """
    remarks = [*_overridable(first, second)]
    first, second, added = _completed(first, second)
    remarks += added
    named = [isinstance(source, OnnxSource) for source in (first, second)]
    if any(named):
        taken = [source.network.inputs for source in (first, second)]
        by_name = set(taken[0]) == set(taken[1])
        remarks += _told("input", taken[0], taken[1], by_name)
        if by_name and named[1]:
            second = _with_inputs(second, taken[0])
        elif by_name:
            first = _with_inputs(first, taken[1])
    if all(named):
        given = [source.network.outputs for source in (first, second)]
        by_name = set(given[0]) == set(given[1])
        remarks += _told("output", given[0], given[1], by_name)
        if by_name:
            second = replace(second, network=replace(second.network, outputs=given[0]))
    if isinstance(first, TorchSource) and isinstance(second, TorchSource):
        second, told = _by_key(first, second)
        remarks += told
    return Interfaces(first, second, tuple(remarks))


def _by_key(first: TorchSource, second: TorchSource) -> tuple[TorchSource, list[str]]:
    """The second module with its results in the first one's order, where their keys agree as sets."""
    one, two = first.result_keys, second.result_keys
    if one == two or not any("'" in key for key in (*one, *two)):
        return second, []  # tuples and lists: by position
    if sorted(one) == sorted(two):
        said = f"B returns {', '.join(two)} in another order than A: they are matched by key"
        return second.reordered([two.index(key) for key in one]), [said]
    return second, [f"A returns {', '.join(one)}, B {', '.join(two)}: they are matched by position"]


def _told(kind: str, one: Sequence[str], two: Sequence[str], by_name: bool) -> list[str]:
    """Another order, or other names."""
    if tuple(one) == tuple(two):
        return []
    if by_name:
        return [
            f"B declares its {kind}s in another order ({', '.join(two)}) than A: they are matched by name"
        ]
    pairs = [f"{b!r} for A's {a!r}" for a, b in zip(one, two, strict=False) if a != b]
    return (
        [f"B has other names for {kind}s, which are matched by position: {', '.join(pairs)}"] if pairs else []
    )


def _overridable(first: Source, second: Source) -> list[str]:
    held = [
        source.overridable if isinstance(source, OnnxSource) else frozenset() for source in (first, second)
    ]
    return [
        f"callers of {who}, not of {other}, may give other values for {', '.join(map(repr, sorted(more)))}"
        for who, other, more in (("A", "B", held[0] - held[1]), ("B", "A", held[1] - held[0]))
        if more
    ]


def _completed(first: Source, second: Source) -> tuple[Source, Source, list[str]]:
    """Both models with the inputs that only one of them takes, if nothing depends on these."""
    taken = [source.network.inputs for source in (first, second)]
    if len(taken[0]) == len(taken[1]):
        return first, second, []
    remarks: list[str] = []
    missing: list[list[str]] = []
    kept: list[Source] = []
    fits = not (isinstance(first, TorchSource) and isinstance(second, TorchSource))
    for who, source, other in (("A", first, second), ("B", second, first)):
        alive = source.network.alive()
        more = [n for n in source.network.inputs if n not in other.network.inputs and n not in alive]
        remarks += [f"only {who} takes the input {name!r}, and does not use it" for name in more]
        missing.append(more)
        last = [n for n in source.network.inputs if n not in more] + more
        movable = isinstance(source, OnnxSource) or tuple(last) == source.network.inputs
        kept.append(_with_inputs(source, last) if movable else source)
        fits = fits and movable
    counts = [len(names) - len(more) for names, more in zip(taken, missing, strict=True)]
    if counts[0] != counts[1] or not fits:
        said = [f"{len(names)} inputs ({', '.join(names)})" for names in taken]
        raise InputError(f"A takes {said[0]}, B takes {said[1]}: they cannot be the same function")
    return _extended(kept[0], second, missing[1]), _extended(kept[1], first, missing[0]), remarks


def _extended(source: Source, other: Source, names: Sequence[str]) -> Source:
    """A model with more inputs, after its own, that it does not read."""
    network, example = source.network, source.example
    for name in names:
        value = other.network.values[name]
        own = name
        while own in network.values:
            own += "'"
        network = replace(
            network,
            inputs=(*network.inputs, own),
            values={**network.values, own: replace(value, name=own)},
        )
        if example is not None:
            given = None if other.example is None else other.example[other.network.inputs.index(name)]
            zeros = np.zeros(value.shape or (), np.dtype(getattr(ml_dtypes, value.dtype, value.dtype)))
            example = [*example, zeros if given is None else given]
    return replace(source, network=network, example=example)


def like(source: Source, other: Source) -> ir.Graph:
    """The network of `other`, the model of `source` at other sizes, with inputs and outputs in its order."""
    wanted, network = source.network, other.network
    own = set(network.inputs)
    if isinstance(source, OnnxSource):
        more = {name: wanted.values[name] for name in wanted.inputs if name not in own}
        return replace(
            network, inputs=wanted.inputs, outputs=wanted.outputs, values={**network.values, **more}
        )
    more = {name: wanted.values[name] for name in wanted.inputs[len(own) :]}  # after its own
    return replace(network, inputs=(*network.inputs, *more), values={**network.values, **more})


def _with_inputs(source: Source, names: Sequence[str]) -> Source:
    """The same inputs in another order."""
    order = [source.network.inputs.index(name) for name in names]
    example = None if source.example is None else [source.example[i] for i in order]
    return replace(source, network=replace(source.network, inputs=tuple(names)), example=example)
