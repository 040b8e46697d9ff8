"""Figures 6, 7, 9 and 10 of Stock et al. 2019: energy of each layer before and during ENorm.

    python -m tools.experiments.enorm_energy [--cycles 50] [--out docs/experiments/enorm_energy.json]

For the fully connected network of 20 layers and for ResNet-18 with projection shortcuts (type C, without
BatchNorm), both newly initialised (He): sum of squares of each layer's weights, before and after each cycle,
for ENorm-1 and ENorm-c.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from torch import nn

import graphnorm
from graphnorm.util.atomic import replacing
from tools.experiments.networks import fully_connected, resnet18_type_c

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "fc20": lambda: fully_connected(18, 784),
    "resnet18_c": resnet18_type_c,
}
SIZES = {"fc20": (1, 28, 28), "resnet18_c": (3, 32, 32)}


def energies(model: nn.Module) -> dict[str, float]:
    return {
        name: float(p.detach().double().square().sum()) for name, p in model.named_parameters() if p.dim() > 1
    }


def trajectory(name: str, c: float, cycles: int, progress: Progress, task: TaskID) -> dict[str, Any]:
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    enorm = graphnorm.ENorm(model, optimizer, torch.zeros(2, *SIZES[name]), c=c)
    layers, objective = {0: energies(model)}, [enorm.energy()]
    for cycle in range(1, cycles + 1):
        enorm.step()
        if cycle in (1, 10, cycles):
            layers[cycle] = energies(model)
        objective.append(enorm.energy())
        progress.advance(task)
    return {"network": name, "c": c, "objective": objective, "layers": layers}


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """One column per run: energy of each layer before and after; energy over cycles."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(found), figsize=(3.4 * len(found), 5.4), squeeze=False)
    for (upper, lower), run in zip(axes.T, found, strict=True):
        for cycle, energy in run["layers"].items():
            upper.plot(list(energy.values()), "o", ms=3, label=f"{cycle} cycles")
        upper.set(
            title=f"{run['network']}, c = {run['c']:g}", xlabel="layer", ylabel="sum of squares", yscale="log"
        )
        upper.legend(fontsize=7)
        lower.plot([v / run["objective"][0] for v in run["objective"]])
        lower.set(xlabel="cycle", ylabel="objective / initial")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--c", nargs="+", type=float, default=[1.0, 1.2])
    parser.add_argument("--out", type=Path, default=Path("experiments/enorm_energy.json"))
    options = parser.parse_args()
    found = []
    with Progress() as progress:
        task = progress.add_task("cycles", total=len(NETWORKS) * len(options.c) * options.cycles)
        for name in NETWORKS:
            found += [trajectory(name, c, options.cycles, progress, task) for c in options.c]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(options.out) as temporary:
        temporary.write_text(json.dumps(found))
    draw(found, options.out.with_suffix(".png"))
    table = Table("network", "c", "objective before", "1 cycle", "10 cycles", f"{options.cycles} cycles")
    for run in found:
        values = run["objective"]
        shown = [values[0], *(values[min(k, len(values) - 1)] / values[0] for k in (1, 10, options.cycles))]
        table.add_row(run["network"], f"{run['c']:g}", f"{shown[0]:.4g}", *(f"{v:.4f}" for v in shown[1:]))
    Console().print(table)


if __name__ == "__main__":
    main()
