"""`python -m tools.experiments.equinorm`: train, draw, cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from graphnorm.errors import InputError
from tools.experiments.equinorm import data as images
from tools.experiments.equinorm import results
from tools.experiments.equinorm.cost import measure
from tools.experiments.equinorm.figures import LABELS, draw
from tools.experiments.equinorm.networks import NETWORKS, NORMS
from tools.experiments.equinorm.recipes import RECIPES
from tools.experiments.equinorm.training import train

app = typer.Typer(add_completion=False, help="EquiNorm beside BatchNorm and GroupNorm.")
console = Console()

STUDIED = ["batch", "group", "equinorm", "equinorm-unit"]
TIMED = ["batch", "group", "equinorm", "equinorm-1pass", "equinorm-quarter"]
Norms = Annotated[list[str], typer.Option("--norm", help=f"One of {', '.join(NORMS)}; several times.")]
Out = Annotated[Path, typer.Option(help="Folder of the results.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _known(name: str, table: Any, what: str) -> None:
    if name not in table:
        raise typer.BadParameter(f"no {what} {name!r}: choose one of {', '.join(table)}")


@app.command("train")
def train_command(
    data: Annotated[Path, typer.Option(help="Folder of Fashion-MNIST or CIFAR-10 (binary version).")],
    out: Out,
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")] = "small",
    norm: Norms = STUDIED,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0 .. N-1.")] = 5,
    epochs: Annotated[int, typer.Option(min=0, help="Instead of the recipe's; 0: the recipe's.")] = 0,
    planes: Annotated[int, typer.Option(min=0, help="Channels of the first stage; 0: the recipe's.")] = 0,
    device: Device = "cpu",
) -> None:
    """Train one recipe with each normalisation; finished runs are kept, others go on where they stopped."""
    _known(recipe, RECIPES, "recipe")
    for name in norm:
        _known(name, NORMS, "normalisation")
    chosen = RECIPES[recipe]
    chosen = replace(chosen, epochs=epochs or chosen.epochs, planes=planes or chosen.planes)
    try:
        loaded = images.read(data)
    except (InputError, OSError) as error:
        console.print(f"[red]error:[/red] {error}")
        raise typer.Exit(2) from error
    out.mkdir(parents=True, exist_ok=True)
    steps = chosen.epochs * ((chosen.samples or len(loaded[0].images)) // chosen.batch)
    runs = [(seed, name) for seed in range(seeds) for name in norm]
    with _bar() as progress:
        bar = progress.add_task(recipe, total=len(runs) * steps)
        for number, (seed, name) in enumerate(runs):
            progress.update(bar, description=f"{name}, seed {seed}", completed=number * steps)
            file = out / f"run-{recipe}-{name}-{seed}.json"
            if results.read(file).get("complete"):
                continue
            train(chosen, name, seed, loaded, file, device, lambda: progress.advance(bar))
    _summarise(out)


@app.command("draw")
def draw_command(
    out: Out,
    figure: Annotated[
        Path | None, typer.Option(help="Picture file; by default curves.png in the folder.")
    ] = None,
    title: Annotated[str, typer.Option()] = "",
) -> None:
    """Summarise the finished runs of a folder and draw their curves."""
    summary = _summarise(out)
    draw(summary, title, figure or out / "curves.png")


def _summarise(out: Path) -> dict[str, Any]:
    runs = results.complete(out)
    if not runs:
        console.print(f"[red]error:[/red] {out}: no finished runs")
        raise typer.Exit(2)
    recipes = [run["recipe"] for run in runs]
    if any(recipe != recipes[0] for recipe in recipes):
        console.print(
            f"[red]error:[/red] {out} holds runs of different recipes; give each a folder of its own"
        )
        raise typer.Exit(2)
    summary = results.quartiles(runs)
    content = {"machine": results.machine(), "recipe": recipes[0], "norms": summary}
    results.saved(out / "summary.json", json.dumps(content, indent=1).encode())
    table = Table(
        "normalisation",
        "seeds",
        "loss, epoch 1",
        "loss, last",
        "test error, epoch 1",
        "test error, last",
        "s/epoch",
    )
    for norm, found in summary.items():
        cells = [found["loss"][0], found["loss"][-1], found["test_error"][0], found["test_error"][-1]]
        seconds = found["seconds"][-1][1]
        table.add_row(LABELS[norm], str(found["seeds"]), *map(_quartiles, cells), f"{seconds:.1f}")
    console.print(table)
    return summary


def _quartiles(values: list[float]) -> str:
    return f"{values[1]:.4f} ({values[0]:.4f} to {values[2]:.4f})"


@app.command("cost")
def cost_command(
    out: Annotated[Path, typer.Option(help="JSON file.")],
    network: Annotated[str, typer.Option(help=f"One of {', '.join(NETWORKS)}.")] = "wide_resnet20",
    planes: Annotated[int, typer.Option(min=2)] = 16,
    norm: Norms = TIMED,
    batch: Annotated[int, typer.Option(min=1)] = 128,
    size: Annotated[int, typer.Option(min=8)] = 32,
    repeats: Annotated[int, typer.Option(min=1)] = 20,
    device: Device = "cpu",
) -> None:
    """Time training steps."""
    _known(network, NETWORKS, "network")
    with _bar() as progress:
        bar = progress.add_task("steps", total=len(norm) * (repeats + 3))
        found = measure(
            network, planes, norm, (batch, 3, size, size), repeats, device, lambda: progress.advance(bar)
        )
    results.saved(out, json.dumps({"machine": results.machine(), **found}, indent=1).encode())
    table = Table("normalisation", "forward, ms", "backward, ms", "step against BatchNorm")
    times = found["milliseconds"]
    base = sum(part[1] for part in times.get("batch", next(iter(times.values()))).values())
    for name, parts in times.items():
        total = sum(part[1] for part in parts.values())
        cells = [f"{q[1]:.1f} ({q[0]:.1f} to {q[2]:.1f})" for q in (parts["forward"], parts["backward"])]
        table.add_row(LABELS[name], *cells, f"{total / base:.2f}")
    console.print(table)


if __name__ == "__main__":
    torch.backends.cudnn.benchmark = True
    app()
