"""The largest numbers of a model before and after a rescaling, and what leaves float16's range.

Where a channel's incoming weights are nearly dead, the minimum multiplies it by 1e10 and everything added to
it, too.  Float32 holds that; float16 does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphnorm import ir
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.rescaling.objective import Change
from graphnorm.scales.demands import Role
from graphnorm.scales.labels import align
from graphnorm.util.typing import Floats
from graphnorm.weights.coefficients import Rescaled

HALF = ir.float_format("float16").largest
NOTABLE = 100.0  # a coefficient from which it is worth running the model to measure activations
MOST = 1 << 26  # entries of all activations together, beyond which they are not measured


def weight_extremes(graph: RescalingGraph, rescaled: Rescaled, x: Floats) -> dict[str, Change]:
    """Largest absolute weight and bias, and the largest factor of a channel.

    Args:
        graph: the rescaling graph.
        rescaled: the new weights.
        x: log-scale of each label.

    Returns:
        ``coefficient`` (1 before; a factor or its reciprocal), ``weight`` and ``bias``.
    """
    found = {"coefficient": Change(1.0, float(np.exp(np.abs(x).max(initial=0.0))))}
    for role in (Role.WEIGHT, Role.BIAS):
        names = {demand.weight for demand in graph.demands if demand.role == role}
        before = max((_largest(graph.network.weights[name]) for name in names), default=0.0)
        new = (rescaled.weights.get(name, graph.network.weights[name]) for name in names)
        found[role.value] = Change(before, max(map(_largest, new), default=0.0))
    return found


def worth_running(graph: RescalingGraph, found: Mapping[str, tuple[float, float]]) -> bool:
    """Whether activations may have grown much, and fit into memory side by side."""
    sizes = (value.shape or () for value in graph.network.values.values() if value.is_float)
    total = sum(int(np.prod(shape, dtype=np.int64)) for shape in sizes)
    return found["coefficient"][1] >= NOTABLE and total <= MOST


def activation_extremes(graph: RescalingGraph, hidden: Mapping[str, ir.Array], x: Floats) -> Change:
    """Largest absolute activation of a run of the original; each grows with its label."""
    before = after = 0.0
    for name, array in hidden.items():
        labels = graph.scales.labels.get(name)
        if labels is None or labels.ndim != array.ndim or not array.size:
            continue
        wide = np.abs(array.astype(np.float64))
        wide[~np.isfinite(wide)] = 0.0
        before = max(before, float(wide.max()))
        scale = np.where(labels < 0, 0.0, x[labels])  # 0 and infinities stay as they are
        after = max(after, float((wide * np.exp(align(scale, array.ndim))).max()))
    return Change(before, after)


def leaving_half(found: Mapping[str, tuple[float, float]]) -> Sequence[str]:
    """A sentence for each kind of number that was inside float16's range and no longer is."""
    return [
        f"the largest {kind} was {before:.3g} and is {after:.3g}, beyond float16's {HALF:.0f}: keep the "
        "model in float32 or bfloat16, or count biases (--biases, biases=True)"
        for kind, (before, after) in found.items()
        if kind != "coefficient" and before <= HALF < after
    ]


def _largest(array: ir.Array) -> float:
    if not array.size:
        return 0.0
    return float(max(abs(float(array.max())), abs(float(array.min()))))
