"""The registry of lowerings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Lowering = Callable[..., None]


@dataclass(frozen=True)
class Lowerings:
    """ATen overload (``add.Tensor``) -> its lowering.

    ``ignored`` lists the arguments that are read for their type only.
    """

    table: dict[str, Lowering] = field(default_factory=dict)
    ignored: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def lowers(self, *names: str, ignores: tuple[int, ...] = ()) -> Callable[[Lowering], Lowering]:
        """Register a lowering; a name without a dot means the ``default`` overload."""

        def register(lowering: Lowering) -> Lowering:
            for name in names:
                self.add(name, lowering, ignores)
            return lowering

        return register

    def add(self, name: str, lowering: Lowering, ignores: tuple[int, ...] = ()) -> None:
        name = name if "." in name else f"{name}.default"
        if name in self.table:
            raise ValueError(f"aten::{name} has two lowerings")
        self.table[name] = lowering
        if ignores:
            self.ignored[name] = ignores

    def include(self, other: Lowerings) -> None:
        """Take over another table's entries."""
        for name, lowering in other.table.items():
            self.add(name, lowering, other.ignored.get(name, ()))
