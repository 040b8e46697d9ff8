"""Implicit ENorm: the rescaling is learned along with the weights (Stock et al. 2019, section 3.4).

    effective weight = theta * exp(r_i + c_j),  r, c: forms in the log-scales z
    loss = data term + strength * Phi,          Phi = sum lambda |theta|^p exp(p (r_i + c_j))

The data term does not depend on z; the penalty pulls z towards the balanced weights, and theta with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from graphnorm.errors import InputError
from graphnorm.training.forms import Forms
from graphnorm.training.options import Options
from graphnorm.training.parts import Part, cut_into_parts
from graphnorm.training.symmetry import find_symmetries
from graphnorm.training.weights import plain_module
from graphnorm.util.callers_state import kept_filters


class LogScales(nn.Module):
    """The learnable log-scales z (variables,), and the forms in them."""

    index: Tensor
    coefficient: Tensor

    def __init__(self, forms: Forms, like: Tensor) -> None:
        super().__init__()
        wide = torch.promote_types(like.dtype, torch.float32)
        self.z = nn.Parameter(torch.zeros(forms.count, dtype=wide, device=like.device))
        self.register_buffer("index", torch.from_numpy(forms.index).to(like.device), persistent=False)
        coefficient = torch.from_numpy(forms.coefficient).to(like.device, wide)
        self.register_buffer("coefficient", coefficient, persistent=False)

    def forward(self) -> Tensor:
        """The value of every form."""
        padded = torch.cat([self.z, self.z.new_zeros(1)])
        return (self.coefficient * padded[self.index]).sum(dim=1)


class Rescaled(nn.Module):
    """The parametrisation of one weight: theta -> theta * exp(scale)."""

    def __init__(self, scales: LogScales, parts: list[Part], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.scales = scales
        self.parts = parts
        self.shape = shape
        device = scales.index.device
        self.ids = [[torch.from_numpy(np.array(side.forms)).to(device) for side in p.sides] for p in parts]

    def log_scale(self) -> Tensor:
        """Of each entry of the weight; broadcastable to it."""
        values = self.scales()
        blocks: list[Tensor] = [
            sum((values[ids] for ids in sides), values.new_zeros(())) for sides in self.ids
        ]
        if len(blocks) == 1:
            return blocks[0]
        full: Tensor = values.new_zeros(self.shape)
        for part, block in zip(self.parts, blocks, strict=True):
            full[part.block] = block
        return full

    def forward(self, theta: Tensor) -> Tensor:
        weight: Tensor = theta * torch.exp(self.log_scale())
        return weight.to(theta.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The theta of a given effective weight."""
        theta: Tensor = weight * torch.exp(-self.log_scale())
        return theta.to(weight.dtype)


