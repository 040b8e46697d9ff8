"""What a canonicalisation or an equivalence check found, for people and for machines."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphnorm import ir
from graphnorm.proof.prove import Structure
from graphnorm.rescaling.graph import Cause, RescalingGraph
from graphnorm.util.atomic import replacing
from graphnorm.verification.certificate import Certificate
from graphnorm.verification.layers import LayerDistance
from graphnorm.verification.measure import Measurement

SIZED = "proved at these sizes"
UNEXERCISED = "not exercised"
EQUIVALENT = ("identical", "proved", SIZED, "agrees")
CERTAIN = ("identical", "proved")  # at all sizes
_CAUSES = 6  # operators that are named as causes


@dataclass(frozen=True)
class Verification:
    """Verdict and evidence.

    Attributes:
        verdict: ``identical``, ``proved``, ``proved at these sizes``, ``agrees``, ``not exercised`` (no input
            that was tried shows anything), ``differs``, or ``not verified``.
        certificate: the proof, if one was tried.
        measurement: the runs, if the models were run.
        remarks: what was done to the inputs that they were run on, a sentence each.
    """

    verdict: str
    certificate: Certificate | None = None
    measurement: Measurement | None = None
    remarks: tuple[str, ...] = ()

    @property
    def failure(self) -> str:
        """Where the models part; empty if they don't."""
        parts = [part.failure for part in (self.certificate, self.measurement) if part is not None]
        return "; ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        measured = None if self.measurement is None else asdict(self.measurement)
        return {
            "verdict": self.verdict,
            "rmse_ratio": None if self.measurement is None else self.measurement.rmse_ratio,
            "failure": self.failure,
            "certificate": None if self.certificate is None else asdict(self.certificate),
            "measurement": measured,
        }


