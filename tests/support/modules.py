"""Every module of the package, by component."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT


def files() -> Iterator[tuple[str, Path]]:
    """(component, file) of every module; the link graphnorm/passes leads to passes/."""
    for path in sorted((ROOT / "graphnorm").rglob("*.py")):
        first = path.relative_to(ROOT / "graphnorm").parts[0].removesuffix(".py")
        if first != "passes":
            yield first, path
    for path in sorted((ROOT / "passes").rglob("*.py")):
        yield "passes", path


def is_module(name: str) -> bool:
    return (ROOT / "graphnorm" / f"{name}.py").exists() or (ROOT / "graphnorm" / name).is_dir()


FILES = list(files())
