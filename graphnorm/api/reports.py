"""What a canonicalisation did, for people and for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from graphnorm.api.options import Options
from graphnorm.api.records import ClipRun, Objective, SolverRun
from graphnorm.api.verdicts import Verification
from graphnorm.rescaling.graph import Cause, RescalingGraph
from graphnorm.rescaling.objective import Change

_CAUSES = 6  # operators that are named as causes


@dataclass(frozen=True)
class Report:
    """Everything `canonicalize` did.

    Attributes:
        model: the network's name.
        dimension: number of independent rescalings.
        objective: sum |w|^p over multiplicative weights that can move, before and after.
        solver: how the minimum was found.
        options: what was asked for.
        pins: causes that fix scales.
        degenerate: channel groups with channels that have no minimiser, left at 1.
        unknown: operators without a rule -> the nodes pinned by them.
        energy: layer -> (before, after), sum |w|^p of each multiplicative weight.
        verification: verdict and evidence.
        permuted: number of channel factors that were put in order.
        seconds: time of each stage.
        clips: with ``rewrite_clips``: which were, and why the others were not.
        remarks: what was done otherwise than asked or expected, a sentence each.
        extremes: the largest ``coefficient`` of a channel, ``weight`` and ``bias``, before and after; of
            ``activation`` too where models were run and a coefficient is 100 or more.

    >>> import torch, graphnorm
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> report = graphnorm.canonicalize(model, torch.randn(3, 4)).report
    >>> report.dimension, report.solver.converged, report.objective.after <= report.objective.before
    (8, True, True)
    """

    model: str
    dimension: int
    objective: Objective
    solver: SolverRun
    options: Options
    pins: tuple[Cause, ...]
    degenerate: Mapping[str, int]
    unknown: Mapping[str, list[str]]
    energy: Mapping[str, Change]
    verification: Verification
    permuted: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    clips: ClipRun | None = None
    remarks: tuple[str, ...] = ()
    extremes: Mapping[str, Change] = field(default_factory=dict)

    def __repr__(self) -> str:
        before, after = self.objective.before, self.objective.after
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
        if self.objective.before != self.objective.after:
            return ""
        if self.degenerate:
            return "what can be rescaled has no minimum"
        return "at the minimum already" if self.objective.before else "only biases can be rescaled"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form (keys as documented in the README)."""
        return {
            "model": self.model,
            "dimension": self.dimension,
            "objective": self.objective.to_dict(),
            "unchanged": self.unchanged,
            "solver": self.solver.to_dict(),
            "options": self.options.reported(),
            "pins": [asdict(pin) for pin in self.pins],
            "degenerate": [{"group": name, "channels": n} for name, n in self.degenerate.items()],
            "unknown_operators": {op: list(where) for op, where in self.unknown.items()},
            "energy": {name: change._asdict() for name, change in self.energy.items()},
            "verification": self.verification.to_dict(),
            "permuted": self.permuted,
            "seconds": dict(self.seconds),
            "clips": None
            if self.clips is None
            else {name: list(names) for name, names in self.clips.to_dict().items()},
            "extremes": {name: change._asdict() for name, change in self.extremes.items()},
            "remarks": list(self.remarks),
        }


def degenerate_groups(graph: RescalingGraph, variables: Any) -> dict[str, int]:
    """Channel group -> how many of its variables are degenerate."""
    counts: dict[str, int] = {}
    hit = set(variables.tolist())
    for group in graph.groups:
        n = len(hit.intersection(group.variables.tolist()))
        if n:
            counts[group.name] = n
    return counts
