"""What one training step costs, forward and backward, beside BatchNorm's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

from tools.experiments.equinorm.networks import NETWORKS, ResNet


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def _seconds(model: ResNet, x: torch.Tensor, y: torch.Tensor, device: str) -> tuple[float, float]:
    start = _now(device)
    loss: Any = F.cross_entropy(model(x), y)
    middle = _now(device)
    loss.backward()
    end = _now(device)
    model.zero_grad()
    return middle - start, end - middle


def measure(
    network: str, planes: int, norms: list[str], shape: tuple[int, ...], repeats: int, device: str,
    step: Callable[[], None],
) -> dict[str, Any]:  # fmt: skip
    """norm -> quartiles of milliseconds, forward and backward.

    The norms take turns, so that what else the machine does meets all of them alike.

    Args:
        network: of `networks.NETWORKS`.
        planes: channels of the first stage.
        norms: of `networks.NORMS`.
        shape: of the images, the batch first.
        repeats: measured steps of each, after three that do not count.
        device: where to run.
        step: called after each step.
    """
    torch.manual_seed(0)
    models = {n: NETWORKS[network](n, planes, channels=shape[1], classes=10).to(device) for n in norms}
    x = torch.randn(shape, device=device)
    y = torch.randint(10, shape[:1], device=device)
    seconds: dict[str, list[tuple[float, float]]] = {norm: [] for norm in norms}
    for _ in range(repeats + 3):
        for norm, model in models.items():
            seconds[norm].append(_seconds(model.train(), x, y, device))
            step()
    result: dict[str, Any] = {"network": network, "planes": planes, "shape": list(shape), "repeats": repeats}
    result["milliseconds"] = {
        norm: dict(
            zip(
                ("forward", "backward"),
                np.percentile(np.array(t[3:]) * 1e3, [25, 50, 75], axis=0).T.tolist(),
                strict=True,
            )
        )
        for norm, t in seconds.items()
    }
    return result
