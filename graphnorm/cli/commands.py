"""The commands.  Each imports what it needs when it runs, so that ``--help`` is fast."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from graphnorm.api.options import Mode, Options
from graphnorm.cli.group import ReportingGroup
from graphnorm.errors import InputError
from graphnorm.util.limits import limits

app = typer.Typer(
    name="graphnorm",
    cls=ReportingGroup,
    help="Find every positive rescaling of a neural network's graph, solve for the canonical one, "
    "write the rescaled model, and prove that it is the same function.",
    epilog="Exit codes: 0 done or equivalent, 1 not equivalent, 2 bad usage or input, "
    "3 a defect of graphnorm.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        from graphnorm import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    no_limits: Annotated[
        bool,
        typer.Option(
            "--no-limits",
            help="Take ONNX files however much memory and time they ask for. Trusted files only.",
        ),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of all commands."""
    if no_limits:
        context.with_resource(limits(*[math.inf] * 3))


DEFAULT = Options()

MODEL = "An .onnx or .pt2 file, timm:NAME, torchvision:NAME, or module.path:callable."
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="[NAME:]SIZES[:TYPE]",
        help="Input to trace and verify with: sizes such as 1x3x224x224 (repeat for several inputs; a name "
        "for ONNX models with several inputs and for keyword inputs), or one .npy or .npz file.",
    ),
]
JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="PATH", help="Write the report as JSON; - is standard output.")
]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights", help="Weights (.safetensors) of a module by name.")
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="Where to measure: auto, cpu, cuda, or a provider of onnxruntime.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of random weights and inputs.")]
GivenOption = Annotated[
    bool,
    typer.Option(
        "--initializers-as-weights",
        help="Treat an ONNX model's initializers as weights, not as inputs, even if they are both.",
    ),
]
TrainOption = Annotated[bool, typer.Option("--train", help="Trace a module by name in training mode.")]


@app.command()
def canonicalize(
    model: ModelArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="OUT", help=".onnx for ONNX models, else .pt2 or .safetensors."
        ),
    ],
    p: Annotated[
        float, typer.Option("--p", help="Exponent of the norm, > 0; inf: largest weights.")
    ] = DEFAULT.p,
    c: Annotated[float, typer.Option("--c", help="Asymmetry of ENorm-c, > 0; 1 is symmetric.")] = DEFAULT.c,
    biases: Annotated[bool, typer.Option("--biases", help="Count biases in the norm, too.")] = DEFAULT.biases,
    mode: Annotated[
        Mode,
        typer.Option("--mode", help="exact: coefficients are powers of two, outputs stay bit-identical."),
    ] = DEFAULT.mode,
    tol: Annotated[
        float, typer.Option("--tol", help="Stop when max |log(in / out)| is at most this.")
    ] = DEFAULT.tol,
    gap: Annotated[
        float | None,
        typer.Option(
            "--gap", help="Go on until the norm is proved to be within this fraction of its minimum."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="Solver: auto, coarse, newton, cyclic or paper_blocks.")
    ] = DEFAULT.method,
    memory: Annotated[
        float | None,
        typer.Option(
            "--memory", metavar="MB", help="Memory for the solver's masses; the rest is read again."
        ),
    ] = None,
    inputs: InputOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
    rewrite_clips: Annotated[
        bool,
        typer.Option(
            "--rewrite-clips",
            help="First make weights of the bounds of ReLU6, Hardtanh and Clip, one per channel (exact).",
        ),
    ] = False,
    initializers_as_weights: GivenOption = False,
    permute: Annotated[
        bool, typer.Option("--permute", help="Put hidden channels in a canonical order, too.")
    ] = False,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            metavar="CERT.json",
            help="Write what verify-certificate needs (and CERT.safetensors beside it).",
        ),
    ] = None,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Write without proof and runs.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
    json_path: JsonOption = None,
    train: TrainOption = False,
    seed: SeedOption = 0,
) -> None:
    """Rescale a model to the unique minimum of its weights' norm, keeping its function."""
    from graphnorm import __version__
    from graphnorm.cli import display
    from graphnorm.cli.files import write_json
    from graphnorm.cli.models.inputs import parse_inputs
    from graphnorm.cli.models.spec import open_spec, parse_model
    from graphnorm.cli.outputs import (
        certificate_output,
        check_carries_graph,
        check_outputs,
        json_output,
        model_output,
    )

    spec = parse_model(model)
    outputs = [
        model_output(output, spec.kind, force),
        certificate_output(certificate, force),
        json_output(json_path),
    ]
    if rewrite_clips:
        check_carries_graph(output)
    with display.progress("loading") as tell:
        opened = open_spec(spec, parse_inputs(inputs or []), weights, seed, train)
        check_outputs(outputs, opened.files)
        from graphnorm.api.canonicalize import canonicalize as run

        result = run(
            opened.model,
            **opened.arguments,
            p=p,
            c=c,
            biases=biases,
            mode=mode,
            tol=tol,
            gap=gap,
            method=method,
            memory=_bytes(memory),
            inputs_as_weights=initializers_as_weights,
            rewrite_clips=rewrite_clips,
            permute=permute,
            verify=not no_verify,
            device=device,
            progress=tell,
        )
        tell("writing")
        result.source.save(result.model, output, force)
        if certificate is not None:
            from graphnorm.certificates.verify import save_certificate

            save_certificate(result, certificate, output)
    write_json(
        {
            **result.report.to_dict(),
            "file": model,
            "version": __version__,
            "weights": opened.weights,
            "output": str(output),
        },
        json_path,
    )
    out = display.console(json_path)
    out.print(display.report_table(result.report, model, str(output), opened.weights))
    if result.report.clips is not None:
        out.print(display.clips_table(result.report.clips))


