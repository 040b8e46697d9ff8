"""A short vector of invariants, and a short id.

All are computed from the normal form at the traced sizes, so that a torch module and its ONNX export
have the same, whether sizes are open or not: a hash of the structure; the numbers of the program; l1, l2 and
l4 path-norms; and the sum of squares of each weight where the sum of all is least over all rescalings
(balanced masses), largest first.

Tensors of float constants count as weights: ONNX does not tell one from the other.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from graphnorm import ir
from graphnorm.alignment.matching import signatures
from graphnorm.alignment.normal import normalise
from graphnorm.api.sources import open_model
from graphnorm.errors import NoPathNormError
from graphnorm.fingerprint.paths import check_paths, path_norm
from graphnorm.permutation.matching import rebalanced
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.rescaling.objective import build_problem
from graphnorm.scales.demands import Role
from graphnorm.solver.solve import solve
from graphnorm.util.callers_state import kept_filters
from graphnorm.util.limits import enough_memory

EXPONENTS = (1, 2, 4)
_BESIDE = frozenset({"Concat", "Max", "Min", "Where"})  # zeros suit other operands of any scale
_COUNTED = frozenset({Role.WEIGHT, Role.FIXED})
_ID_STEP = 1e-2  # of natural logarithms, in the id


@dataclass(frozen=True)
class Fingerprint:
    """Invariants under rescaling and permutation.

    Attributes:
        id: graph hash and rounded invariants, for people; equal for equal networks, but for rare roundings.
        graph: hash of the normal form without its weights and numbers.
        path_norms: ``l1``, ``l2``, ``l4``; None where there is none.
        masses: balanced sums of squares of the weights that have a minimum and are not zero, largest first.
        inputs: sizes of the inputs; all else is taken at these.
        missing: why a path-norm is None.
        numbers: slopes, bounds, exponents and other numbers of operators, in the order of their places.
    """

    id: str
    graph: str
    path_norms: Mapping[str, float | None]
    masses: tuple[float, ...]
    inputs: tuple[tuple[int, ...], ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    numbers: tuple[float, ...] = ()

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
    """The fingerprint of a model: path-norms (Gonon et al. 2024) and balanced masses (linear).

    Args:
        model: see `graphnorm.trace`, as are the others.
        example_inputs: inputs to trace a torch module with.
        kwargs: keyword inputs of a torch module.
        input_shapes: sizes of an ONNX model's symbolic dimensions, by input name.

    Returns:
        The invariants, and a short id made of them.

    Raises:
        InputError: the model cannot be taken.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> found = fingerprint_of(model, torch.randn(3, 4))
    >>> sorted(found.path_norms), len(found.masses)
    (['l1', 'l2', 'l4'], 2)
    """
    return of_network(open_model(model, example_inputs, kwargs, input_shapes).network)


def of_network(network: ir.Graph, numbers: bool = False) -> Fingerprint:
    """The fingerprint of a network; `numbers`: weights of one entry count as numbers of the program."""
    normal = form_of(network, numbers)
    graph = build(normal)
    names = signatures(normal)
    digest = hashlib.sha256(repr([names[name] for name in normal.outputs]).encode()).hexdigest()
    norms, missing = _path_norms(graph)
    masses = balanced_masses(graph)
    sizes = tuple(normal.values[name].shape or () for name in normal.inputs)
    held = numbers_of(normal, names)
    return Fingerprint(_short(digest, norms, masses, held), digest, norms, masses, sizes, missing, held)


def form_of(network: ir.Graph, numbers: bool = False) -> ir.Graph:
    """What the invariants are computed from: the normal form at the traced sizes.

    Tensors of constants are weights, each use one of its own; zeros beside other entries are constants.
    """
    network.check_finite()
    normal = normalise(network.closed(), numbers).graph
    weights, constants, values = dict(normal.weights), dict(normal.constants), dict(normal.values)
    nodes: list[ir.Node] = []
    for node in normal.nodes:
        names = list(node.inputs)
        for index, name in enumerate(names):
            held = normal.constants.get(name)
            if held is not None and _is_tensor(held):
                names[index] = own = f"{name} of {node.name}, {index}"
                weights[own], values[own] = held, replace(values[name], name=own)
            elif node.op in _BESIDE and name in weights and not weights[name].any():
                constants[name] = weights.pop(name)
        nodes.append(replace(node, inputs=tuple(names)))
    return replace(normal, nodes=tuple(nodes), values=values, weights=weights, constants=constants)


def _is_tensor(array: ir.Array) -> bool:
    """Whether a constant could as well be a weight: floats, more than one, all there, not zero."""
    floats = array.dtype.name in ir.FLOAT_TYPES and array.size > 1
    whole = all(stride for size, stride in zip(array.shape, array.strides, strict=True) if size > 1)
    return floats and whole and bool(array.any() and np.isfinite(array.astype(np.float64)).all())


def numbers_of(normal: ir.Graph, names: Mapping[str, str]) -> tuple[float, ...]:
    """Floats among the attributes and the operands of single entries, in the order of their places."""
    found: list[tuple[str, str, float]] = []
    for node in normal.nodes:
        place = names[next(name for name in node.outputs if name)]
        found += [(place, key, value) for key, value in node.attributes.items() if isinstance(value, float)]
        for index, name in enumerate(node.inputs):
            held = normal.constants.get(name)
            if held is not None and held.dtype.name in ir.FLOAT_TYPES and held.size == 1:
                found.append((place, str(index), float(held.reshape(-1)[0])))
    return tuple(value for _, _, value in sorted(found))


def _path_norms(graph: RescalingGraph) -> tuple[dict[str, float | None], dict[str, str]]:
    norms: dict[str, float | None] = {}
    missing: dict[str, str] = {}
    try:
        check_paths(graph)
    except NoPathNormError as error:
        names = [f"l{p}" for p in EXPONENTS]
        return dict.fromkeys(names), dict.fromkeys(names, str(error))
    for p in EXPONENTS:
        try:
            norms[f"l{p}"] = path_norm(graph, float(p))
        except NoPathNormError as error:
            norms[f"l{p}"], missing[f"l{p}"] = None, str(error)
    return norms, missing


def balanced_masses(graph: RescalingGraph) -> tuple[float, ...]:
    """Sum of squares of each weight but biases at the minimum; those without a minimum are left out.

    So are zeros, which no rescaling changes: an exporter may leave them out or fill them in.
    """
    problem = build_problem(graph)
    solution = solve(problem, 1e-10, 1000)
    weights = rebalanced(graph, solution.z)
    lost = np.zeros(graph.solution.count, dtype=bool)
    lost[solution.degenerate] = True
    unstable = np.asarray(graph.solution.basis @ lost.astype(np.float64)) != 0
    left_out = {
        demand.weight
        for demand in graph.demands
        if demand.role not in _COUNTED or any(unstable[labels].any() for _, labels in demand.terms)
    }
    found = (float(np.square(array).sum()) for name, array in weights.items() if name not in left_out)
    return tuple(sorted((mass for mass in found if mass), reverse=True))


def _short(
    graph: str, norms: Mapping[str, float | None], masses: Sequence[float], numbers: Sequence[float]
) -> str:
    sizes = [norms["l2"], sum(masses) if masses else None]
    rounded = [None if not n else round(math.log(n) / _ID_STEP) for n in sizes]
    written = [f"{number:.3g}" for number in numbers]
    return f"{graph[:8]}-{hashlib.sha256(repr((rounded, written)).encode()).hexdigest()[:8]}"
