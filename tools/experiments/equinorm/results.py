"""Result files of runs, and what many seeds say together."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphnorm.util.atomic import replacing


def saved(file: Path, content: bytes) -> None:
    """Write a file atomically."""
    with replacing(file) as part:
        part.write_bytes(content)


def read(file: Path) -> dict[str, Any]:
    """A result file, empty if there is none."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def complete(folder: Path) -> list[dict[str, Any]]:
    """Finished runs of a folder."""
    runs = [read(file) for file in sorted(folder.glob("run-*.json"))]
    return [run for run in runs if run.get("complete")]


def quartiles(runs: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """norm -> number of seeds and, per curve and epoch, quartiles [25 %, median, 75 %]."""
    by_norm: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_norm.setdefault(run["norm"], []).append(run["curves"])
    return {
        norm: {
            "seeds": len(curves),
            **{
                name: np.percentile([c[name] for c in curves], [25, 50, 75], axis=0).T.tolist()
                for name in curves[0]
            },
        }
        for norm, curves in by_norm.items()
    }


def machine() -> dict[str, Any]:
    """What the seconds were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"torch": torch.__version__, "device": device, "threads": torch.get_num_threads()}
