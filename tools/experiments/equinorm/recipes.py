"""What is trained how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

from tools.experiments.equinorm.networks import Mix


@dataclass(frozen=True)
class Recipe:
    """One training run but for normalisation and seed.

    Attributes:
        network: of `networks.NETWORKS`.
        planes: channels of the first stage.
        epochs: epochs, of ``samples`` images each if that is not 0.
        schedule: ``"step"``: a tenth after 1/2 and 3/4 of the epochs; ``"one-cycle"``.
        mixing: ``"none"``, ``"mixup"`` (images), ``"manifold"`` (images or hidden values before a stage).
        alpha: mixing coefficients are Beta(alpha, alpha).
    """

    network: str
    planes: int
    epochs: int
    schedule: str = "step"
    mixing: str = "none"
    alpha: float = 1.0
    rate: float = 0.1
    momentum: float = 0.9
    decay: float = 5e-4
    batch: int = 128
    samples: int = 0
    augment: bool = True


RECIPES = {
    "wide": Recipe("wide_resnet20", 96, 200),
    "wide-one-cycle": Recipe("wide_resnet20", 96, 30, "one-cycle"),
    "preact": Recipe("preact_resnet18", 64, 200),
    "preact-one-cycle": Recipe("preact_resnet18", 64, 30, "one-cycle"),
    "preact-mixup": Recipe("preact_resnet18", 64, 200, mixing="mixup"),
    "preact-manifold": Recipe("preact_resnet18", 64, 200, mixing="manifold", alpha=2.0),
    "small": Recipe("small_resnet", 8, 4, samples=12_800, augment=False),
    "small-preact": Recipe("small_preact", 8, 4, samples=12_800, augment=False),
    "small-one-cycle": Recipe("small_resnet", 8, 4, "one-cycle", samples=12_800, augment=False),
}


def schedule(recipe: Recipe, optimizer: SGD, steps: int) -> LRScheduler:
    """Learning rates of all steps."""
    if recipe.schedule == "one-cycle":
        return OneCycleLR(optimizer, max_lr=recipe.rate, total_steps=steps)
    return MultiStepLR(optimizer, [steps // 2, steps * 3 // 4], gamma=0.1)


def mixing(recipe: Recipe, rng: np.random.Generator, stages: int) -> Callable[[int], Mix | None]:
    """Batch size -> what to mix."""

    def draw(count: int) -> Mix | None:
        if recipe.mixing == "none":
            return None
        stage = int(rng.integers(stages)) if recipe.mixing == "manifold" else 0
        order: Tensor = torch.from_numpy(rng.permutation(count))
        return Mix(stage, float(rng.beta(recipe.alpha, recipe.alpha)), order)

    return draw
