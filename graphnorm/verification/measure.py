"""Measurement: run both models on the same inputs, and judge the difference by the original's own noise.

With a float64 anchor (torch): accept when RMSE(new, f64 original) <= 3 RMSE(original, f64 original) + tiny.
Without (ONNX): the noise is the difference between the original run with graph optimisations on and off.
Element-wise relative tolerances mislead near zero and are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from graphnorm import ir

_RATIO = 3.0


class Runner(Protocol):
    """A model that can be run."""

    device: str
    tiny: float  # difference that never counts, in float epsilons of the outputs' root mean square

    def run(self, inputs: Sequence[ir.Array]) -> list[ir.Array]:
        """Outputs for `inputs`, in order."""

    def reference(self) -> tuple[Runner, str] | None:
        """A run of the same model to measure its noise against, and what that is."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Both models on a battery of inputs.

    Attributes:
        agrees: whether the new model stays within the original's own noise on every input.
        bit_identical: whether all outputs are the same bits.
        rmse_ratio: largest RMSE(new) / RMSE(original), both against the anchor (1 is perfect).
        rmse: RMSE(new) on the worst input, relative to the outputs' root mean square.
        noise: RMSE(original) there, likewise.
        anchor: what the noise was measured against.
        inputs: number of inputs tried.
        device: where it ran.
        failure: the input and output on which they part; empty if none.
    """

    agrees: bool
    bit_identical: bool
    rmse_ratio: float
    rmse: float
    noise: float
    anchor: str
    inputs: int
    device: str
    failure: str = ""


def battery(network: ir.Graph, example: Sequence[ir.Array] | None, seed: int = 0) -> list[tuple[str, list[ir.Array]]]:
    """Inputs to try: the example, normal, large, small and zero ones."""
    generator = np.random.default_rng(seed)
    found: list[tuple[str, list[ir.Array]]] = []
    if example is not None:
        found.append(("given", list(example)))
    for name, size in (("normal", 1.0), ("large", 30.0), ("small", 1e-2), ("zero", 0.0)):
        found.append((name, [_draw(network, i, example, size, generator) for i in range(len(network.inputs))]))
    return found


def _draw(
    network: ir.Graph, index: int, example: Sequence[ir.Array] | None, size: float, generator: np.random.Generator
) -> ir.Array:
    value = network.values[network.inputs[index]]
    shape = value.shape or ()
    if example is not None:
        shape = example[index].shape
    if value.is_float:
        return (size * generator.standard_normal(shape)).astype(_dtype(value.dtype))
    if example is not None:  # integers may be token ids, lengths, masks: keep their range
        low, high = int(example[index].min()), int(example[index].max())
        return generator.integers(low, high + 1, shape).astype(example[index].dtype)
    return generator.integers(0, 2, shape).astype(_dtype(value.dtype))


def _dtype(name: str) -> np.dtype:  # type: ignore[type-arg]
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def measure(original: Runner, new: Runner, inputs: Sequence[tuple[str, Sequence[ir.Array]]]) -> Measurement:
    """Run `original` and `new` on `inputs`; see the module's docstring for the criterion."""
    anchored = original.reference()
    anchor, what = anchored if anchored is not None else (original, "none (original taken as exact)")
    worst = Measurement(True, True, 0.0, 0.0, 0.0, what, len(inputs), original.device)
    identical, failure = True, ""
    for label, arrays in inputs:
        triples = zip(original.run(arrays), new.run(arrays), anchor.run(arrays), strict=True)
        for index, (old, other, truth) in enumerate(triples):
            identical = identical and _same_bits(old, other)
            ratio, rmse, noise = _compare(old, other, truth, original.tiny)
            if ratio > _RATIO and not failure:
                failure = f"output {index} on {label} input: RMSE {rmse:.3g}, the original's own {noise:.3g}"
            if ratio >= worst.rmse_ratio:
                worst = Measurement(True, True, ratio, rmse, noise, what, len(inputs), original.device)
    return Measurement(
        not failure, identical, worst.rmse_ratio, worst.rmse, worst.noise, what, len(inputs), original.device, failure
    )


def _same_bits(first: ir.Array, second: ir.Array) -> bool:
    return first.shape == second.shape and first.dtype == second.dtype and first.tobytes() == second.tobytes()


def _compare(old: ir.Array, new: ir.Array, truth: ir.Array, tiny: float) -> tuple[float, float, float]:
    """(RMSE ratio, relative RMSE of new, relative RMSE of old); infinite where shapes or non-finites differ."""
    if old.shape != new.shape:
        return np.inf, np.inf, 0.0
    if old.dtype.kind not in "fV" and old.dtype.name != "bfloat16":
        return (0.0, 0.0, 0.0) if np.array_equal(old, new) else (np.inf, np.inf, 0.0)
    one, two, exact = (array.astype(np.float64) for array in (old, new, truth))
    finite = np.isfinite(one) & np.isfinite(exact)
    if not np.array_equal(one[~finite], two[~finite], equal_nan=True) or not np.isfinite(two[finite]).all():
        return np.inf, np.inf, 0.0
    size = np.sqrt(np.mean(exact[finite] ** 2)) if finite.any() else 0.0
    if size == 0.0:
        return (0.0, 0.0, 0.0) if np.abs(two[finite]).max(initial=0.0) <= np.abs(one[finite]).max(initial=0.0) else (np.inf, np.inf, 0.0)
    rmse = float(np.sqrt(np.mean((two - exact)[finite] ** 2)) / size)
    noise = float(np.sqrt(np.mean((one - exact)[finite] ** 2)) / size)
    import ml_dtypes

    floor = tiny * float(ml_dtypes.finfo(old.dtype).eps) / _RATIO
    return rmse / max(noise, floor, 1e-300), rmse, noise
