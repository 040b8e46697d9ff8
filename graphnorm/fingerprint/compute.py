"""A short vector of invariants, and a short id.

All are taken of the normal form, so that a torch module and its ONNX export have the same: a hash of the
structure; l1, l2 and l4 path-norms; and the sum of squares of each weight where the sum of all is least
over all rescalings (balanced masses), largest first.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from graphnorm.alignment.matching import signatures
from graphnorm.alignment.normal import normalise
from graphnorm.api.sources import open_model
from graphnorm.errors import NoPathNormError
from graphnorm.fingerprint.paths import path_norm
from graphnorm.permutation.matching import rebalanced
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.rescaling.objective import build_problem
from graphnorm.scales.demands import Role
from graphnorm.solver.solve import solve
from graphnorm.util.callers_state import kept_filters
from graphnorm.util.limits import enough_memory

EXPONENTS = (1, 2, 4)
_CLOSE = 5e-6  # relative: float32 weights, products of many
_ID_STEP = 1e-2  # of natural logarithms, in the id


@dataclass(frozen=True)
class Fingerprint:
    """Invariants under rescaling and permutation.

    Attributes:
        id: graph hash and rounded invariants, for people; equal for equal networks, but for rare roundings.
        graph: hash of the normal form without its weights.
        path_norms: ``l1``, ``l2``, ``l4``; None where there is none.
        masses: balanced sums of squares of the weights that have a minimum, largest first.
        inputs: sizes of the inputs; path-norms depend on them.
        missing: why a path-norm is None.
    """

    id: str
    graph: str
    path_norms: Mapping[str, float | None]
    masses: tuple[float, ...]
    inputs: tuple[tuple[int, ...], ...]
    missing: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return asdict(self)


@kept_filters()
@enough_memory()
def fingerprint_of(
    model: Any,
    example_inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> Fingerprint:
    """The fingerprint of a model; see `graphnorm.trace` for the arguments."""
    network = open_model(model, example_inputs, kwargs, input_shapes).network
    network.check_finite()
    normal = normalise(network).graph
    graph = build(normal)
    names = signatures(normal)
    digest = hashlib.sha256(repr([names[name] for name in normal.outputs]).encode()).hexdigest()
    norms, missing = _path_norms(graph)
    masses = balanced_masses(graph)
    sizes = tuple(normal.values[name].shape or () for name in normal.inputs)
    return Fingerprint(_short(digest, norms, masses), digest, norms, masses, sizes, missing)


def _path_norms(graph: RescalingGraph) -> tuple[dict[str, float | None], dict[str, str]]:
    norms: dict[str, float | None] = {}
    missing: dict[str, str] = {}
    for p in EXPONENTS:
        try:
            norms[f"l{p}"] = path_norm(graph, float(p))
        except NoPathNormError as error:
            norms[f"l{p}"], missing[f"l{p}"] = None, str(error)
    return norms, missing


def balanced_masses(graph: RescalingGraph) -> tuple[float, ...]:
    """Sum of squares of each multiplicative weight at the minimum; those without a minimum are left out."""
    problem = build_problem(graph)
    solution = solve(problem, 1e-10, 1000)
    weights = rebalanced(graph, solution.z)
    lost = np.zeros(graph.solution.count, dtype=bool)
    lost[solution.degenerate] = True
    unstable = np.asarray(graph.solution.basis @ lost.astype(np.float64)) != 0
    stable = [
        demand.weight
        for demand in graph.demands
        if demand.role == Role.WEIGHT and not any(unstable[labels].any() for _, labels in demand.terms)
    ]
    return tuple(sorted((float(np.square(weights[name]).sum()) for name in stable), reverse=True))


def differences(first: Fingerprint, second: Fingerprint) -> list[str]:
    """Where two fingerprints differ, beyond rounding; empty if nowhere."""
    found: list[str] = []
    if first.graph != second.graph:
        found.append("the graphs differ")
    if first.inputs != second.inputs:
        found.append(f"input sizes {first.inputs} and {second.inputs}")
    for name, one in first.path_norms.items():
        two = second.path_norms[name]
        if (one is None) != (two is None) or (one is not None and two is not None and not _close(one, two)):
            found.append(f"path-norm {name}: {one} and {two}")
    if len(first.masses) != len(second.masses):
        found.append(f"{len(first.masses)} and {len(second.masses)} weights")
    else:
        off = [i for i, pair in enumerate(zip(first.masses, second.masses, strict=True)) if not _close(*pair)]
        if off:
            at = off[0]
            pair = f"{first.masses[at]:.8g} and {second.masses[at]:.8g}"
            found.append(f"balanced mass {at + 1} of {len(first.masses)}: {pair}; {len(off)} differ")
    return found


def _close(one: float, two: float) -> bool:
    return abs(one - two) <= _CLOSE * max(abs(one), abs(two))


def _short(graph: str, norms: Mapping[str, float | None], masses: Sequence[float]) -> str:
    numbers = [norms["l2"], sum(masses) if masses else None]
    rounded = [None if not n else round(math.log(n) / _ID_STEP) for n in numbers]
    return f"{graph[:8]}-{hashlib.sha256(repr(rounded).encode()).hexdigest()[:8]}"
