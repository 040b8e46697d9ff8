"""Which channel groups a tensor carries, from its labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphnorm import ir
from graphnorm.ops.table import having
from graphnorm.ops.traits import Trait
from graphnorm.pictures.flow import Strand
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.scales.labels import FREE
from graphnorm.util.typing import Integers

CHANNELS_FIRST = having(Trait.CHANNELS_FIRST)
_MOVES = having(Trait.MOVES, without=Trait.ALONG_AXIS)


class StrandReader:
    """Reads tensors of one rescaling graph; `degenerate` are the variables without a minimiser."""

    def __init__(self, graph: RescalingGraph, degenerate: Integers) -> None:
        self.graph = graph
        self._owner = np.zeros(graph.solution.count, dtype=np.int64)
        for group in graph.groups:
            self._owner[group.variables] = group.index
        self._degenerate = np.zeros(graph.solution.count, dtype=bool)
        self._degenerate[degenerate] = True
        self._first = _channels_first(graph.network)

    def read(self, values: Sequence[str]) -> tuple[Strand, ...]:
        """Strands of some tensors taken together: one per group, then the pinned part."""
        used: list[Integers] = []
        pinned = 0
        for name in dict.fromkeys(values):
            labels = self.graph.scales.labels[name]
            present = labels[labels != FREE]
            rows = self.graph.solution.basis[present]
            used.append(rows.indices.astype(np.int64))
            fixed = np.diff(rows.indptr) == 0
            if fixed.any():
                pinned += max(1, round(self._channels(name) * float(fixed.mean())))
        variables = np.unique(np.concatenate(used)) if used else np.empty(0, dtype=np.int64)
        strands = []
        for group in np.unique(self._owner[variables]).tolist():
            own = variables[self._owner[variables] == group]
            strands.append(Strand(group, len(own), int(self._degenerate[own].sum())))
        if pinned:
            strands.append(Strand(None, pinned))
        return tuple(strands)

    def _channels(self, name: str) -> int:
        """Size of the channel axis."""
        shape = self.graph.network.values[name].shape or (1,)
        return int(shape[1] if name in self._first and len(shape) > 2 else shape[-1])


def _channels_first(network: ir.Graph) -> set[str]:
    """Values whose channels are axis 1: at convolutions and pools, and what elementwise operators make."""
    found: set[str] = set()
    for node in network.nodes:
        if node.op in CHANNELS_FIRST:
            found.update((node.inputs[0], node.outputs[0]))
        elif node.op not in _MOVES and found.intersection(node.inputs):
            found.update(node.outputs)
    return found