@dataclass(frozen=True)
class Report:
    """Everything `canonicalize` did.

    Attributes:
        dimension: number of independent rescalings.
        objective: ``before`` and ``after``: sum |w|^p over multiplicative weights that can move.
        solver: ``method``, ``cycles``, ``imbalance`` (max |log(in / out)|), ``gap`` (certified bound of
            (objective - minimum) / objective), ``converged``; ``optimum``, the objective without rounding to
            powers of two, and ``exact_cost``, what that adds, as a fraction of the optimum (exact mode).
        pins: causes that fix scales.
        degenerate: channel groups with channels that have no minimiser, left at 1.
        unknown: operators without a rule -> the nodes pinned by them.
        energy: layer -> (before, after), sum |w|^p of each multiplicative weight.
        verification: verdict and evidence.
        permuted: number of channel factors that were put in order.
        seconds: time of each stage.
        clips: with ``rewrite_clips``: names of the clips ``rewritten``, and of those ``left`` with reasons.
        remarks: what was done otherwise than asked or expected, a sentence each.
        extremes: the largest ``coefficient`` of a channel, ``weight`` and ``bias``, before and after; of
            ``activation`` too where models were run and a coefficient is 100 or more.
    """

    model: str
    dimension: int
    objective: Mapping[str, float]
    solver: Mapping[str, Any]
    options: Mapping[str, Any]
    pins: tuple[Cause, ...]
    degenerate: Mapping[str, int]
    unknown: Mapping[str, list[str]]
    energy: Mapping[str, tuple[float, float]]
    verification: Verification
    permuted: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    clips: Mapping[str, tuple[str, ...]] | None = None
    remarks: tuple[str, ...] = ()
    extremes: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __repr__(self) -> str:
        before, after = self.objective["before"], self.objective["after"]
        verdict, change = self.verification.verdict, f"{before:.6g} -> {after:.6g}"
        return (
            f"Report(model={self.model!r}, dimension={self.dimension}, objective={change}, "
            f"verdict={verdict!r})"
        )

    @property
    def unchanged(self) -> str:
        """Why the objective is what it was; empty if it isn't."""
        if not self.dimension:
            ops = Counter(op for op, _ in {(pin.op, pin.node) for pin in self.pins}).most_common(_CAUSES)
            causes = ", ".join(f"{op} ×{n}" for op, n in ops)
            return f"no channel can be rescaled: pinned by {causes or 'the inputs and outputs of the model'}"
        if self.objective["before"] != self.objective["after"]:
            return ""
        if self.degenerate:
            return "what can be rescaled has no minimum"
        return "at the minimum already" if self.objective["before"] else "only biases can be rescaled"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form (keys as documented in the README)."""
        return {
            "model": self.model,
            "dimension": self.dimension,
            "objective": dict(self.objective),
            "unchanged": self.unchanged,
            "solver": dict(self.solver),
            "options": dict(self.options),
            "pins": [asdict(pin) for pin in self.pins],
            "degenerate": [{"group": name, "channels": n} for name, n in self.degenerate.items()],
            "unknown_operators": {op: list(where) for op, where in self.unknown.items()},
            "energy": {name: {"before": b, "after": a} for name, (b, a) in self.energy.items()},
            "verification": self.verification.to_dict(),
            "permuted": self.permuted,
            "seconds": dict(self.seconds),
            "clips": None if self.clips is None else {key: list(names) for key, names in self.clips.items()},
            "extremes": {name: {"before": b, "after": a} for name, (b, a) in self.extremes.items()},
            "remarks": list(self.remarks),
        }


@dataclass(frozen=True, slots=True)
class Search:
    """A search for an input on which two models part: its method, how many inputs it tried, how long."""

    method: str
    inputs: int
    seconds: float


@dataclass(frozen=True)
class CheckReport:
    """Outcome of an equivalence check of two models.

    Attributes:
        verification: verdict, certificate, measurement.
        note: why there is no proof; empty if there is one.
        seconds: time of each stage.
        structure: how far the graphs agree.
        permuted: number of channel factors that the proof permutes.
        counterexample: an input on which the models part, by input name (ONNX's where B is an ONNX model).
        layers: how far each layer of A is from its counterpart, where that was compared.
        layers_unknown: why layers could not be compared, where that was tried in vain.
        search: the search for such an input, where there was one.
        remarks: what a reader should know of the two interfaces and of how they were run, a sentence each.
        sizes: shapes of the inputs at which the models were compared, the traced ones first.
    """

    verification: Verification
    note: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    structure: Structure | None = None
    permuted: int = 0
    counterexample: Mapping[str, ir.Array] | None = None
    layers: tuple[LayerDistance, ...] = ()
    layers_unknown: str = ""
    search: Search | None = None
    remarks: tuple[str, ...] = ()
    sizes: tuple[Mapping[str, tuple[int, ...]], ...] = ()

    def __repr__(self) -> str:
        return f"CheckReport(verdict={self.verdict!r})"

    @property
    def verdict(self) -> str:
        """One of `Verification`'s verdicts."""
        return self.verification.verdict

    @property
    def equivalent(self) -> bool:
        """Whether no difference was found."""
        return self.verdict in EQUIVALENT

    @property
    def layer(self) -> str:
        """The first layer at which the models part; empty if none is known, or if they are the same."""
        if self.certain or self.verdict == SIZED:
            return ""
        return next((item.layer for item in self.layers if item.parted), "")

    @property
    def certain(self) -> bool:
        """Whether equivalence is known rather than measured."""
        return self.verdict in CERTAIN

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        structure = None
        if self.structure is not None:
            structure = asdict(self.structure)
            del structure["values"]
        return {
            "verification": self.verification.to_dict(),
            "structure": structure,
            "permuted": self.permuted,
            "layer": self.layer,
            "layers": [asdict(item) for item in self.layers],
            "layers_unknown": self.layers_unknown,
            "search": None if self.search is None else asdict(self.search),
            "note": self.note,
            "remarks": list(self.remarks),
            "sizes": [{name: list(shape) for name, shape in each.items()} for each in self.sizes],
            "seconds": dict(self.seconds),
        }

    def save_counterexample(self, path: Path) -> None:
        """Write the counterexample as an ``.npz`` file for ``--input`` (atomically).

        Raises:
            ValueError: there is none.
        """
        if self.counterexample is None:
            raise ValueError("there is no counterexample: no difference was found")
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, array in self.counterexample.items():  # savez takes some names for options of its own
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)


def degenerate_groups(graph: RescalingGraph, variables: Any) -> dict[str, int]:
    """Channel group -> how many of its variables are degenerate."""
    counts: dict[str, int] = {}
    hit = set(variables.tolist())
    for group in graph.groups:
        n = len(hit.intersection(group.variables.tolist()))
        if n:
            counts[group.name] = n
    return counts
