"""What a coverage run found out about one model, and the files that keep it."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

TOLERANCE = 1e-9  # relative difference of float64 outputs; rounding alone stays below 1e-10
FELT = 1e-6  # a change of the outputs that no tolerance hides
FAMILIES = ("timm", "torchvision", "transformers", "onnx")
PACKAGES = ("torch", "timm", "torchvision", "transformers", "onnx", "onnxruntime", "numpy", "scipy")


@dataclass
class Record:
    """One model.  Seconds are CPU time; entries are the numbers that a weight tensor holds.

    Attributes:
        stage: the step that was reached: build, export, trace, compare or done.
        error: why it went no further; empty if it did.
        traceback: the last lines of an exception's traceback.
        tensors, entries: weights that the network reads.
        moved_tensors, moved_entries: those that some rescaling changes.
        unknown: operators without a rule, with the number of nodes.
        probed, felt: weights that were rescaled alone, and those of them that changed the outputs.
        criterion: what the outputs were compared in.
        difference: of the outputs after a random rescaling, relative (float64), or the ratio of the
            rescaled model's rounding error to the original's own (float32).
        preserved: whether the outputs stayed the same.
    """

    family: str
    name: str
    stage: str = "build"
    error: str = ""
    traceback: list[str] = field(default_factory=list)
    export_seconds: float | None = None
    trace_seconds: float | None = None
    nodes: int = 0
    dimension: int = 0
    tensors: int = 0
    moved_tensors: int = 0
    entries: int = 0
    moved_entries: int = 0
    unknown: dict[str, int] = field(default_factory=dict)
    probed: int = 0
    felt: int = 0
    criterion: str = ""
    difference: float | None = None
    preserved: bool | None = None

    @property
    def traced(self) -> bool:
        return self.stage in ("compare", "done")

    @property
    def outcome(self) -> str:
        """``preserved``, or by what name it failed; a comparison that cannot fail counts as a failure."""
        if self.error.startswith("timed out during"):
            return "timed out"
        if self.error:
            return f"{self.stage} failed"
        if self.preserved is False:
            return "not preserved"
        if self.probed and not self.felt:
            return "outputs don't react"
        return "unknown operators" if self.unknown else "preserved"


def read(path: Path) -> list[Record]:
    """Records of a JSON-lines file, the last of each model; a line that was cut short is skipped."""
    found: dict[tuple[str, str], Record] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = Record(**json.loads(line))
        except json.JSONDecodeError:
            continue
        found[record.family, record.name] = record
    return sorted(found.values(), key=lambda record: (FAMILIES.index(record.family), record.name))


def append(path: Path, record: Record) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(record))


def write(path: Path, records: Iterable[Record]) -> None:
    """Replace the file's contents by whole lines."""
    path.write_text("".join(map(_line, records)), encoding="utf-8")


def _line(record: Record) -> str:
    return json.dumps(asdict(record)) + "\n"


def to_dict(records: Iterable[Record]) -> dict[str, Any]:
    """All records as plain values, with each one's outcome and the versions that they hold for."""
    return {"versions": versions(), "tolerance": TOLERANCE, "models": [_plain(record) for record in records]}


def _plain(record: Record) -> dict[str, Any]:
    """Without the traceback; JSON has no infinity, so such a difference is null."""
    row = asdict(record) | {"outcome": record.outcome}
    del row["traceback"]
    if record.difference is not None and not math.isfinite(record.difference):
        row["difference"] = None
    return row


def versions() -> dict[str, str]:
    installed = {name: dist for name in PACKAGES if (dist := _version(name))}
    return {"python": platform.python_version(), **installed}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
