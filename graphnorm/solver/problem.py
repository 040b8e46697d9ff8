"""The optimisation problem, in arrays only.

    minimise   Phi(z) = sum_blocks sum_ij A_ij exp(p (r_i(z) + c_j(z))),     r = R z,  c = C z

with non-negative masses A (p-th powers of weights, summed over entries of equal exponent) and sparse
matrices R, C whose entries are usually 0, 1, -1.  A plain layer has r_i = z_out(i), c_j = -z_in(j): then
Phi is matrix balancing (Osborne 1960) on the rescaling graph.  Phi is convex in z in any case.

A variable's imbalance is log(in / out): the mass that grows with it against the mass that shrinks.
With p = inf the masses are |w|, a sum is a maximum, and balance is that of the largest entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from graphnorm.solver.edges import sparse
from graphnorm.solver.masses import Dense, Gather, Held, Mass
from graphnorm.util.typing import Bools, Floats, Integers


@dataclass(frozen=True, slots=True)
class Block:
    """One weight region: masses (rows, columns) and the linear forms (entries, variables) of both sides."""

    name: str
    mass: Mass
    rows: sp.csr_array
    columns: sp.csr_array


@dataclass(frozen=True, slots=True)
class Problem:
    """Blocks over `count` variables, each of which belongs to a group (`groups[v]`); exponent p."""

    count: int
    groups: Integers
    blocks: tuple[Block, ...]
    p: float

    @property
    def group_count(self) -> int:
        return int(self.groups.max(initial=-1)) + 1

    @property
    def exponent(self) -> float:
        """p, or 1 for p = inf, where masses are the absolute values themselves."""
        return self.p if np.isfinite(self.p) else 1.0


def make_block(
    name: str,
    mass: Floats | sp.csr_array | Held,
    rows: sp.csr_array,
    columns: sp.csr_array,
    sums: bool = True,
) -> Block | None:
    """A block in which entries of equal forms are one; None if nothing can move.

    Args:
        name: the weight's name.
        mass: array, `scipy.sparse.csr_array` or masses in memory, of shape (rows, columns).
        rows: forms of the rows.
        columns: forms of the columns.
        sums: masses of equal forms are added; for p = inf the largest stays.
    """
    if not rows.nnz and not columns.nnz:
        return None
    row_gather, rows = merged(rows)
    column_gather, columns = merged(columns)
    return Block(name, _as_mass(mass, sums).merged(row_gather, column_gather), rows, columns)


def _as_mass(mass: Floats | sp.csr_array | Held, sums: bool) -> Held:
    if isinstance(mass, np.ndarray):
        return Dense(mass, sums)
    return sparse(mass, sums) if isinstance(mass, sp.sparray) else mass


def merged(forms: sp.csr_array) -> tuple[Gather | None, sp.csr_array]:
    """Which entries to sum (a flattened feature map, pinned channels), and the forms that are left."""
    forms.sum_duplicates()
    lengths = np.diff(forms.indptr)
    if (lengths <= 1).all() and (not forms.nnz or (forms.data == forms.data[0]).all()):
        key = np.full(forms.shape[0], -1, dtype=np.int64)
        key[lengths == 1] = forms.indices
        if len(key) == 1 or (np.diff(key) > 0).all():
            return None, forms
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    elif _increasing(forms, lengths):
        return None, forms
    else:
        rows = form_keys(forms)
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    if len(first) == len(inverse):
        return None, forms
    return Gather(inverse, len(first)), sp.csr_array(forms[first])


def _increasing(forms: sp.csr_array, lengths: Integers) -> bool:
    """Whether all forms have as many terms, and one of these moves on from form to form."""
    if not len(lengths) or not lengths[0] or (lengths != lengths[0]).any():
        return False
    return bool((np.diff(forms.indices.reshape(len(lengths), -1), axis=0) > 0).all(axis=0).any())


def form_keys(forms: sp.csr_array) -> Floats:
    """One row of numbers per form that is equal exactly for equal forms: indices and coefficients.

    Indices are sorted, without duplicates.
    """
    lengths = np.diff(forms.indptr)
    width = int(lengths.max(initial=0))
    key = np.full((forms.shape[0], 2 * width + 1), -1.0)
    key[:, 0] = lengths
    entry = np.repeat(np.arange(forms.shape[0]), lengths)
    place = np.arange(forms.nnz) - np.repeat(forms.indptr[:-1], lengths)
    key[entry, 1 + place] = forms.indices
    key[entry, 1 + width + place] = forms.data
    return key


def objective(problem: Problem, z: Floats) -> float:
    """Phi(z); for p = inf the largest rescaled |w|."""
    values = [block_masses(block, problem, z)[0] for block in problem.blocks]
    if not np.isfinite(problem.p):
        return float(max((v.max(initial=0.0) for v in values), default=0.0))
    return float(sum(v.sum() for v in values))


def block_masses(block: Block, problem: Problem, z: Floats) -> tuple[Floats, Floats]:
    """Row sums and column sums of the rescaled masses (row and column maxima for p = inf)."""
    r, c = scaled_exponents(block, problem.exponent, z)
    if np.isfinite(problem.p):
        return r * block.mass.right(c), c * block.mass.left(r)
    return r * block.mass.right_max(c), c * block.mass.left_max(r)


def scaled_exponents(block: Block, p: float, z: Floats) -> tuple[Floats, Floats]:
    """exp(p r), exp(p c), shifted against each other so that neither overflows."""
    r, c = p * (block.rows @ z), p * (block.columns @ z)
    shift = 0.5 * (c.max(initial=0.0) - r.max(initial=0.0))
    return np.exp(r + shift), np.exp(c - shift)


def flows(problem: Problem, z: Floats) -> tuple[Floats, Floats]:
    """Mass that grows with each variable and mass that shrinks, weighted by |coefficient| if p < inf."""
    rising, falling = np.zeros(problem.count), np.zeros(problem.count)
    for block in problem.blocks:
        for forms, mass in zip((block.rows, block.columns), block_masses(block, problem, z), strict=True):
            add_flow(forms, mass, rising, falling, np.isfinite(problem.p))
    return rising, falling


def add_flow(forms: sp.csr_array, mass: Floats, rising: Floats, falling: Floats, sums: bool = True) -> None:
    """Add the masses of entries to the variables of their forms (or take maxima)."""
    weight = np.repeat(mass, np.diff(forms.indptr)) * (forms.data if sums else np.sign(forms.data))
    if sums:
        rising += np.bincount(forms.indices, np.maximum(weight, 0.0), len(rising))
        falling += np.bincount(forms.indices, np.maximum(-weight, 0.0), len(rising))
    else:
        np.maximum.at(rising, forms.indices, np.maximum(weight, 0.0))
        np.maximum.at(falling, forms.indices, np.maximum(-weight, 0.0))


def imbalance(rising: Floats, falling: Floats, active: Bools) -> float:
    """Largest |log(in / out)| over the active variables."""
    if not active.any():
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.abs(np.log(rising[active]) - np.log(falling[active])).max())
