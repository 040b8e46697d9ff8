"""What an equivalence check found, for people and for machines."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphnorm import ir
from graphnorm.api.verdicts import CERTAIN, EQUIVALENT, Verdict, Verification
from graphnorm.proof.prove import Structure
from graphnorm.util.atomic import replacing
from graphnorm.verification.layers import LayerDistance


@dataclass(frozen=True, slots=True)
class Search:
    """A search for an input on which two models differ: its method, how many inputs it tried, how long."""

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
        counterexample: an input on which the models differ, by input name (ONNX's where B is an ONNX model).
        layers: how far each layer of A is from its counterpart, where that was compared.
        layers_unknown: why layers could not be compared, where that was tried in vain.
        search: the search for such an input, where there was one.
        remarks: what a reader should know of the two interfaces and of how they were run, a sentence each.
        sizes: shapes of the inputs at which the models were compared, the traced ones first.

    >>> import torch
    >>> layer = torch.nn.Linear(4, 2)
    >>> import graphnorm
    >>> report = graphnorm.check(layer, layer, torch.randn(3, 4))
    >>> report, report.equivalent, report.certain
    (CheckReport(verdict='identical'), True, True)
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
    def verdict(self) -> Verdict:
        """What is known about the two models."""
        return self.verification.verdict

    @property
    def equivalent(self) -> bool:
        """Whether no difference was found."""
        return self.verdict in EQUIVALENT

    @property
    def layer(self) -> str:
        """The first layer at which the models differ; empty if none is known, or if they are the same."""
        if self.certain or self.verdict is Verdict.SIZED:
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
