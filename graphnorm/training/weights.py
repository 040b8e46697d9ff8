"""A module's tensors by the names that tracing gave them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from graphnorm.errors import InputError


def plain_module(model: nn.Module) -> nn.Module:
    """The module inside ``torch.compile``, data-parallel and averaging wrappers."""
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, (DataParallel, DistributedDataParallel, AveragedModel)):
            model = model.module
        else:
            return model


class Weights:
    """Parameters and buffers, looked up each time, as they may be replaced.

    Args:
        model: a plain module.
        shapes: name -> shape of the wanted tensors.

    Raises:
        InputError: a tensor is missing or has another shape.
    """

    def __init__(self, model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._places: list[tuple[str, dict[str, Tensor | None]]] = []
        modules = dict(model.named_modules(remove_duplicate=False))
        for name, shape in shapes.items():
            path, _, attribute = name.rpartition(".")
            owner = modules.get(path)
            held = None if owner is None else _holder(owner, attribute)
            if held is None or (tensor := held[attribute]) is None:
                raise InputError(f"{type(model).__name__} has no parameter or buffer named {name!r}")
            if tuple(tensor.shape) != tuple(shape):
                raise InputError(f"{name!r} has shape {tuple(tensor.shape)}, expected {tuple(shape)}")
            self._places.append((name, held))

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, held in self._places:
            tensor = held[name.rpartition(".")[2]]
            if tensor is None:
                raise InputError(f"{name!r} is None: the module dropped it since ENorm was made")
            yield name, tensor


def _holder(owner: nn.Module, attribute: str) -> dict[str, Tensor | None] | None:
    tables: Iterable[dict[str, Tensor | None]] = (owner._parameters, owner._buffers)  # type: ignore[assignment]
    return next((table for table in tables if attribute in table), None)


def ties(model: nn.Module) -> set[frozenset[str]]:
    """The names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {frozenset(found) for found in names.values() if len(found) > 1}
