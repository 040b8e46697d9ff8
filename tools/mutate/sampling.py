"""Rooms, their mutants, and a sample of them that stays when code moves."""

from __future__ import annotations

import hashlib
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.mutate.operators import Mutant, mutants

ROOMS = ("scales", "verification/certificate", "permutation", "alignment", "solver/rounding")
EQUIVALENT = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True)
class Placed:
    """A mutant and the module it is in, by its path from the root; `number` counts equal keys of modules."""

    module: str
    mutant: Mutant
    number: int = 0

    @property
    def key(self) -> str:
        """What a mutant is known by."""
        return f"{self.mutant.key}|{self.number}"


def modules(root: Path, rooms: Iterable[str]) -> list[str]:
    """Python files of rooms: folders or modules under graphnorm/.

    Raises:
        FileNotFoundError: a room is neither.
    """
    found: list[str] = []
    for room in rooms:
        place = root / "graphnorm" / room
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        if not all(path.is_file() for path in files):
            raise FileNotFoundError(f"no folder and no module graphnorm/{room}")
        found += [path.relative_to(root).as_posix() for path in files]
    return found


def all_mutants(root: Path, names: Sequence[str]) -> list[Placed]:
    seen: Counter[str] = Counter()
    found: list[Placed] = []
    for name in names:
        for one in mutants((root / name).read_text("utf-8")):
            found.append(Placed(name, one, seen[one.key]))
            seen[one.key] += 1
    return found


def sample(found: Iterable[Placed], count: int, seed: int) -> list[Placed]:
    """The `count` mutants of least hash: a line that is added or moved leaves the others in the sample."""

    def rank(one: Placed) -> str:
        return hashlib.sha256(f"{seed}|{one.key}".encode()).hexdigest()

    return sorted(found, key=rank)[:count]


def equivalents(path: Path = EQUIVALENT) -> dict[tuple[str, str, str], str]:
    """Reasons of mutants that no test can notice, by function, line and changed line."""
    held = tomllib.loads(path.read_text("utf-8")).get("equivalent", []) if path.exists() else []
    return {(one["function"], one["line"], one["becomes"]): one["reason"] for one in held}


def reason(one: Placed, known: Mapping[tuple[str, str, str], str]) -> str:
    """Why a mutant is equivalent; empty if no reason is listed."""
    return known.get((one.mutant.function, one.mutant.line, one.mutant.becomes), "")
