"""Two fingerprints against each other, and those of two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphnorm.api.interfaces import open_pair
from graphnorm.api.resizing import fitted
from graphnorm.fingerprint.compute import Fingerprint, of_network
from graphnorm.util.callers_state import kept_filters
from graphnorm.util.limits import enough_memory

_CLOSE = 5e-6  # relative: float32 weights, products of many


@dataclass(frozen=True)
class Comparison:
    """Two fingerprints computed in the same way, and where they differ beyond rounding; empty if nowhere."""

    first: Fingerprint
    second: Fingerprint
    differences: tuple[str, ...]


@kept_filters()
@enough_memory()
def compare(
    a: Any,
    b: Any,
    example_inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> Comparison:
    """Compare the fingerprints of two models, which are read as `graphnorm.check` reads them.

    Inputs and outputs that have names are matched by name, open sizes are taken as the other model has them,
    and where the fingerprints differ, weights of one entry count as numbers of the program in both: an
    optimiser may hold these as weights.

    Args:
        a: see `graphnorm.trace`, as are the others.
        b: the other model.
        example_inputs: inputs to trace torch modules with.
        kwargs: keyword inputs of torch modules.
        input_shapes: sizes of ONNX symbolic dimensions, by input name.

    Returns:
        Both fingerprints, and where they differ.

    Raises:
        InputError: a model cannot be taken, or the two take different inputs.

    >>> import torch
    >>> model = torch.nn.Linear(4, 2)
    >>> compare(model, model, torch.randn(3, 4)).differences
    ()
    """
    pair = fitted(open_pair(a, b, example_inputs, kwargs, input_shapes))
    networks = pair.first.network, pair.second.network
    first, second = (of_network(network) for network in networks)
    found = differences(first, second)
    if found:
        again = [of_network(network, numbers=True) for network in networks]
        if not differences(*again):
            return Comparison(again[0], again[1], ())
    return Comparison(first, second, tuple(found))


def differences(first: Fingerprint, second: Fingerprint) -> list[str]:
    """Where two fingerprints differ, beyond rounding; empty if nowhere."""
    found: list[str] = []
    if first.graph != second.graph:
        found.append("the graphs differ")
    elif len(first.numbers) != len(second.numbers):
        found.append(f"{len(first.numbers)} and {len(second.numbers)} numbers of operators")
    elif off := _apart(first.numbers, second.numbers):
        pair = f"{first.numbers[off[0]]:.8g} and {second.numbers[off[0]]:.8g}"
        found.append(f"a number of an operator: {pair}; {len(off)} differ")
    if first.inputs != second.inputs:
        found.append(f"input sizes {first.inputs} and {second.inputs}")
    for name, one in first.path_norms.items():
        two = second.path_norms[name]
        if (one is None) != (two is None) or (one is not None and two is not None and not _close(one, two)):
            found.append(f"path-norm {name}: {one} and {two}")
    if len(first.masses) != len(second.masses):
        found.append(f"{len(first.masses)} and {len(second.masses)} weights")
    elif off := _apart(first.masses, second.masses):
        pair = f"{first.masses[off[0]]:.8g} and {second.masses[off[0]]:.8g}"
        found.append(f"balanced mass {off[0] + 1} of {len(first.masses)}: {pair}; {len(off)} differ")
    return found


def _apart(one: Sequence[float], two: Sequence[float]) -> list[int]:
    """Places at which two lists of one length differ."""
    return [i for i, pair in enumerate(zip(one, two, strict=True)) if not _close(*pair)]


def _close(one: float, two: float) -> bool:
    return one == two or abs(one - two) <= _CLOSE * max(abs(one), abs(two))
