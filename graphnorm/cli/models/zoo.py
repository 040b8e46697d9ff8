"""Torch modules by name: ``timm:NAME``, ``torchvision:NAME`` and ``module.path:callable``."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphnorm.cli.models.inputs import Inputs, Shape
from graphnorm.errors import InputError

if TYPE_CHECKING:
    from torch import nn

_SIDES = {"inception_v3": 299}  # of torchvision's models that don't take 224


@dataclass(frozen=True, slots=True)
class Built:
    """A module, its usual inputs (``Inputs`` or tensors; None: unknown), and where its weights are from."""

    module: nn.Module
    example: Any
    weights: str


def build_module(home: str, name: str, seed: int) -> Built:
    """Build ``home:name`` with torch's generator seeded, so that random weights reproduce.

    Raises:
        InputError: a package, module or name that isn't there, or a callable that fails.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(f"{home}:{name} needs torch: pip install 'graphnorm[torch]'") from error
    torch.manual_seed(seed)
    if home == "timm":
        return _from_timm(name, seed)
    if home == "torchvision":
        return _from_torchvision(name, seed)
    return _from_callable(home, name, seed)


def _from_timm(name: str, seed: int) -> Built:
    _declare_torchvision_operators()
    try:
        import timm
    except ImportError as error:
        raise InputError(f"timm:{name} needs timm: pip install timm ({error})") from error
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(f"timm:{name}: timm has no such model{_suggest(name, timm.list_models())}")
    with _border(f"timm:{name}"):
        module: Any = timm.create_model(name, pretrained=False)
    size = tuple(int(n) for n in module.pretrained_cfg.get("input_size") or (3, 224, 224))
    return Built(module, Inputs((Shape("", (1, *size)),)), f"random (seed {seed})")


def _from_torchvision(name: str, seed: int) -> Built:
    _declare_torchvision_operators()
    try:
        from torchvision import models
    except ImportError as error:
        raise InputError(
            f"torchvision:{name} needs torchvision: pip install torchvision ({error})"
        ) from error
    if name not in models.list_models():
        raise InputError(
            f"torchvision:{name}: torchvision has no such model{_suggest(name, models.list_models())}"
        )
    known = inspect.signature(models.get_model_builder(name)).parameters
    backbone = {"weights_backbone": None} if "weights_backbone" in known else {}  # its default is a download
    with _border(f"torchvision:{name}"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module = models.get_model(name, weights=None, **backbone)
    side = _SIDES.get(name, 224)
    return Built(module, Inputs((Shape("", (1, 3, side, side)),)), f"random (seed {seed})")


def _declare_torchvision_operators() -> None:
    """A torchvision built for CUDA beside a CPU torch lacks its library: declare what its import needs."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        try:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        except RuntimeError:  # declared already
            continue
    _KEPT.append(library)  # a library that is collected takes its operators with it


_KEPT: list[Any] = []


def _from_callable(home: str, name: str, seed: int) -> Built:
    from torch import nn

    spec = f"{home}:{name}"
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if home.partition(".")[0] in {"timm", "torchvision"}:
        _declare_torchvision_operators()
    with _border(spec):
        python_module = importlib.import_module(home)
    made: Any = python_module
    for part in name.split("."):
        if not hasattr(made, part):
            raise InputError(f"{spec}: {home} has no {name!r}{_suggest(part, dir(made))}")
        made = getattr(made, part)
    if not isinstance(made, nn.Module):
        if not callable(made):
            raise InputError(f"{spec}: {name} is not a callable that returns a torch module")
        with _border(spec):
            made = made()
    if not isinstance(made, nn.Module):
        raise InputError(f"{spec}: {name}() returned {type(made).__name__}, expected a torch module")
    example = getattr(made, "example_inputs", getattr(python_module, "example_inputs", None))
    return Built(made, example, f"as {spec} made them (seed {seed})")


@contextmanager
def _border(spec: str) -> Iterator[None]:
    """Code of others may raise anything: say what, and whose it is."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"{spec}: cannot be imported: {error}; modules are looked up in the current folder and the "
            "Python environment"
        ) from error
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        raise InputError(f"{spec}: building the model failed: {type(error).__name__}: {first}") from error


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""
