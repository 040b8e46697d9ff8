"""Reports of the command line as JSON, written atomically."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from graphnorm.cli.outputs import STDOUT
from graphnorm.util.atomic import replacing


def write_json(report: Mapping[str, Any], target: str | None) -> None:
    """Write a report to a file (atomically) or to standard output."""
    if target is None:
        return
    text = json.dumps(_plain(report), indent=2, allow_nan=False).replace(
        "\x7f", "\\u007f"
    )  # JSON lets it stand
    if target == STDOUT:
        typer.echo(text)
        return
    with replacing(Path(target)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """JSON has no infinities and no NumPy numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
