"""How an optimizer's state moves with the weights.

If w' = d w leaves the function unchanged, gradients become g / d.  A state tensor must become what it would
be had all gradients been taken at the new weights:

    linear in g (momentum, first moments)       d ** -1
    quadratic in g (second moments)             d ** -2
    a copy or average of w                      d
    ratios of the two (RMSprop's momentum of g / sqrt(v), Rprop's step sizes), counters    1

Exponents are those of d.  A tensor that no table knows is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from graphnorm.errors import InputError

_ADAM: dict[str, float] = {"step": 0, "exp_avg": -1, "exp_avg_sq": -2, "max_exp_avg_sq": -2}

EXPONENTS: dict[str, dict[str, float]] = {
    "SGD": {"momentum_buffer": -1},
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "RAdam": _ADAM,
    "NAdam": {**_ADAM, "mu_product": 0},
    "Adamax": {"step": 0, "exp_avg": -1, "exp_inf": -1},
    "RMSprop": {"step": 0, "square_avg": -2, "grad_avg": -1, "momentum_buffer": 0},
    "Adagrad": {"step": 0, "sum": -2},
    "Adadelta": {"step": 0, "square_avg": -2, "acc_delta": 0},
    "Rprop": {"step": 0, "prev": -1, "step_size": 0},
    "ASGD": {"step": 0, "eta": 0, "mu": 0, "ax": 1},
    "SparseAdam": _ADAM,
    "Muon": {"momentum_buffer": -1},
    "Lion": {"exp_avg": -1},
    "PathSGD": {"momentum_buffer": -1},
}
"""Class name of an optimizer -> state key -> exponent of the weight's coefficient."""


def register_optimizer(name: str, exponents: Mapping[str, float]) -> None:
    """Register how another optimizer's state is rescaled.

    Args:
        name: the optimizer's class name.
        exponents: state key -> exponent of the coefficient of the weight: -1 for what is linear in
            gradients, -2 for what is quadratic, 1 for copies of the weight, 0 for what does not change.
            A tensor with another exponent than 0 must have the shape of its weight.
    """
    EXPONENTS[name] = dict(exponents)


class StateTable:
    """The exponents of one optimizer's state.

    Args:
        optimizer: any ``torch.optim.Optimizer``.
        extra: exponents by state key, which come before those of the table.

    Raises:
        InputError: this class of optimizer is unknown.
    """

    def __init__(self, optimizer: Optimizer, extra: Mapping[str, float] | None = None) -> None:
        self.optimizer = optimizer
        names = [cls.__name__ for cls in type(optimizer).__mro__]
        known = next((EXPONENTS[name] for name in names if name in EXPONENTS), None)
        if known is None and extra is None:
            raise InputError(
                f"{names[0]}: graphnorm does not know how this optimizer's state moves with the weights; "
                "give state={'key': exponent, ...} (see graphnorm.training.state.register_optimizer)"
            )
        self.exponents = {**(known or {}), **(extra or {})}

    def tensors(self, parameter: Tensor, name: str) -> Iterator[tuple[Tensor, float]]:
        """State tensors of a parameter that must move, with their exponents.

        Raises:
            InputError: a state tensor is unknown, or has another shape than the weight.
        """
        for key, value in self.optimizer.state.get(parameter, {}).items():
            exponent = self.exponents.get(key)
            if exponent is None:
                if any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
                    raise InputError(
                        f"{type(self.optimizer).__name__}: unknown state tensor {key!r} of {name!r}; give "
                        f"its exponent, state={{{key!r}: -1}} if it is linear in gradients"
                    )
            elif exponent and value is not None:
                yield self._movable(key, value, parameter, name), exponent

    def check_keys(self) -> None:
        """Raise InputError for state tensors that belong to no parameter."""
        own = {id(parameter) for parameter in parameters_of(self.optimizer)}
        for key, value in self.optimizer.state.items():
            if id(key) not in own and any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
                what = f"of shape {tuple(key.shape)}" if isinstance(key, Tensor) else repr(key)
                raise InputError(
                    f"{type(self.optimizer).__name__}: state tensors are kept under {what}, which is no "
                    "parameter of its groups: how they move with the weights is not known"
                )

    def _movable(self, key: str, value: object, parameter: Tensor, name: str) -> Tensor:
        if isinstance(value, Tensor) and value.shape == parameter.shape and value.is_floating_point():
            return value
        owner = f"{type(self.optimizer).__name__}: state {key!r} of {name!r}"
        if not isinstance(value, Tensor):
            raise InputError(f"{owner} is a {type(value).__name__}, not a tensor: it cannot follow")
        raise InputError(
            f"{owner} is {value.dtype} of shape {tuple(value.shape)}, its weight "
            f"{tuple(parameter.shape)}: it cannot follow"
        )


def parameters_of(optimizer: Optimizer) -> Iterator[torch.Tensor]:
    """Parameters of all groups."""
    for group in optimizer.param_groups:
        yield from group["params"]