class ImplicitENorm:
    """Log-scales as parameters of the model, with the penalty that balances them.

    >>> import torch, graphnorm
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> implicit = graphnorm.ImplicitENorm(model, torch.randn(3, 4))
    >>> optimizer = torch.optim.SGD(implicit.parameter_groups(scale_lr=0.01), lr=0.1)
    >>> loss = model(torch.randn(5, 4)).square().mean() + 1e-3 * implicit.penalty()
    >>> loss.backward()
    >>> optimizer.step()
    >>> implicit.fold()
    >>> [name for name, _ in model.named_parameters()]
    ['0.weight', '0.bias', '2.weight', '2.bias']

    Until `fold` is called, the model's weights are parametrised (``torch.nn.utils.parametrize``), and its
    state_dict has theta and z in their place.

    Args:
        model: the network; make the optimizer after this.
        example_inputs: positional inputs to trace with.
        p: exponent of the norm.
        c: asymmetry of ENorm-c.
        kwargs: keyword inputs to trace with.

    Raises:
        InputError: the model cannot be traced, or nothing in it can be rescaled.
    """

    @kept_filters()
    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        p: float = 2.0,
        c: float = 1.0,
        *,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        Options(p, c).check()
        self.model, self.p, self.c = plain_module(model), p, c
        symmetries = find_symmetries(self.model, example_inputs, kwargs)
        if not symmetries.count:
            raise InputError(f"{type(self.model).__name__} has no weight that can be rescaled")
        forms = Forms(symmetries.count)
        by_weight: dict[str, list[Part]] = {}
        for part in cut_into_parts(symmetries, forms):
            by_weight.setdefault(part.weight, []).append(part)
        names = _all_names(self.model)
        tensors = {name: tensor for found in names.values() for name, tensor in found}
        self.scales = LogScales(forms, tensors[next(iter(by_weight))])
        self._made: list[tuple[nn.Module, str, Rescaled]] = []
        self._orders = [(m, [*m._parameters, *m._buffers]) for m in self.model.modules()]
        self._owners: list[tuple[Rescaled, nn.Module]] = []
        for weight, parts in by_weight.items():
            rescaled = Rescaled(self.scales, parts, symmetries.shapes[weight])
            for index, (name, _) in enumerate(names[id(tensors[weight])]):
                path, _, attribute = name.rpartition(".")
                owner = self.model.get_submodule(path)
                parametrize.register_parametrization(owner, attribute, rescaled, unsafe=True)
                self._made.append((owner, attribute, rescaled))
                if not index:
                    holders: Any = owner.parametrizations
                    self._owners.append((rescaled, holders[attribute]))

    def penalty(self) -> Tensor:
        """Phi(theta, z), differentiable in both; over the weights that can be rescaled, biases excluded."""
        total = self.scales.z.new_zeros(())
        values = self.scales()
        for rescaled, holder in self._owners:
            theta = holder.original
            for part, sides in zip(rescaled.parts, rescaled.ids, strict=True):
                if part.counted:
                    scale = sum((values[ids] for ids in sides), values.new_zeros(()))
                    mass = theta[part.block].abs().pow(self.p) * torch.exp(self.p * scale)  # type: ignore[index]
                    total = total + self.c ** (self.p * part.layers) * mass.sum()
        return total

    def parameter_groups(self, scale_lr: float, **options: Any) -> list[dict[str, Any]]:
        """Two groups for an optimizer: the model's parameters, and the log-scales with their own rate.

        Args:
            scale_lr: learning rate of the log-scales; these have no weight decay of their own.
            options: of the first group.
        """
        own = self.scales.z
        others = [parameter for parameter in self.model.parameters() if parameter is not own]
        return [
            {"params": others, **options},
            {"params": [own], "lr": scale_lr, "weight_decay": 0.0},
        ]

    @torch.no_grad()
    def fold(self) -> None:
        """Make the model plain again: its weights become the effective ones, the log-scales are removed."""
        effective = [getattr(owner, attribute).clone() for owner, attribute, _ in self._made]
        for (owner, attribute, _), value in zip(self._made, effective, strict=True):
            parametrize.remove_parametrizations(owner, attribute, leave_parametrized=False)
            getattr(owner, attribute).copy_(value)
        for owner, order in self._orders:  # a parameter that was parametrised is re-registered last
            for table in (owner._parameters, owner._buffers):
                for attribute in order:
                    if attribute in table:
                        table[attribute] = table.pop(attribute)  # type: ignore[assignment]
        self._made.clear()
        self._owners.clear()


def _all_names(model: nn.Module) -> dict[int, list[tuple[str, Tensor]]]:
    """Every name of each parameter and buffer, by identity."""
    found: dict[int, list[tuple[str, Tensor]]] = {}
    seen: set[tuple[int, str]] = set()
    for path, module in model.named_modules():  # a module that has two names is visited once
        for attribute, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and (id(module), attribute) not in seen:
                seen.add((id(module), attribute))
                found.setdefault(id(tensor), []).append((f"{path}.{attribute}".lstrip("."), tensor))
    return found
