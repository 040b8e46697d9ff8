"""``graphnorm check``: are two models the same function?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphnorm.cli.commands import (
    MODEL,
    DeviceOption,
    GivenOption,
    InputOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    WeightsOption,
    app,
)
from graphnorm.cli.group import NOT_EQUIVALENT
from graphnorm.errors import InputError

WeightsOfA = Annotated[
    Path | None, typer.Option("--weights-a", help="Weights (.safetensors) of A, a module by name.")
]
WeightsOfB = Annotated[
    Path | None, typer.Option("--weights-b", help="Weights (.safetensors) of B, a module by name.")
]


@app.command()
def check(
    a: Annotated[str, typer.Argument(metavar="A", help="The reference. " + MODEL)],
    b: Annotated[str, typer.Argument(metavar="B", help="The model to judge, of any of these kinds.")],
    inputs: InputOption = None,
    weights_a: WeightsOfA = None,
    weights_b: WeightsOfB = None,
    permutations: Annotated[
        bool,
        typer.Option("--permutations/--no-permutations", help="Look for permuted hidden channels too."),
    ] = True,
    require_proof: Annotated[
        bool, typer.Option("--require-proof", help="Exit 1 unless identical or proved.")
    ] = False,
    fixed_sizes: Annotated[
        bool,
        typer.Option(
            "--fixed-sizes", help="Let --require-proof be satisfied by a proof at the traced sizes."
        ),
    ] = False,
    counterexample: Annotated[
        Path | None,
        typer.Option("--counterexample", metavar="OUT.npz", help="Where to save an input that differs."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="OUT.html", help="Write the report as a page.")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="For runs and search where there is no proof.")
    ] = 20.0,
    initializers_as_weights: GivenOption = False,
    device: DeviceOption = "auto",
    json_path: JsonOption = None,
    seed: SeedOption = 0,
) -> None:
    """Judge whether two models are the same function: by proof where there is one, and by running them.

    Verdicts: identical (same graph, same bits), proved (a certificate for all inputs), proved at these
    sizes (a certificate, but sizes are open and the models may differ at others), agrees (on all inputs that
    were tried), not exercised (those inputs show nothing), differs. Exit code 1 if they differ.
    """
    from graphnorm.api.verdicts import Verdict
    from graphnorm.cli import display
    from graphnorm.cli.check_page import write_page
    from graphnorm.cli.check_table import check_table
    from graphnorm.cli.files import write_json
    from graphnorm.cli.models.inputs import parse_inputs
    from graphnorm.cli.models.spec import open_spec, parse_model, shared_inputs
    from graphnorm.cli.outputs import check_outputs, file_output, json_output

    specs = [parse_model(a), parse_model(b)]
    outputs = [
        json_output(json_path),
        file_output("--counterexample", counterexample, ".npz"),
        file_output("--html", html, ".html"),
    ]
    with display.progress("loading") as tell:
        given = parse_inputs(inputs or [])
        both = [
            open_spec(spec, given, w, seed) for spec, w in zip(specs, (weights_a, weights_b), strict=True)
        ]
        check_outputs(outputs, [file for opened in both for file in opened.files])
        from graphnorm.api.check import check as run

        report = run(
            both[0].model,
            both[1].model,
            **shared_inputs(*both),
            inputs_as_weights=initializers_as_weights,
            device=device,
            permutations=permutations,
            seconds=seconds,
            layers=html is not None,
            progress=tell,
        )
        if counterexample is not None and report.counterexample is not None:
            report.save_counterexample(counterexample)
    write_json({**report.to_dict(), "a": a, "b": b}, json_path)
    saved = str(counterexample) if counterexample is not None and report.counterexample is not None else ""
    if html is not None:
        write_page(report, a, b, html, saved)
    display.console(json_path).print(check_table(report, a, b, saved))
    certain = report.certain or (fixed_sizes and report.verdict is Verdict.SIZED)
    if report.verdict is Verdict.DIFFERS or (require_proof and not certain):
        raise typer.Exit(NOT_EQUIVALENT)


@app.command("verify-certificate")
def verify_certificate(
    a: Annotated[str, typer.Argument(metavar="A", help="The original. " + MODEL)],
    b: Annotated[str, typer.Argument(metavar="B", help="The re-parameterised model.")],
    certificate: Annotated[Path, typer.Argument(metavar="CERT.json", help="Of canonicalize --certificate.")],
    inputs: InputOption = None,
    weights_a: WeightsOfA = None,
    weights_b: WeightsOfB = None,
    initializers_as_weights: GivenOption = False,
    json_path: JsonOption = None,
    seed: SeedOption = 0,
) -> None:
    """Check a certificate without trusting its author: everything is derived again from A and B."""
    from dataclasses import asdict

    from graphnorm.certificates.file import vectors_path
    from graphnorm.cli import display
    from graphnorm.cli.files import write_json
    from graphnorm.cli.models.inputs import parse_inputs
    from graphnorm.cli.models.spec import open_spec, parse_model, shared_inputs
    from graphnorm.cli.outputs import check_outputs, json_output

    specs = [parse_model(a), parse_model(b)]
    outputs = [json_output(json_path)]
    with display.progress("loading") as tell:
        given = parse_inputs(inputs or [])
        both = [
            open_spec(spec, given, w, seed) for spec, w in zip(specs, (weights_a, weights_b), strict=True)
        ]
        read = [certificate, vectors_path(certificate)]
        check_outputs(outputs, [*read, *(file for opened in both for file in opened.files)])
        tell("verifying")
        from graphnorm.certificates.verify import verify_certificate as run

        found = run(
            both[0].model,
            both[1].model,
            certificate,
            **shared_inputs(*both),
            inputs_as_weights=initializers_as_weights,
        )
    write_json({**asdict(found), "a": a, "b": b, "file": str(certificate)}, json_path)
    out = display.console(json_path)
    if found.valid:
        out.print(
            f"[green]valid[/green]: every weight within {found.worst_ulp:.2g} half ulps of its coefficient"
        )
        if found.remark:
            out.print(found.remark, markup=False)
    else:
        out.print("[red]rejected[/red]: ", end="")
        out.print(found.failure, markup=False)
        raise typer.Exit(NOT_EQUIVALENT)


@app.command()
def fingerprint(
    model: ModelArgument,
    compare: Annotated[
        str | None, typer.Option("--compare", metavar="OTHER", help="Another model; exit 1 if it differs.")
    ] = None,
    inputs: InputOption = None,
    weights: WeightsOption = None,
    other_weights: Annotated[
        Path | None, typer.Option("--other-weights", help="Weights (.safetensors) of OTHER.")
    ] = None,
    json_path: JsonOption = None,
    seed: SeedOption = 0,
) -> None:
    """Print invariants that no rescaling and no permutation of hidden channels changes."""
    from graphnorm.cli import display
    from graphnorm.cli.check_table import fingerprint_table
    from graphnorm.cli.files import write_json
    from graphnorm.cli.models.inputs import parse_inputs
    from graphnorm.cli.models.spec import open_spec, parse_model, shared_inputs
    from graphnorm.cli.outputs import check_outputs, json_output
    from graphnorm.fingerprint.compare import compare as run
    from graphnorm.fingerprint.compute import fingerprint_of

    if other_weights is not None and compare is None:
        raise InputError("--other-weights is for --compare OTHER")
    names = [model] if compare is None else [model, compare]
    specs = [parse_model(name) for name in names]
    outputs = [json_output(json_path)]
    with display.progress("loading") as tell:
        given = parse_inputs(inputs or [])
        held = (weights, other_weights)
        opened = [open_spec(spec, given, w, seed) for spec, w in zip(specs, held, strict=False)]
        check_outputs(outputs, [file for item in opened for file in item.files])
        tell("computing invariants")
        different: tuple[str, ...] = ()
        if compare is None:
            found = [fingerprint_of(opened[0].model, **opened[0].arguments)]
        else:
            both = run(opened[0].model, opened[1].model, **shared_inputs(*opened))
            found, different = [both.first, both.second], both.differences
    printed = [{"model": name, **item.to_dict()} for name, item in zip(names, found, strict=True)]
    write_json({"fingerprints": printed, "differences": list(different)}, json_path)
    out = display.console(json_path)
    for name, item in zip(names, found, strict=True):
        out.print(fingerprint_table(item, name))
    for line in different:
        out.print(f"[red]differs[/red]: {line}")
    if compare is not None and not different:
        out.print("[green]same[/green]: no number differs")
    if different:
        raise typer.Exit(NOT_EQUIVALENT)
