"""Results as JSON that grows run by run: an interrupted experiment goes on where it stopped."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphnorm.util.atomic import replacing


class Results:
    """A file of runs, each under its settings; written atomically after each run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []

    def find(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        return next((run for run in self.runs if run["settings"] == dict(settings)), None)

    def add(self, settings: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        self.runs.append({"settings": dict(settings), **found})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps({"runs": self.runs}, indent=1))

    def table(self, keys: Sequence[str], value: str) -> dict[tuple[Any, ...], tuple[float, float, int]]:
        """Mean, standard deviation and number over seeds, by the settings `keys`."""
        cells: dict[tuple[Any, ...], list[float]] = {}
        for run in self.runs:
            cells.setdefault(tuple(run["settings"].get(key, "") for key in keys), []).append(run[value])
        return {
            key: (statistics.mean(v), statistics.stdev(v) if len(v) > 1 else float("nan"), len(v))
            for key, v in cells.items()
        }
