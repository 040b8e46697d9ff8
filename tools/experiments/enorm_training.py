"""Figure 4 and tables 2 and 3 of Stock et al. 2019: test accuracy with and without ENorm.

    python -m tools.experiments.enorm_training --network fc --layers 13 --epochs 5 --train 12000 --batch 64
    python -m tools.experiments.enorm_training --network fc --layers 1 3 5 7 9 11 13 15 17 19 --epochs 60 \\
        --dataset cifar10 --data FOLDER --batch 256 --seeds 0 1 2 3 4          # figure 4
    python -m tools.experiments.enorm_training --network cifar-nv --batch 8 16 32 64 128 256 --epochs 128 \\
        --dataset cifar10 --data FOLDER --lr 0.05 --momentum 0 0.9             # tables 2 and 3

The learning rate falls linearly to 0.  Each run is added to ``--out`` when it ends; run the same command
again to go on.  The paper's own recipe: rate 0.1 (fc) or 0.05 (cifar-nv), weight decay 1e-3, 60 or 128
epochs.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from torch import Tensor, nn

import graphnorm
from tools.experiments.data import Images, load
from tools.experiments.networks import CifarNV, fully_connected
from tools.experiments.results import Results

METHODS = ("baseline", "bn", "gn", "path-sgd", "enorm-1", "enorm-1.2", "implicit")
PENALTY = 1e-3  # of implicit ENorm: takes the place of weight decay


def build(settings: dict[str, Any], images: Images) -> nn.Module:
    norm = {"bn": "batch", "gn": "group"}.get(settings["method"], "none")
    _, channels, height, width = images.train[0].shape
    if settings["network"] == "cifar-nv":
        model: nn.Module = CifarNV(channels, norm=norm)
    else:
        model = fully_connected(settings["layers"], channels * height * width, norm=norm)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and "init" not in settings:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


class Loop:
    """Optimizer, ENorm and penalty of one method."""

    def __init__(self, model: nn.Module, settings: dict[str, Any], example: Tensor) -> None:
        self.model, self.method, rate = model, settings["method"], settings["lr"]
        self.implicit: graphnorm.ImplicitENorm | None = None
        self.enorm: graphnorm.ENorm | None = None
        decay, momentum = settings["weight_decay"], settings["momentum"]
        self.optimizer: torch.optim.Optimizer
        if self.method == "path-sgd":
            self.optimizer = graphnorm.PathSGD(model, example, rate, momentum, every=settings["path_every"])
        elif self.method == "implicit":
            self.implicit = graphnorm.ImplicitENorm(model, example)
            groups = self.implicit.parameter_groups(scale_lr=rate, weight_decay=0.0)
            self.optimizer = torch.optim.SGD(groups, rate, momentum)
        else:
            self.optimizer = torch.optim.SGD(model.parameters(), rate, momentum, weight_decay=decay)
        if self.method.startswith("enorm"):
            self.enorm = graphnorm.ENorm(
                model, self.optimizer, example, c=float(self.method.partition("-")[2])
            )
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def step(self, x: Tensor, y: Tensor, left: float) -> float:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * left
        loss = nn.functional.cross_entropy(self.model(x), y)
        total = loss if self.implicit is None else loss + PENALTY / 2 * self.implicit.penalty()
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.enorm is not None:
            self.enorm.step()
        return float(loss.detach())


def run(
    settings: dict[str, Any], images: Images, device: str, progress: Progress, task: TaskID
) -> dict[str, Any]:
    torch.manual_seed(settings["seed"])
    model = build(settings, images).to(device).train()
    x, y = (part[: settings["train"]].to(device) for part in images.train)
    batch, epochs = settings["batch"], settings["epochs"]
    loop = Loop(model, settings, x[:2])
    steps, losses = epochs * (len(x) // batch), []
    progress.update(task, total=steps, completed=0)
    start = time.perf_counter()
    for epoch in range(epochs):
        order = torch.randperm(len(x), device=device)
        found = 0.0
        for index in range(len(x) // batch):
            chosen = order[index * batch : (index + 1) * batch]
            done = (epoch * (len(x) // batch) + index) / steps
            found += loop.step(x[chosen], y[chosen], 1 - done)
            progress.advance(task)
        losses.append(found / (len(x) // batch))
    seconds = time.perf_counter() - start
    model.eval()
    with torch.no_grad():
        guesses = torch.cat(
            [model(part.to(device)).argmax(1).cpu() for part in torch.split(images.test[0], 1000)]
        )
    accuracy = 100 * float((guesses == images.test[1]).float().mean())
    return {"accuracy": accuracy, "losses": losses, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="fc", choices=("fc", "cifar-nv"))
    parser.add_argument("--layers", nargs="+", type=int, default=[13], help="intermediate layers (fc)")
    parser.add_argument(
        "--methods", nargs="+", default=["baseline", "bn", "enorm-1", "enorm-1.2"], choices=METHODS
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--batch", nargs="+", type=int, default=[64])
    parser.add_argument("--momentum", nargs="+", type=float, default=[0.0])
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=1e-3)
    parser.add_argument(
        "--path-every", type=int, default=1, help="steps per computation of path coefficients"
    )
    parser.add_argument(
        "--init",
        default="he",
        choices=("he", "pytorch"),
        help="He's, or that of PyTorch's layers, whose signals shrink by sqrt(6) in each",
    )
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--train", type=int, default=60000, help="training images used")
    parser.add_argument("--dataset", default="fashion-mnist", choices=("fashion-mnist", "cifar10"))
    parser.add_argument("--data", type=Path, help="folder of the data set")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("experiments/enorm_training.json"))
    options = parser.parse_args()
    results, images = Results(options.out), load(options.dataset, options.data)
    grid = list(
        itertools.product(options.layers, options.batch, options.momentum, options.seeds, options.methods)
    )
    with Progress() as progress:
        whole, one = progress.add_task("runs", total=len(grid)), progress.add_task("steps")
        for layers, batch, momentum, seed, method in grid:
            settings = {
                "network": options.network, "layers": layers, "batch": batch, "momentum": momentum,
                "seed": seed, "method": method, "lr": options.lr,
                "weight_decay": options.weight_decay,
                "epochs": options.epochs, "train": min(options.train, len(images.train[0])),
                "dataset": options.dataset, "path_every": options.path_every,
            }  # fmt: skip
            if options.init != "he":
                settings["init"] = options.init
            if results.find(settings) is None:
                progress.update(one, description=f"{method} {layers} layers, batch {batch}, seed {seed}")
                results.add(settings, run(settings, images, options.device, progress, one))
            progress.advance(whole)
    table = Table("network", "layers", "batch", "lr", "momentum", "init", "method", "accuracy %", "runs")
    keys = ("network", "layers", "batch", "lr", "momentum", "init", "method")
    for key, (mean, deviation, count) in results.table(keys, "accuracy").items():
        table.add_row(*map(str, key), f"{mean:.2f} ± {deviation:.2f}", str(count))
    Console().print(table)


if __name__ == "__main__":
    main()
