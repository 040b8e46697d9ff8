"""Curves of the runs, medians with shaded quartiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graphnorm.util.atomic import replacing

LABELS = {
    "batch": "BatchNorm",
    "group": "GroupNorm",
    "equinorm": "EquiNorm (two passes)",
    "equinorm-unit": "EquiNorm (gain for unit variance)",
    "equinorm-1pass": "EquiNorm (one pass)",
    "equinorm-quarter": "EquiNorm (a quarter of the batch)",
}
COLOURS = dict(zip(LABELS, ("#4c72b0", "#55a868", "#c44e52", "#dd8452", "#8172b3", "#ccb974"), strict=True))


def draw(summary: dict[str, Any], title: str, file: Path) -> None:
    """Training loss and test error by epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, (name, label) in zip(
        axes, (("loss", "training loss"), ("test_error", "test error")), strict=True
    ):
        for norm, found in summary.items():
            low, middle, high = np.array(found[name]).T
            epochs = np.arange(1, len(middle) + 1)
            axis.plot(epochs, middle, color=COLOURS[norm], label=f"{LABELS[norm]}, {found['seeds']} seeds")
            axis.fill_between(epochs, low, high, color=COLOURS[norm], alpha=0.25, linewidth=0)
        axis.set(xlabel="epoch", ylabel=label)
        axis.grid(alpha=0.3)
        if len(middle) <= 12:
            axis.set_xticks(epochs)
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(title)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as part:
        figure.savefig(part, dpi=130)
