"""The optimisation problem, in arrays only.

    minimise   Phi(z) = sum_blocks sum_ij A_ij exp(p (r_i(z) + c_j(z))),     r = R z,  c = C z

with non-negative masses A (p-th powers of weights, summed over entries of equal exponent) and sparse
matrices R, C whose entries are usually 0, 1, -1.  A plain layer has r_i = z_out(i), c_j = -z_in(j): then
Phi is matrix balancing (Osborne 1960) on the rescaling graph.  Phi is convex in z in any case.

A variable's imbalance is log(in / out): the mass that grows with it against the mass that shrinks.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mass = Any
"""Dense (rows, columns) float64 array or `scipy.sparse.csr_array`."""


@dataclass(frozen=True)
class Side:
    """One side of a block: the linear forms of its entries, sorted into segments of equal group profile.

    Attributes:
        forms: sparse (entries, variables).
        segments: contiguous ranges of entries.
        profiles: per segment, the pairs (group, coefficient) of its forms.
    """

    forms: sp.csr_array
    segments: tuple[slice, ...]
    profiles: tuple[tuple[tuple[int, float], ...], ...]

    @property
    def size(self) -> int:
        return int(self.forms.shape[0])


@dataclass(frozen=True)
class Block:
    """One weight region: masses (rows, columns) and the forms of both sides."""

    name: str
    mass: Mass
    rows: Side
    columns: Side
    by_column: Mass = field(repr=False)

    def segment(self, axis: int, part: slice) -> Mass:
        """The masses of a segment of rows (axis 0), or of columns transposed (axis 1)."""
        if axis == 0:
            return self.mass[part]
        return self.by_column[part] if self.by_column is not None else self.mass[:, part].T


@dataclass(frozen=True)
class Problem:
    """Blocks over `count` variables, each of which belongs to a group (`groups[v]`); exponent p."""

    count: int
    groups: Integers
    blocks: tuple[Block, ...]
    p: float

    @property
    def group_count(self) -> int:
        return int(self.groups.max(initial=-1)) + 1


def make_block(
    name: str, mass: Mass, rows: sp.csr_array, columns: sp.csr_array, groups: Integers
) -> Block | None:
    """Merge entries of equal forms, sort both sides by group; None if no variable is involved."""
    if not rows.nnz and not columns.nnz:
        return None
    mass, rows = _merge_equal(mass, rows)
    mass, columns = _merge_equal(mass.T, columns)
    mass = mass.T
    row_order, row_side = _segment(rows, groups)
    column_order, column_side = _segment(columns, groups)
    if sp.issparse(mass):
        mass = sp.csr_array(sp.csr_array(mass)[row_order][:, column_order])
        return Block(name, mass, row_side, column_side, sp.csr_array(mass.T))
    if not _is_identity(row_order):
        mass = mass[row_order]
    if not _is_identity(column_order):
        mass = mass[:, column_order]
    return Block(name, np.ascontiguousarray(mass), row_side, column_side, None)


def _is_identity(order: Integers) -> bool:
    return bool((order == np.arange(len(order))).all())


def _merge_equal(mass: Mass, forms: sp.csr_array) -> tuple[Mass, sp.csr_array]:
    """Sum rows of `mass` whose forms are equal (a flattened feature map, pinned channels)."""
    key = _form_keys(forms)
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    if len(first) == len(inverse):
        return mass, forms
    gather = sp.csr_array(
        (np.ones(len(inverse)), (inverse, np.arange(len(inverse)))), shape=(len(first), len(inverse))
    )
    return gather @ mass, forms[first]


def _form_keys(forms: sp.csr_array) -> Floats:
    """One row of numbers per form that is equal exactly for equal forms: indices and coefficients."""
    forms.sort_indices()
    lengths = np.diff(forms.indptr)
    width = int(lengths.max(initial=0))
    key = np.full((forms.shape[0], 2 * width + 1), -1.0)
    key[:, 0] = lengths
    entry = np.repeat(np.arange(forms.shape[0]), lengths)
    place = np.arange(forms.nnz) - np.repeat(forms.indptr[:-1], lengths)
    key[entry, 1 + place] = forms.indices
    key[entry, 1 + width + place] = forms.data
    return key


def _segment(forms: sp.csr_array, groups: Integers) -> tuple[Integers, Side]:
    """Order entries so that equal group profiles are contiguous."""
    profile_forms = sp.csr_array((forms.data, groups[forms.indices], forms.indptr), shape=forms.shape)
    key = _form_keys(sp.csr_array(profile_forms))
    _, inverse = np.unique(key, axis=0, return_inverse=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    ordered = inverse.reshape(-1)[order]
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(ordered)) + 1, [len(ordered)]])
    forms = sp.csr_array(forms[order])
    segments = tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(bounds) if b > a)
    profiles = tuple(_profile(forms, part, groups) for part in segments)
    return order, Side(forms, segments, profiles)


def _profile(forms: sp.csr_array, part: slice, groups: Integers) -> tuple[tuple[int, float], ...]:
    at = slice(forms.indptr[part.start], forms.indptr[part.start + 1])
    totals: dict[int, float] = {}
    for group, c in zip(groups[forms.indices[at]].tolist(), forms.data[at].tolist(), strict=True):
        totals[group] = totals.get(group, 0.0) + c
    return tuple(sorted(totals.items()))


def objective(problem: Problem, z: Floats) -> float:
    """Phi(z)."""
    return float(sum(block_masses(block, problem.p, z)[0].sum() for block in problem.blocks))


def block_masses(block: Block, p: float, z: Floats) -> tuple[Floats, Floats]:
    """Row sums and column sums of the rescaled masses."""
    r, c = scaled_exponents(block, p, z)
    return r * (block.mass @ c), c * (block.mass.T @ r)


def scaled_exponents(block: Block, p: float, z: Floats) -> tuple[Floats, Floats]:
    """exp(p r), exp(p c), shifted against each other so that neither overflows."""
    r, c = p * (block.rows.forms @ z), p * (block.columns.forms @ z)
    shift = 0.5 * (c.max(initial=0.0) - r.max(initial=0.0))
    return np.exp(r + shift), np.exp(c - shift)


def flows(problem: Problem, z: Floats) -> tuple[Floats, Floats]:
    """Mass that grows with each variable and mass that shrinks, weighted by |coefficient|."""
    rising, falling = np.zeros(problem.count), np.zeros(problem.count)
    for block in problem.blocks:
        for side, mass in zip((block.rows, block.columns), block_masses(block, problem.p, z), strict=True):
            add_flow(side.forms, mass, rising, falling)
    return rising, falling


def add_flow(forms: sp.csr_array, mass: Floats, rising: Floats, falling: Floats) -> None:
    """Add the masses of entries to the variables of their forms."""
    weight = np.repeat(mass, np.diff(forms.indptr)) * forms.data
    total = np.bincount(forms.indices, np.maximum(weight, 0.0), len(rising))
    rising += total
    falling += np.bincount(forms.indices, np.maximum(-weight, 0.0), len(rising))


def imbalance(rising: Floats, falling: Floats, active: npt.NDArray[np.bool_]) -> float:
    """Largest |log(in / out)| over the active variables."""
    if not active.any():
        return 0.0
    with np.errstate(divide="ignore"):
        return float(np.abs(np.log(rising[active]) - np.log(falling[active])).max())


def restrict(problem: Problem, active: Sequence[bool] | npt.NDArray[np.bool_]) -> Problem:
    """The same problem with the other variables held at 0."""
    keep = sp.dia_array((np.asarray(active, dtype=np.float64)[None, :], [0]), shape=(problem.count,) * 2)
    blocks = []
    for block in problem.blocks:
        sides = []
        for side in (block.rows, block.columns):
            forms = sp.csr_array(side.forms @ keep)
            forms.eliminate_zeros()
            sides.append(forms)
        made = make_block(block.name, block.mass, sides[0], sides[1], problem.groups)
        if made is not None:
            blocks.append(made)
    return Problem(problem.count, problem.groups, tuple(blocks), problem.p)
