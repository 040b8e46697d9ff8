"""Path-SGD (Neyshabur, Salakhutdinov & Srebro 2015), on any network of homogeneous parts.

    w_e <- w_e - lr * g_e / kappa_e,     kappa_e = d gamma / d (w_e^2),     gamma = f(1; w^2)

gamma is the network itself run once on an input of ones with all weights squared: the sum over all paths of
the product of the squared weights.  kappa_e is the part of it that passes through e, without w_e^2.  A
rescaling w_e -> d_e w_e leaves gamma as it is and divides kappa_e by d_e^2, g_e by d_e: the step scales
like the weight, and training does not depend on the scale of the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves, tree_map

from graphnorm.api.sources import open_model
from graphnorm.errors import InputError
from graphnorm.frontends.torch.finite import bounds_of
from graphnorm.frontends.torch.state import alone
from graphnorm.ir import Graph, Node
from graphnorm.ops.table import TABLE
from graphnorm.ops.traits import Trait
from graphnorm.training.symmetry import in_mode
from graphnorm.training.weights import plain_module
from graphnorm.util.callers_state import kept_filters

# Sums and choices of entries times weights: there paths go on.
PATHS = (
    Trait.HOMOGENEOUS | Trait.LINEAR | Trait.MULTILINEAR | Trait.CONTRACTS | Trait.COPIES | Trait.MOVES
    | Trait.WRITES | Trait.RESAMPLES
)  # fmt: skip
# Masks, sizes and positions: there are none.
NUMBERS = Trait.COMPARES | Trait.LOGICAL | Trait.READS_SHAPE | Trait.GENERATES | Trait.DISCRETE


class PathSGD(Optimizer):
    """Stochastic gradient descent in the geometry of paths.

    Args:
        model: a network without normalisations and saturating functions.
        example_inputs: positional inputs to trace with, a tensor or a tuple; only their sizes count.
        lr: learning rate.
        momentum: of the gradients.
        weight_decay: of the plain kind, added to the gradient (it depends on the scale of the weights).
        every: compute the path coefficients at every so many steps; 1 if ENorm rescales between them.
        kwargs: keyword inputs.

    Raises:
        InputError: an operator of the network has no paths, or the model cannot be traced.

    >>> import torch, graphnorm
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> optimizer = graphnorm.PathSGD(model, torch.randn(3, 4), lr=0.1)
    >>> model(torch.randn(5, 4)).square().mean().backward()
    >>> optimizer.step()
    """

    @kept_filters()
    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        lr: float = 0.1,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        every: int = 1,
        *,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = plain_module(model)
        args = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
        _check_homogeneous(self._model, args, kwargs)
        self._call = tree_map(_ones, (args, dict(kwargs or {})))
        self._every = every
        self._steps = 0
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([p for p in self._model.parameters() if p.requires_grad], defaults)
        for name, kappa in self.path_coefficients().items():
            if (kappa < 0).any():
                raise InputError(f"{name!r} has negative path coefficients: the network subtracts")

    @torch.enable_grad()
    def path_coefficients(self) -> dict[str, Tensor]:
        """Kappa of every parameter, by name: one forward and one backward pass."""
        squared = {
            name: parameter.detach().square().requires_grad_()
            for name, parameter in self._model.named_parameters()
        }
        args, kwargs = self._call
        flags = tuple(False for _ in self._model.modules())
        place = str(next(iter(squared.values())).device)
        with alone(place), in_mode(self._model, flags):  # no dropout: the paths of the whole network
            out = functional_call(self._model, squared, args, kwargs)
        gamma = torch.stack([leaf.sum() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]).sum()
        found = torch.autograd.grad(gamma, list(squared.values()), allow_unused=True)
        return {
            name: torch.zeros_like(square) if kappa is None else kappa
            for (name, square), kappa in zip(squared.items(), found, strict=True)
        }

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; parameters on no path (kappa = 0) stay where they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        if self._steps % self._every == 0:
            self._kappa = self.path_coefficients()
        self._steps += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._descend(parameter, self._kappa[names[id(parameter)]], group)
        return loss

    def _descend(self, parameter: Tensor, kappa: Tensor, group: Mapping[str, float]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        if group["momentum"]:
            state = self.state[parameter]
            buffer = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
            gradient = buffer.mul_(group["momentum"]).add_(gradient)
        step = torch.where(kappa > 0, gradient / kappa, torch.zeros_like(gradient))
        parameter.add_(step, alpha=-group["lr"])


def _ones(leaf: Any) -> Any:
    return torch.ones_like(leaf[:1]) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _check_homogeneous(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> None:
    network = open_model(model, args, kwargs).network
    for node in network.nodes:
        if not _has_paths(network, node):
            raise InputError(
                f"{node.op} {node.label} has no path coefficients: Path-SGD is for networks of linear maps, "
                "ReLU, pooling and sums"
            )


def _has_paths(network: Graph, node: Node) -> bool:
    row = TABLE.get(node.op)
    if node.op == "Clip":
        return all(bound in (None, 0.0) or math.isinf(bound) for bound in bounds_of(network, node))
    if node.op in {"Div", "PRelu"}:  # homogeneous in operand 0
        return node.inputs[1] in network.constants or node.inputs[1] in network.weights
    return row is not None and row.has_any(PATHS | NUMBERS)
