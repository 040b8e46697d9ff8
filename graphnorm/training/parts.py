"""Weights cut into parts whose log-scale is a sum of one form per row and one per column.

A part is a block of a weight.  Its log-scale is r[i] + c[j], where i runs over some axes of the block and j
over others; a convolution has r over output channels and c over input channels, nothing over the
kernel.  Whatever has no such form gets one form per entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from graphnorm.scales.constraints import Term
from graphnorm.scales.demands import Demand, Role
from graphnorm.scales.labels import align, varying_axes
from graphnorm.training.forms import Forms
from graphnorm.training.symmetry import Symmetries
from graphnorm.util.typing import Integers

Block = tuple[slice, ...]


@dataclass(frozen=True)
class Side:
    """Form numbers along some axes of a block; `forms` has size 1 on the other axes."""

    axes: tuple[int, ...]
    forms: Integers


@dataclass(frozen=True)
class Part:
    """A block of a weight, in the weight's own coordinates.

    Attributes:
        weight: name.
        block: a slice per axis, all bounds given.
        sides: one or two sides without a common axis.
        counted: whether the objective counts it (kernels, matrices, gains; not biases).
        layers: weight layers after it on the longest path to an output (ENorm-c).
    """

    weight: str
    block: Block
    sides: tuple[Side, ...]
    counted: bool
    layers: int

    def within(self, window: Block) -> Part | None:
        """The part's share of a shard: `window` of the weight; in the shard's coordinates."""
        bounds = [
            (max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(self.block, window, strict=True)
        ]
        if any(start >= stop for start, stop in bounds):
            return None
        sides = []
        for side in self.sides:
            cut = tuple(
                slice(start - own.start, stop - own.start) if axis in side.axes else slice(None)
                for axis, ((start, stop), own) in enumerate(zip(bounds, self.block, strict=True))
            )
            sides.append(Side(side.axes, side.forms[cut]))
        block = tuple(
            slice(start - shard.start, stop - shard.start)
            for (start, stop), shard in zip(bounds, window, strict=True)
        )
        return Part(self.weight, block, tuple(sides), self.counted, self.layers)


def cut_into_parts(symmetries: Symmetries, forms: Forms) -> list[Part]:
    """The parts of every weight that may move; their forms are added to `forms`."""
    by_weight: dict[str, list[Demand]] = {}
    for item in symmetries.demands:
        by_weight.setdefault(item.weight, []).append(item)
    found: list[Part] = []
    for weight, demands in by_weight.items():
        shape = symmetries.shapes[weight]
        if len(demands) == 1 and not demands[0].path:
            terms = [(c, align(labels, len(shape))) for c, labels in demands[0].terms]
            found.append(_part(symmetries, forms, demands[0], whole(shape), terms))
        else:
            found += _regions(symmetries, forms, demands, shape)
    return found


def whole(shape: Sequence[int]) -> Block:
    return tuple(slice(0, size) for size in shape)


def _part(symmetries: Symmetries, forms: Forms, item: Demand, block: Block, terms: Sequence[Term]) -> Part:
    shape = tuple(part.stop - part.start for part in block)
    sides = []
    for axes, members in _sides(terms):
        size = [n if axis in axes else 1 for axis, n in enumerate(shape)]
        rows = sp.csr_array((int(np.prod(size)), symmetries.basis.shape[1]))
        for c, labels in members:
            rows = rows + c * symmetries.basis[np.broadcast_to(labels, size).ravel()]
        sides.append(Side(tuple(sorted(axes)), forms.add(sp.csr_array(rows)).reshape(size)))
    return Part(
        item.weight, block, tuple(sides), item.role == Role.WEIGHT, symmetries.layers_after.get(item.node, 0)
    )


def _sides(terms: Sequence[Term]) -> list[tuple[frozenset[int], list[Term]]]:
    """Terms by the axes along which they vary: at most two sets of axes, without a common axis."""
    sets: list[tuple[frozenset[int], list[Term]]] = []
    for c, labels in terms:
        axes, members = varying_axes(labels), [(c, labels)]
        for other in [entry for entry in sets if entry[0] & axes]:
            sets.remove(other)
            axes, members = axes | other[0], [*other[1], *members]
        sets.append((axes, members))
    while len(sets) > 2 or (len(sets) == 2 and not sets[1][0]):
        axes, members = sets.pop()
        sets[-1] = (sets[-1][0] | axes, [*sets[-1][1], *members])
    return sets


def _regions(
    symmetries: Symmetries, forms: Forms, demands: Sequence[Demand], shape: tuple[int, ...]
) -> list[Part]:
    """Regions that are blocks without overlap become parts; otherwise one form per entry."""
    index = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    seen = np.zeros(index.size, dtype=bool)
    found = []
    for item in sorted(demands, key=lambda item: item.role != Role.WEIGHT):  # what both have is counted
        entries = item.region(index)
        flat = np.unique(entries)
        if seen[flat].all():
            continue  # another demand, which agrees, has it already
        block = _block(flat, shape)
        terms = None if block is None else _in_block(item, entries, shape, block)
        if seen[flat].any() or block is None or terms is None:
            return [_entrywise(symmetries, forms, demands, shape, index)]
        seen[flat] = True
        found.append(_part(symmetries, forms, item, block, terms))
    return found


def _block(flat: Integers, shape: tuple[int, ...]) -> Block | None:
    """The block that consists of these entries (sorted, different), if there is one."""
    where = np.unravel_index(flat, shape)
    block = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in where)
    size = int(np.prod([part.stop - part.start for part in block]))
    return block if size == len(flat) else None


def _in_block(item: Demand, entries: Integers, shape: tuple[int, ...], block: Block) -> list[Term] | None:
    """The demand's terms in the coordinates of the block that it covers."""
    where = np.unravel_index(entries.ravel(), shape)
    where = tuple(axis - part.start for axis, part in zip(where, block, strict=True))
    size = [part.stop - part.start for part in block]
    terms: list[Term] = []
    for c, labels in item.terms:
        full = np.full(size, -1, dtype=np.int64)
        spread = np.broadcast_to(align(labels, entries.ndim), entries.shape).ravel()
        full[where] = spread
        if not np.array_equal(full[where], spread):
            return None  # equal scales under different labels
        for axis in range(full.ndim):
            first = full.take([0], axis=axis)
            if (full == first).all():
                full = first
        terms.append((c, full))
    return terms


def _entrywise(
    symmetries: Symmetries, forms: Forms, demands: Sequence[Demand], shape: tuple[int, ...], index: Integers
) -> Part:
    """One form per entry, from the first demand that names it."""
    numbers = np.zeros(index.size, dtype=np.int64)
    seen = np.zeros(index.size, dtype=bool)
    for item in demands:
        entries, first = np.unique(item.region(index), return_index=True)
        fresh = ~seen[entries]
        rows = sp.csr_array((int(fresh.sum()), symmetries.basis.shape[1]))
        for c, labels in item.terms:
            spread = np.broadcast_to(labels, item.region(index).shape).ravel()
            rows = rows + c * symmetries.basis[spread[first[fresh]]]
        numbers[entries[fresh]] = forms.add(sp.csr_array(rows))
        seen[entries] = True
    lead = next((item for item in demands if item.role == Role.WEIGHT), demands[0])
    side = Side(tuple(range(len(shape))), numbers.reshape(shape))
    layers = symmetries.layers_after.get(lead.node, 0)
    return Part(lead.weight, whole(shape), (side,), lead.role == Role.WEIGHT, layers)
