"""The rescalings that keep a module's function in training mode and in evaluation mode alike.

The module is traced once per mode.  The equations of both graphs are put side by side, the scales that
they demand of one weight are equated, weights that may not move are held at 0, and the whole is
eliminated at once: log-scale of label l = (basis @ z)_l for any z.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from graphnorm import ir
from graphnorm.api.sources import open_model
from graphnorm.frontends.torch.state import LOCK
from graphnorm.rescaling.objective import layers_after
from graphnorm.scales.constraints import Constraints, Rows
from graphnorm.scales.demands import Demand
from graphnorm.scales.elimination import eliminate
from graphnorm.scales.labels import PINNED, Labels, align
from graphnorm.scales.reconcile import reconcile
from graphnorm.scales.roles import settled
from graphnorm.scales.rules.table import default_registry
from graphnorm.scales.walk import Scales, propagate
from graphnorm.util.typing import Integers

Mode = tuple[bool, ...]
"""The ``training`` flag of each module, in the order of ``model.modules()``."""


@dataclass(frozen=True)
class Symmetries:
    """What may be rescaled during training.

    Attributes:
        shapes: name -> shape, of each weight that may move (parameters and buffers).
        demands: the log-scale of each region of these weights, in labels.
        basis: sparse (labels, variables): labels as combinations of the independent variables.
        groups: (variables,) index of the channel group, in network order.
        layers_after: consuming node of a demand -> weight layers after it on the longest path.
        modes: the training flags for which the function is kept.
    """

    shapes: Mapping[str, tuple[int, ...]]
    demands: tuple[Demand, ...]
    basis: sp.csr_array
    groups: Integers
    layers_after: Mapping[int, int]
    modes: tuple[Mode, ...]

    @property
    def count(self) -> int:
        """Number of independent variables."""
        return len(self.groups)


def find_symmetries(
    model: nn.Module,
    example_inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    movable: Collection[str] | None = None,
) -> Symmetries:
    """Trace a module in its training and evaluation modes; keep what both allow.

    The training mode is that of the module as it stands (frozen BatchNorms in evaluation mode stay so); if
    no module is in training mode, it is that of ``model.train()``.

    Args:
        model: a plain module (not wrapped by DDP or ``torch.compile``).
        example_inputs: positional inputs to trace with, a tensor or a tuple.
        kwargs: keyword inputs.
        movable: names of the parameters that may be changed; by default all that require gradients.  Buffers
            of norms that run on their statistics follow; others (masks, tables) mean what they hold and stay.

    Raises:
        InputError: the module cannot be traced.
    """
    fixed = _fixed(model, movable)
    modes = training_modes(model)
    networks = []
    for mode in modes:
        with LOCK, in_mode(model, mode), _fixed_momentum(model):
            networks.append(open_model(model, example_inputs, kwargs).network)
    constraints, demands, after, activations = _side_by_side(networks, fixed)
    names = set.intersection(*({*network.weights} for network in networks)) - fixed
    for item in demands:
        if item.weight not in names:
            _hold(item, constraints)
    kept = [item for item in demands if item.weight in names]
    agreed = reconcile(networks[0], kept, constraints)
    solution = eliminate(constraints.count, constraints.rows)
    agreed = settled(agreed, activations, solution.basis)
    free = np.diff(solution.basis.indptr) > 0
    moving = tuple(d for d in agreed if any(free[labels].any() for _, labels in d.terms))
    family = constraints.family_of(solution.variables)
    groups = np.unique(family, return_inverse=True)[1].reshape(-1).astype(np.int64)
    shapes = {d.weight: networks[0].weights[d.weight].shape for d in moving}
    return Symmetries(shapes, moving, solution.basis, groups, after, tuple(modes))


def _fixed(model: nn.Module, movable: Collection[str] | None) -> set[str]:
    """Parameters and buffers that may not change."""
    named = model.named_parameters(remove_duplicate=False)
    if movable is None:
        fixed = {name for name, tensor in named if not tensor.requires_grad}
    else:
        fixed = {name for name, _ in named if name not in movable}
    for path, module in model.named_modules(remove_duplicate=False):
        if "running_mean" not in module._buffers:
            fixed |= {f"{path}.{name}".lstrip(".") for name in module._buffers}
    return fixed


@contextmanager
def _fixed_momentum(model: nn.Module) -> Iterator[None]:
    """Cumulative running means divide by a counter, which tracing cannot follow; no output reads it."""
    cumulative = [m for m in model.modules() if isinstance(m, _NormBase) and m.momentum is None]
    try:
        for module in cumulative:
            module.momentum = 0.1
        yield
    finally:
        for module in cumulative:
            module.momentum = None


def training_modes(model: nn.Module) -> list[Mode]:
    """The flags of the module as it is trained, and of evaluation."""
    now = tuple(module.training for module in model.modules())
    training = now if any(now) else (True,) * len(now)
    return [training, (False,) * len(now)]


@contextmanager
def in_mode(model: nn.Module, mode: Mode) -> Iterator[None]:
    """Set the ``training`` flag of each module for the time being."""
    modules = list(model.modules())
    before = [module.training for module in modules]
    try:
        for module, flag in zip(modules, mode, strict=True):
            module.training = flag
        yield
    finally:
        for module, flag in zip(modules, before, strict=True):
            module.training = flag


def _side_by_side(
    networks: Sequence[ir.Graph],
    fixed: Collection[str],
) -> tuple[Constraints, list[Demand], dict[int, int], list[Labels]]:
    """Equations, demands, depths and labels of activations of several networks, over disjoint labels."""
    whole = Constraints()
    demands: list[Demand] = []
    after: dict[int, int] = {}
    activations: list[Labels] = []
    nodes = 0
    for network in networks:
        scales = propagate(network, default_registry(), fixed)
        labels = whole.count - 1
        own = [_shifted(item, labels, nodes) for item in scales.demands]
        _append(whole, scales, labels, nodes)
        depth = layers_after(network, scales.demands)
        after.update((index + nodes, layers) for index, layers in depth.items())
        demands += own
        activations += [_moved(found, labels) for found in scales.labels.values()]
        nodes += len(network.nodes) + 1  # one more for the outputs
    return whole, demands, after, activations


def _append(whole: Constraints, scales: Scales, labels: int, nodes: int) -> None:
    for batch in scales.constraints.rows:
        table = _moved(batch.labels, labels)
        whole.rows.append(Rows(batch.coefficients, table, batch.node + nodes, batch.reason))
    for first, node, what in scales.constraints.families:
        whole.families.append((first + labels, node + nodes, what))
    whole.count += scales.constraints.count - 1


def _shifted(item: Demand, labels: int, nodes: int) -> Demand:
    terms = tuple((c, _moved(array, labels)) for c, array in item.terms)
    return replace(item, terms=terms, node=item.node + nodes)


def _moved(array: Labels, by: int) -> Labels:
    return np.where(array > PINNED, array + by, array)


def _hold(item: Demand, constraints: Constraints) -> None:
    """Keep a region of a weight as it is."""
    rank = max([1, *(labels.ndim for _, labels in item.terms)])
    terms = [(c, align(labels, rank)) for c, labels in item.terms]
    constraints.equation(terms, item.node, f"{item.weight} may not change")
