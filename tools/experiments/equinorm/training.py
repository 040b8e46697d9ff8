"""One training run: a line of results an epoch, and a checkpoint to go on from."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import nn

from graphnorm.util.atomic import replacing
from tools.experiments.equinorm.data import CLASSES, Images, augmented
from tools.experiments.equinorm.networks import NETWORKS
from tools.experiments.equinorm.recipes import Recipe, mixing, schedule
from tools.experiments.equinorm.results import read, saved

Step = Callable[[], None]


class Run:
    """One network in training; all that changes is in `state`."""

    def __init__(self, recipe: Recipe, norm: str, seed: int, train: Images, device: str) -> None:
        torch.manual_seed(seed)
        channels = train.images.shape[1]
        self.recipe, self.train, self.device = recipe, train, device
        build = NETWORKS[recipe.network]
        self.model = build(norm, recipe.planes, channels=channels, classes=CLASSES).to(device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), recipe.rate, recipe.momentum, weight_decay=recipe.decay, nesterov=True
        )
        self.samples = recipe.samples or len(train.images)
        self.steps = max(self.samples // recipe.batch, 1)
        self.schedule = schedule(recipe, self.optimizer, recipe.epochs * self.steps)
        self.generator = torch.Generator().manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.mix = mixing(recipe, self.rng, 1 + len(self.model.stages))

    def epoch(self, step: Step) -> dict[str, float]:
        """Train over one epoch; mean loss, and seconds of computation."""
        self.model.train()
        order = torch.randperm(len(self.train.images), generator=self.generator)
        total, start = torch.zeros((), device=self.device), time.perf_counter()
        for chosen in torch.split(order[: self.steps * self.recipe.batch], self.recipe.batch):
            total += self._step(chosen)
            step()
        loss = float(total) / self.steps
        return {"loss": loss, "seconds": time.perf_counter() - start}

    def _step(self, chosen: torch.Tensor) -> torch.Tensor:
        x, y = self.train.images[chosen], self.train.labels[chosen].to(self.device)
        x = (augmented(x, self.generator) if self.recipe.augment else x).to(self.device)
        mix = self.mix(len(x))
        out = self.model.mixed(x, mix)
        loss: Any = F.cross_entropy(out, y)
        if mix is not None:
            loss = mix.lam * loss + (1 - mix.lam) * F.cross_entropy(out, y[mix.order])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        value: torch.Tensor = loss.detach()
        return value

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.generator.get_state(),
            "numpy": json.dumps(self.rng.bit_generator.state),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["order"].cpu())
        self.rng.bit_generator.state = json.loads(state["numpy"])


@torch.no_grad()
def error(model: nn.Module, data: Images, device: str, batch: int = 1000) -> float:
    """Share of images put into a wrong class."""
    model.eval()
    wrong = 0
    for x, y in zip(torch.split(data.images, batch), torch.split(data.labels, batch), strict=True):
        wrong += int((model(x.to(device)).argmax(1) != y.to(device)).sum())
    return wrong / len(data.images)


def train(
    recipe: Recipe, norm: str, seed: int, data: tuple[Images, Images], file: Path, device: str, step: Step
) -> dict[str, Any]:
    """Train, or go on from the checkpoint beside ``file``; the results are in ``file`` after each epoch.

    Returns:
        The results: recipe, norm, seed, and lists with an entry an epoch.
    """
    checkpoint = file.with_suffix(".pt")
    run = Run(recipe, norm, seed, data[0], device)
    found = read(file) if checkpoint.exists() else {}
    curves: dict[str, list[float]] = {"loss": [], "seconds": [], "test_error": []}
    if found and found["recipe"] == asdict(recipe):
        kept = torch.load(checkpoint, map_location=device, weights_only=True)
        run.restore(kept["run"])
        curves = {name: found["curves"][name][: kept["epochs"]] for name in curves}
    result: dict[str, Any] = {"recipe": asdict(recipe), "norm": norm, "seed": seed, "curves": curves}
    while len(curves["loss"]) < recipe.epochs:
        measured = {**run.epoch(step), "test_error": error(run.model, data[1], device)}
        for name, value in measured.items():
            curves[name].append(value)
        saved(file, json.dumps(result, indent=1).encode())
        with replacing(checkpoint) as part:
            torch.save({"epochs": len(curves["loss"]), "run": run.state()}, part)
    checkpoint.unlink(missing_ok=True)
    saved(file, json.dumps({**result, "complete": True}, indent=1).encode())
    return result
