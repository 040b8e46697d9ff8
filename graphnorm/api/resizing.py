"""Two models at other sizes than the traced ones, where the sizes of their inputs are open.

Each open size moves to another one, alone and then all together (two names may mean one size), until A runs.
Numbers of one size agree by chance: a constant 15 is `length - 1` at 16, and one padding fits all even
images; so other sizes are odd, and no two are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphnorm import ir
from graphnorm.api.interfaces import Interfaces, like
from graphnorm.api.sources import Source
from graphnorm.errors import GraphNormError, RunError
from graphnorm.proof.prove import attempt
from graphnorm.verification.inputs.battery import Drawing, Probe, kinds
from graphnorm.verification.inputs.probes import Probes
from graphnorm.verification.measure import Judge
from graphnorm.verification.runner import Runner

Shapes = tuple[tuple[int, ...], ...]
Arrays = list[ir.Array]
_WANTED = 2  # other sizes
_INPUTS = 3  # at each
_LARGE = 64  # sizes of images shrink first: several that grow multiply
_SMALL_STEPS: tuple[Callable[[int], int], ...] = (
    lambda size: 2 * size + 1,
    lambda size: size + 1,
    lambda size: 3 * size,
    lambda size: 2 * size,
    lambda size: max(size // 2, 1),
)
_LARGE_STEPS: tuple[Callable[[int], int], ...] = (
    lambda size: size // 2 + 1,
    lambda size: size + 1,
    lambda size: size + 32,
    lambda size: 2 * size,
    lambda size: size // 2,
)


@dataclass(frozen=True)
class Resized:
    """The result of comparing at other sizes.

    Attributes:
        shapes: of all inputs, at each of the sizes that A ran at.
        failure: the first difference, and at which sizes; empty if there is none.
        parted: the inputs there.
        refused: whether B does not run there.
        fixed: sizes that only one model leaves open, for people.
    """

    shapes: tuple[Shapes, ...] = ()
    failure: str = ""
    parted: Arrays | None = None
    refused: bool = False
    fixed: str = ""


def fitted(pair: Interfaces) -> Interfaces:
    """Read a model with open sizes again at the other's sizes, where the two were read at different ones."""
    shapes = traced(pair.first.network), traced(pair.second.network)
    if [len(shape) for shape in shapes[0]] != [len(shape) for shape in shapes[1]]:
        return pair
    wanted = [[list(shape) for shape in each] for each in shapes]
    for (i, axis), names in _open(pair.first, pair.second).items():
        if names[1]:
            wanted[1][i][axis] = shapes[0][i][axis]
        elif names[0]:
            wanted[0][i][axis] = shapes[1][i][axis]
    found = [
        source if [list(shape) for shape in now] == new else _read_at(source, new)
        for source, now, new in zip((pair.first, pair.second), shapes, wanted, strict=True)
    ]
    return replace(pair, first=found[0], second=found[1])


def _read_at(source: Source, shapes: Sequence[Sequence[int]]) -> Source:
    other, example = source.at(shapes), source.example
    if example is not None:
        example = [repeated(array, shape) for array, shape in zip(example, shapes, strict=True)]
    return replace(other, network=like(source, other), example=example)


def measured(pair: Interfaces, judge: Judge) -> Resized:
    """Run both models at other sizes, if some are open in both."""
    first, second = pair.first, pair.second
    fixed = _fixed(first, second)
    found: list[Shapes] = []
    for shapes in _candidates(first, second):
        if len(found) == _WANTED:
            break
        try:
            inputs = list(_inputs(first, second, judge.original, shapes))
        except RunError:  # A does not take its own example there
            continue
        if not inputs:
            continue
        for label, arrays in inputs:
            failure, refused = _judged(judge, second, arrays)
            if failure:
                where = f"{failure} ({label} input of {show(first.network, shapes)})"
                return Resized((*found, shapes), where, arrays, refused, fixed)
        found.append(shapes)
    return Resized(tuple(found), fixed=fixed)


def limit(pair: Interfaces, resized: Resized, permutations: bool) -> str:
    """Why a proof at the sizes that were traced is none at all sizes; empty if it is.

    It is one where the models have a proof at other sizes too, and what they compute from sizes are sums and
    products: polynomials that agree at several sizes are the same.
    """
    if resized.fixed:
        return resized.fixed
    for who, source in (("A", pair.first), ("B", pair.second)):
        uneven = source.network.uneven or _uneven(source.network)
        if uneven:
            return f"sizes go through {uneven} in {who}, which may differ at other sizes"
    if len(resized.shapes) < _WANTED:
        return "A runs at too few of the other sizes that were tried"
    for shapes in resized.shapes:
        if not _is_proved(pair, shapes, permutations):
            return f"there is no proof at {show(pair.first.network, shapes)}"
    return ""


