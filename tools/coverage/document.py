"""The coverage report as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from textwrap import shorten

from tools.coverage.records import FAMILIES, FELT, TOLERANCE, Record, versions

REASON = 220  # characters of an error message that the tables show
REFUSED = "export failed"


def markdown(records: Sequence[Record]) -> str:
    """The whole of ``docs/coverage.md``."""
    refused = [record for record in records if record.outcome == REFUSED]
    failed = [record for record in records if record.outcome not in ("preserved", REFUSED)]
    sections = [
        INTRODUCTION.format(
            versions="Versions: " + ", ".join(f"{name} {number}" for name, number in versions().items()),
            tolerance=TOLERANCE,
            felt=FELT,
        ),
        "## Families\n\n" + _table(FAMILY_COLUMNS, _family_rows(records)),
        "## Failures\n\n" + _explained(failed),
        "## Refused by torch.export\n\n" + _explained(refused),
        "## Models\n\n" + MODEL_NOTES + "\n\n" + _table(MODEL_COLUMNS, map(_model_row, records)),
    ]
    return "\n\n".join(sections) + "\n"


INTRODUCTION = """# Coverage

Which architectures graphnorm takes, how much of each a rescaling moves, and whether a random rescaling
keeps the function. Written by

```sh
python -m tools.coverage --onnx-folder FOLDER   # a process for each model; results in build/coverage.jsonl
python -m tools.coverage --write-docs           # this file and coverage.json, from those results
```

`python -m tools.coverage --help` says how to run some of the models, how to resume a run, and its limits on
time and memory. {versions}.

Each torch model has random weights, changed so that a wrong coefficient would show: parameters and float
buffers whose entries are all alike (zero biases, unit gains, tiny LayerScales, untrained BatchNorm
statistics) are drawn anew, and small matrices, kernels and gains are scaled up. The model is exported and
traced, and a random element of its rescaling group is applied to its weights in float64. Its outputs on a
random input, computed in float64 throughout, must stay the same up to a relative difference of
{tolerance:.0e}. To know that this comparison can fail, three of the weights are rescaled alone: those that
change the outputs by more than {felt:.0e} are counted as felt. A model where none is felt counts as a
failure.

ONNX files keep their trained weights, which are rescaled by powers of two, so that nothing is rounded. They
run in float64 through ONNX's reference implementation; where that doesn't cover a file, it runs in float32
and its rounding error is measured against the original's own, as `graphnorm check` does."""

FAMILY_COLUMNS = (
    "family", "models", "refused by torch.export", "traced", "preserved", "failed", "nodes", "dimension",
    "tensors moved", "entries moved", "weights felt",
)  # fmt: skip
MODEL_COLUMNS = (
    "model", "nodes", "export s", "trace s", "dimension", "tensors moved", "entries moved", "difference",
    "weights felt", "outcome",
)  # fmt: skip
MODEL_NOTES = """Columns: nodes of the intermediate representation; seconds of CPU time; independent
rescalings; weight tensors, and numbers in them, that some rescaling changes; relative difference of the
outputs after a random rescaling; weights that changed the outputs when rescaled alone, of those tried."""


def _family_rows(records: Sequence[Record]) -> Iterable[Sequence[str]]:
    for family in (*FAMILIES, "all"):
        members = [record for record in records if family in (record.family, "all")]
        traced = [record for record in members if record.traced]
        if not members:
            continue
        outcomes = Counter(record.outcome for record in members)
        refused, preserved = outcomes[REFUSED], outcomes["preserved"]
        yield (
            family, str(len(members)), str(refused), str(len(traced)), str(preserved),
            str(len(members) - refused - preserved),
            *_medians(traced),
            f"{sum(record.felt for record in traced)} of {sum(record.probed for record in traced)}",
        )  # fmt: skip


def _medians(traced: Sequence[Record]) -> Sequence[str]:
    """Median nodes, dimension, share of tensors and share of entries."""
    if not traced:
        return ("",) * 4
    return (
        f"{median(record.nodes for record in traced):.0f}",
        f"{median(record.dimension for record in traced):.0f}",
        f"{median(_share(record.moved_tensors, record.tensors) for record in traced):.0%}",
        f"{median(_share(record.moved_entries, record.entries) for record in traced):.0%}",
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _model_row(record: Record) -> Sequence[str]:
    name = f"{record.family}:{record.name}"
    if not record.traced:
        return (name, *("",) * (len(MODEL_COLUMNS) - 2), record.outcome)
    return (
        name, str(record.nodes), _seconds(record.export_seconds), _seconds(record.trace_seconds),
        str(record.dimension), f"{record.moved_tensors} of {record.tensors}",
        f"{_share(record.moved_entries, record.entries):.0%}", _difference(record),
        f"{record.felt} of {record.probed}" if record.probed else "", record.outcome,
    )  # fmt: skip


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f}"


def _difference(record: Record) -> str:
    if record.difference is None:
        return ""
    if record.criterion == "float64":
        return f"{record.difference:.0e}" if record.difference else "0"
    return f"float32: {record.difference:.2f} times the original's error"


def _explained(records: Sequence[Record]) -> str:
    rows = [(f"{record.family}:{record.name}", record.outcome, _reason(record)) for record in records]
    return _table(("model", "outcome", "reason"), rows) if rows else "None."


def _reason(record: Record) -> str:
    unknown = ", ".join(f"{operator} ({count})" for operator, count in record.unknown.items())
    parts = [
        shorten(record.error, REASON, placeholder=" ..."),
        f"operators without a rule: {unknown}" if unknown else "",
    ]
    if record.probed and not record.felt:
        parts.append(f"none of {record.probed} weights changes the outputs when rescaled alone")
    if record.preserved is False:
        parts.append(f"the outputs changed: {_difference(record)}")
    return "; ".join(part for part in parts if part).replace("|", "\\|")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