def _bytes(megabytes: float | None) -> int | None:
    if megabytes is None:
        return None
    if not 0 <= megabytes < math.inf:
        raise InputError(f"--memory {megabytes}: must be a number of megabytes, 0 or more")
    return int(megabytes * 1e6)


@app.command()
def inspect(
    model: ModelArgument,
    why: Annotated[
        str | None,
        typer.Option("--why", metavar="LAYER", help="Explain why a layer can or can't be rescaled."),
    ] = None,
    inputs: InputOption = None,
    weights: WeightsOption = None,
    json_path: JsonOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Show every layer on a line of its own.")] = False,
    initializers_as_weights: GivenOption = False,
    train: TrainOption = False,
    seed: SeedOption = 0,
) -> None:
    """Show what of a model may be rescaled, and what pins the rest."""
    from graphnorm.cli import display
    from graphnorm.cli.explanation import explanation_lines
    from graphnorm.cli.files import write_json
    from graphnorm.cli.inspection import layer_table
    from graphnorm.cli.models.inputs import parse_inputs
    from graphnorm.cli.models.spec import open_spec, parse_model
    from graphnorm.cli.outputs import check_outputs, json_output

    spec = parse_model(model)
    outputs = [json_output(json_path)]
    with display.progress("loading") as tell:
        opened = open_spec(spec, parse_inputs(inputs or []), weights, seed, train)
        check_outputs(outputs, opened.files)
        tell("tracing")
        from graphnorm.api.trace import trace
        from graphnorm.explain import Describer, explain, summarise

        graph = trace(opened.model, **opened.arguments, inputs_as_weights=initializers_as_weights)
        tell("explaining")
        describer = Describer(graph)
        summary = summarise(graph, describer)
        explained = explain(graph, why, describer) if why is not None else []
    found = {**summary.to_dict(), "weights": opened.weights}
    if why is not None:
        found["why"] = [item.to_dict() for item in explained]
    write_json(found, json_path)
    out = display.console(json_path)
    if why is None:
        out.print(display.graph_table(summary, model, opened.weights))
        out.print(layer_table(summary.layers, everything, out.width))
    for item in explained:
        for line in explanation_lines(item):
            out.print(line, soft_wrap=True)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where to write.")] = Path(
        "graphnorm-demo"
    ),
) -> None:
    """Unbalance a ResNet-18 and a small ONNX network, canonicalise both, and draw the result."""
    from graphnorm.cli.demo import run_demo

    run_demo(out)