def _uneven(network: ir.Graph) -> str:
    """The first window whose padding or number of steps is a remainder of a size that is open."""
    for node in network.nodes:
        remainder = node.text("auto_pad").startswith("SAME") or node.attributes.get("ceil_mode")
        value = network.values.get(node.inputs[0]) if node.inputs else None
        steps = max(node.attributes.get("strides", (1,)), default=1)
        if remainder and steps > 1 and value is not None and value.dynamic - {0, 1}:
            return f"{node.op} {node.label}"
    return ""


def _is_proved(pair: Interfaces, shapes: Shapes, permutations: bool) -> bool:
    try:
        networks = [like(source, source.at(shapes)) for source in (pair.first, pair.second)]
        return attempt(networks[0], networks[1], permutations).settled
    except GraphNormError:  # a module that cannot be traced there
        return False


def show(network: ir.Graph, shapes: Shapes) -> str:
    """Sizes for people: ``x 1x20x4, mask 20``."""
    named = zip(network.inputs, shapes, strict=True)
    return ", ".join(f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in named)


def traced(network: ir.Graph) -> Shapes:
    """Shapes of the inputs as they were read."""
    return tuple(network.values[name].shape or () for name in network.inputs)


def _judged(judge: Judge, second: Source, arrays: Arrays) -> tuple[str, bool]:
    """The first difference on an input that A accepts, and whether B refuses it."""
    try:
        judge.new.run(arrays)
    except RunError as error:
        return (f"B does not run where A does: {error}", True) if second.declares_sizes else ("", False)
    try:
        return judge(arrays).failure, False
    except RunError:  # no reference to judge by
        return "", False


def _inputs(first: Source, second: Source, original: Runner, shapes: Shapes) -> Sequence[Probe]:
    """Inputs of these sizes that A takes."""
    example = first.example if first.example is not None else second.example
    values = dict(first.network.values)
    for name, shape in zip(first.network.inputs, shapes, strict=True):
        values[name] = replace(values[name], shape=shape)
    if example is not None:
        example = [repeated(array, shape) for array, shape in zip(example, shapes, strict=True)]
    drawing = Drawing(replace(first.network, values=values), example)
    return Probes(drawing, original, kinds(1, wide=False))[:_INPUTS]


def repeated(array: ir.Array, shape: Sequence[int]) -> ir.Array:
    """An array of another size, with entries of this one, truncated or repeated."""
    for axis, size in enumerate(shape):
        if array.shape[axis] != size:
            array = np.take(array, np.arange(size) % max(array.shape[axis], 1), axis)
    return array


def _candidates(first: Source, second: Source) -> Iterator[Shapes]:
    shapes, groups = traced(first.network), _groups(first, second)
    if not groups:
        return
    sizes = {group: shapes[i][axis] for (i, axis), group in groups.items()}
    order = {group: rank for rank, group in enumerate(dict.fromkeys(groups.values()))}
    tried = [shapes]
    for apart in (True, False):
        for small, large in zip(_SMALL_STEPS, _LARGE_STEPS, strict=True):
            moved = {g: (small if n < _LARGE else large)(n) + apart * order[g] for g, n in sizes.items()}
            found = tuple(
                tuple(moved[groups[i, axis]] if (i, axis) in groups else n for axis, n in enumerate(shape))
                for i, shape in enumerate(shapes)
            )
            if found not in tried:
                tried.append(found)
                yield found


def _groups(first: Source, second: Source) -> dict[tuple[int, int], int]:
    """(input, axis) -> which open size it has; axes that either model ties together have one."""
    groups: dict[tuple[int, int], int] = {}
    for place, names in _open(first, second).items():
        if any(names) and all(name or not source.declares_sizes for name, source in
                              zip(names, (first, second), strict=True)):  # fmt: skip
            groups[place] = len(groups)
    for which in (0, 1):
        seen: dict[str, int] = {}
        for place, names in _open(first, second).items():
            if place in groups and names[which]:
                own, other = groups[place], seen.setdefault(names[which], groups[place])
                groups = {key: other if group == own else group for key, group in groups.items()}
    return groups


def _open(first: Source, second: Source) -> dict[tuple[int, int], tuple[str, str]]:
    """(input, axis) -> its symbols in both models, "" where a size is fixed."""
    found: dict[tuple[int, int], tuple[str, str]] = {}
    for i, (one, two) in enumerate(zip(first.network.inputs, second.network.inputs, strict=True)):
        for axis in range(len(first.network.values[one].shape or ())):
            names = [
                (source.network.symbols.get(name) or ("",) * (axis + 1))[axis]
                for source, name in ((first, one), (second, two))
            ]
            found[i, axis] = names[0], names[1]
    return found


def _fixed(first: Source, second: Source) -> str:
    """Sizes that one model leaves open and the other declares, for people."""
    said: list[str] = []
    for (i, axis), names in _open(first, second).items():
        for who, other, mine, theirs, source in (
            ("A", "B", names[0], names[1], second), ("B", "A", names[1], names[0], first)
        ):  # fmt: skip
            if mine and not theirs and source.declares_sizes:
                name = first.network.inputs[i]
                size = (first.network.values[name].shape or ())[axis]
                said.append(f"{who} leaves axis {axis} of {name!r} open, {other} takes {size} only")
    return "; ".join(said)
