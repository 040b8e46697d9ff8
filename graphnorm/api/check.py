"""The equivalence checker: are two models the same function?

1. structure: both graphs are brought to one form and walked together;
2. proof: some rescaling, and some permutation of hidden channels, turns A's weights into B's: recover both
   from the weights, then check the certificate on all of them;
3. measurement: run both on a battery of inputs, then search for one on which they differ;
4. layers: the first tensor at which they differ, by name.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphnorm import ir
from graphnorm.api.check_report import CheckReport, Search
from graphnorm.api.interfaces import Interfaces, open_pair
from graphnorm.api.resizing import Resized, fitted, limit, measured, show, traced
from graphnorm.api.sources import Source, TorchSource
from graphnorm.api.verdicts import Verdict, Verification
from graphnorm.errors import InputError, RunError
from graphnorm.proof.pairing import WRITTEN, counterparts
from graphnorm.proof.prove import Attempt, attempt
from graphnorm.util.callers_state import kept_filters
from graphnorm.util.limits import enough_memory
from graphnorm.verification.inputs.battery import Drawing, kinds
from graphnorm.verification.inputs.probes import Probes
from graphnorm.verification.inputs.ranges import input_ranges
from graphnorm.verification.inputs.reach import Suspect, differing_rows, numbers, of_unpicked, unpicked
from graphnorm.verification.layers import LayerDistance, layer_distances
from graphnorm.verification.measure import Judge, Measurement, measure
from graphnorm.verification.movement import of_unmoved, unmoved
from graphnorm.verification.runner import Runner
from graphnorm.verification.search import GRADIENT, RANDOM, find_difference, smallest
from graphnorm.verification.unreached import of_unreached, unreached

# Without a proof, search for an input on which the models differ.
_SUSPECT_DRAWS = (5, 40)  # of each kind of input: at least, at most
_SUSPECT_ENTRIES = 5_000_000  # of all inputs together, beyond the least
_SHRINK_SECONDS = 5.0  # at most, and a quarter of `seconds`: a small counterexample is a convenience
_LAYER_INPUTS = 4  # factors are fitted per channel: several inputs tell a factor from a coincidence
Tell = Callable[[str], None]


@kept_filters()
@enough_memory()
def check(
    a: Any,
    b: Any,
    example_inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    inputs_as_weights: bool = False,
    device: str = "auto",
    permutations: bool = True,
    seconds: float = 20.0,
    layers: bool = False,
    progress: Tell | None = None,
) -> CheckReport:
    """Compare two models (torch modules, exported programs, ONNX models or files, also mixed).

    Args:
        a: the reference.
        b: the model to judge.
        example_inputs: inputs to trace and run torch modules with; used for both models.
        kwargs: keyword inputs of torch modules.
        input_shapes: sizes of ONNX symbolic dimensions, by input name.
        inputs_as_weights: compare ONNX models with their initializers as weights, even those that are inputs.
        device: where to run.
        permutations: look for a permutation of hidden channels, too.
        seconds: for runs and search without a proof, beyond the first inputs.
        layers: compare hidden values even where the outputs agree and no channel is permuted.
        progress: called with the name of each stage.

    Raises:
        InputError: a model cannot be taken, or the two take different inputs.

    Returns:
        The verdict with its evidence: certificate, measurement, and a counterexample if there is one.

    >>> import copy, torch, graphnorm
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> other = copy.deepcopy(model)
    >>> with torch.no_grad():
    ...     _ = other[0].weight.mul_(2.0), other[0].bias.mul_(2.0), other[2].weight.mul_(0.5)
    >>> str(graphnorm.check(model, other, torch.randn(3, 4)).verdict)
    'proved'
    """
    tell = progress or (lambda stage: None)
    clock = [time.perf_counter()]
    tell("tracing")
    pair = fitted(open_pair(a, b, example_inputs, kwargs, input_shapes, inputs_as_weights))
    first, second = pair.first, pair.second
    check_signatures(first.network, second.network)
    clock.append(time.perf_counter())
    found = attempt(first.network, second.network, permutations, tell)
    clock.append(time.perf_counter())
    tell("measuring")
    original, new = first.runner(first.model, device), second.runner(second.model, device)
    inputs, suspects = _inputs(first, second, original, thorough=not found.settled)
    if not inputs[:1]:
        remarks = (*inputs.remarks, "no input was found that A takes: give one with example inputs (--input)")
        sized = found.settled and found.structure.sized
        unknown = limit(pair, Resized(), permutations) if sized else ""
        return _report(pair, found, None, None, None, {}, remarks, unknown)
    judge = Judge(original, new)
    measurement = measure(judge.original, judge.new, inputs, seconds / 2, judge)
    parted = None if measurement.parted is None else list(inputs[measurement.parted][1])
    search, resized = None, Resized()
    if parted is None and not found.identical:
        resized = measured(pair, judge)
        if resized.failure:
            measurement, parted = _worse(measurement, resized.failure), resized.parted
    if parted is None and not found.settled:
        tell("searching for a difference")
        measurement, parted, search = _searched(first, second, judge, inputs, measurement, seconds / 2)
    clock.append(time.perf_counter())
    limits = ""
    if parted is None and found.settled and found.structure.sized:
        tell("proving at other sizes")
        limits = limit(pair, resized, permutations)
    compared, unknown = list[LayerDistance](), ""
    if parted is not None and not resized.refused:
        tell("shrinking the counterexample")
        parted = smallest(judge, parted, min(_SHRINK_SECONDS, seconds / 4), inputs.takes)
    moved = found.proof is not None and bool(found.proof.permutation)  # channels stand at other places
    if resized.refused:
        unknown = "B does not run there"
    elif parted is not None or (layers and not moved):
        tell("comparing layers")
        several = [arrays for _, arrays in inputs[:_LAYER_INPUTS]] if not resized.failure else []
        compared, unknown = _layers(first, second, found, several if parted is None else [parted, *several])
    clock.append(time.perf_counter())
    stages = ("trace", "prove", "verify", "locate")
    laps = dict(zip(stages, (end - start for start, end in itertools.pairwise(clock)), strict=True))
    report = _report(pair, found, measurement, parted, search, laps, inputs.remarks, limits)
    if report.verdict is Verdict.AGREES and (
        missed := _missed(first, found, original, inputs, suspects, device, seconds / 4)
    ):
        verification = replace(report.verification, verdict=Verdict.UNEXERCISED)
        report = replace(report, verification=verification, remarks=(*report.remarks, *missed))
    at = (traced(first.network), *resized.shapes)
    sizes = tuple(dict(zip(first.network.inputs, shapes, strict=True)) for shapes in at)
    return replace(report, layers=tuple(compared), layers_unknown=unknown, sizes=sizes)


def _missed(
    first: Source,
    found: Attempt,
    original: Runner,
    inputs: Probes,
    suspects: Sequence[Suspect],
    device: str,
    seconds: float,
) -> list[str]:
    """Sentences about weights that differ and that no input reached."""
    told: list[str] = []
    tried = [arrays for _, arrays in inputs.tried]
    rows = unpicked(suspects, inputs.drawing.ranges, tried)
    if rows:
        told.append(of_unpicked(rows))
    if found.nearest is not None and found.nearest.form == WRITTEN:
        names = unreached(
            original,
            lambda weights: first.runner(first.emit(weights), device),
            first.network.weights,
            found.nearest.weights,
            tried,
            seconds,
        )
        if names:
            told.append(of_unreached(names))
    return told


def check_signatures(a: ir.Graph, b: ir.Graph) -> None:
    """Refuse models that take different inputs.

    Raises:
        InputError: in number, shape or type.
    """
    shapes = [[(g.values[n].shape, g.values[n].dtype) for n in g.inputs] for g in (a, b)]
    if len(shapes[0]) != len(shapes[1]):
        taken = [f"{len(g.inputs)} inputs ({', '.join(g.inputs)})" for g in (a, b)]
        raise InputError(f"A takes {taken[0]}, B takes {taken[1]}: they cannot be the same function")
    for name, one, two in zip(a.inputs, *shapes, strict=True):
        if one != two:
            raise InputError(f"input {name!r}: A takes {one[1]}{one[0]}, B takes {two[1]}{two[0]}")


def _report(
    pair: Interfaces,
    found: Attempt,
    measurement: Measurement | None,
    parted: list[ir.Array] | None,
    search: Search | None,
    seconds: Mapping[str, float],
    remarks: tuple[str, ...],
    limits: str,
) -> CheckReport:
    first, second = pair.first, pair.second
    still = () if measurement is None else unmoved(first.network, measurement.still)
    if parted is not None:
        verdict = Verdict.DIFFERS
    elif found.identical and not pair.remarks:
        verdict = Verdict.IDENTICAL
    elif found.settled:
        verdict = Verdict.SIZED if limits else Verdict.PROVED
    else:
        verdict = Verdict.UNEXERCISED if measurement is None or still else Verdict.AGREES
    certificate = None if found.proof is None else found.proof.certificate
    names = first.network.inputs if isinstance(second, TorchSource) else second.network.inputs
    return CheckReport(
        Verification(verdict, certificate, measurement),
        found.note,
        seconds,
        structure=replace(found.structure, sized=bool(limits)) if found.settled else found.structure,
        permuted=0 if found.proof is None else len(found.proof.permutation),
        counterexample=None if parted is None else dict(zip(names, parted, strict=True)),
        search=search,
        remarks=(
            *pair.remarks,
            *([_of_limits(first, limits)] if limits else []),
            *(
                f"{name}: {remark}"
                for name, source in (("A", first), ("B", second))
                for remark in source.network.remarks
            ),
            *(f"proof: {sentence}" for sentence in found.defects),
            *(measurement.remarks if measurement else ()),
            *remarks,
            *(
                [of_unmoved(first.network, still, measurement.inputs)]
                if measurement and still and parted is None
                else []
            ),
        ),
    )


def _of_limits(first: Source, why: str) -> str:
    return (
        f"the proof holds at the sizes that were traced ({show(first.network, traced(first.network))}): {why}"
    )


def _worse(measurement: Measurement, failure: str) -> Measurement:
    return replace(measurement, agrees=False, bit_identical=False, failure=failure)


def _inputs(first: Source, second: Source, original: Runner, thorough: bool) -> tuple[Probes, list[Suspect]]:
    """Inputs to try, and rows of A's tables that differ from B's: they are tried before others."""
    drawing = Drawing(
        first.network, first.example if first.example is not None else second.example, wide=True
    )
    if not thorough:
        return Probes(drawing, original, kinds(1, wide=True)), []
    suspects = differing_rows(first.network, second.network, drawing.ranges, input_ranges(second.network))
    for suspect in suspects:
        for index, found in numbers(suspect, drawing.ranges):
            drawing.deal_first(index, found)
    least, most = _SUSPECT_DRAWS
    shapes = [first.network.values[name].shape or () for name in first.network.inputs]
    entries = max(1, len(kinds(1, wide=True)) * sum(math.prod(shape) for shape in shapes))
    draws = min(most, max(least, _SUSPECT_ENTRIES // entries))
    return Probes(drawing, original, kinds(draws, wide=True), suspects), suspects


def _searched(
    first: Source,
    second: Source,
    judge: Judge,
    inputs: Probes,
    measurement: Measurement,
    seconds: float,
) -> tuple[Measurement, list[ir.Array] | None, Search]:
    """The measurement, and an input on which the models differ, if the search finds one."""
    climb, method = None, RANDOM
    if isinstance(first, TorchSource) and isinstance(second, TorchSource):
        from graphnorm.verification.torch.runner import TorchClimb

        climb, method = TorchClimb(judge.original, judge.new), GRADIENT  # type: ignore[arg-type]
    start = time.perf_counter()
    parted, tried = find_difference(judge, inputs, seconds, climb)
    search = Search(method, tried, time.perf_counter() - start)
    if parted is None:
        return measurement, None, search
    found = judge(parted)
    failure = found.failure.replace(":", f" on an input found by {method}:", 1)
    worse = replace(measurement, rmse_ratio=found.ratio, rmse=found.rmse, noise=found.noise)
    return replace(worse, agrees=False, bit_identical=False, failure=failure), parted, search


def _layers(
    first: Source, second: Source, found: Attempt, inputs: Sequence[Sequence[ir.Array]]
) -> tuple[list[LayerDistance], str]:
    """How far each layer's results are from their counterparts; or why that is unknown."""
    values = found.nearest.values if found.nearest is not None else found.structure.values
    values = {**values, **counterparts(first.network, second.network)}
    if not values:
        return [], "the graphs have no hidden values that correspond"
    try:
        runs = [
            (first.hidden_values(first.model, arrays), second.hidden_values(second.model, arrays))
            for arrays in inputs
        ]
    except (InputError, RunError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return [], f"hidden values cannot be recorded: {reason}"
    return layer_distances(first.network, values, runs), ""
