"""``graphnorm draw``: the rescaling graph as a picture."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphnorm.cli.commands import (
    InputOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    TrainOption,
    WeightsOption,
    app,
)

if TYPE_CHECKING:
    from graphnorm.pictures import Picture


class Layers(StrEnum):
    """Which layers get a box of their own."""

    auto = "auto"
    all = "all"


@app.command()
def draw(
    model: ModelArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="A .svg, .png, .html or .dot file.")
    ],
    depth: Annotated[
        int | None,
        typer.Option(
            "--depth", metavar="N", help="Put layers together whose module paths share N components."
        ),
    ] = None,
    layers: Annotated[
        Layers,
        typer.Option("--layers", help="auto: fold equal blocks and modules until at most 60 boxes are left."),
    ] = Layers.auto,
    inputs: InputOption = None,
    weights: WeightsOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
    json_path: JsonOption = None,
    train: TrainOption = False,
    seed: SeedOption = 0,
) -> None:
    """Draw layers and channel groups: one colour for all tensors whose scales are tied, grey where pinned."""
    from graphnorm.cli import display
    from graphnorm.cli.files import write_json
    from graphnorm.cli.models.inputs import parse_inputs
    from graphnorm.cli.models.spec import open_spec, parse_model
    from graphnorm.cli.outputs import check_outputs, json_output, picture_output

    spec = parse_model(model)
    outputs = [picture_output(output, force), json_output(json_path)]
    with display.progress("loading") as tell:
        opened = open_spec(spec, parse_inputs(inputs or []), weights, seed, train)
        check_outputs(outputs, opened.files)
        tell("tracing")
        from graphnorm.api.trace import trace
        from graphnorm.pictures import Picture, save

        graph = trace(opened.model, **opened.arguments)
        tell("drawing")
        title = spec.path.name if spec.path is not None else model
        picture = Picture(graph, depth, layers.value, title)
        save(picture, output)
    if json_path is not None:
        write_json({**picture.to_dict(), "weights": opened.weights, "output": str(output)}, json_path)
    display.console(json_path).print(
        f"{_summary(picture)}; written to {output}", markup=False, soft_wrap=True
    )


def _summary(picture: Picture) -> str:
    flow = picture.flow
    return (
        f"{picture.graph.dimension:,} independent rescalings in "
        f"{len(picture.graph.groups):,} channel groups, {len(flow.boxes)} boxes ({flow.view})"
    )
