"""Measurement: run both models on the same inputs, and judge the difference by the original's own noise.

torch: accept when RMSE(new, f64 original) <= 3 RMSE(original, f64 original) + tiny.
ONNX: the same, through ONNX's reference implementation in float64; the original's noise is the larger of its
runs with graph optimisations on and off.  Where the reference implementation doesn't cover the model, the
unoptimised run is the anchor.

One run is one draw of the rounding noise, and a lucky one now and then (the mean of 10,000 equal values has
an error that depends on their mantissa alone).  So before a difference is called one, the noise is measured
on nearby models too: weights moved at random, float run against float64 run; and on the same model with its
weights rounded anew (weights stored in less precision than they are computed with).  Element-wise relative
tolerances mislead near zero and are not used.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from graphnorm import ir

_RATIO = 3.0
_LEAST = 26  # inputs that are tried whatever the time
_NEARBY = 4  # draws of the noise
_TINY_FLOAT64 = 1024.0
_NEARBY_SIZE = 0.05  # relative move of a nearby model's weights


class Runnable(Protocol):
    """A model that can be run."""

    def run(self, inputs: Sequence[ir.Array]) -> list[ir.Array]:
        """Outputs for `inputs`, in order."""


class Runner(Runnable, Protocol):
    """A model whose noise can be measured too."""

    device: str
    tiny: float  # difference that never counts, in float epsilons of the outputs' root mean square

    def reference(self, inputs: Sequence[ir.Array]) -> Reference:
        """How to measure this model's own noise; `inputs` are some to try it on."""

    def nearby(self, seed: int, size: float | None) -> Runner:
        """A model whose matrices and kernels are moved at random by up to `size` (None: by half an ulp)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a model's noise is measured against.

    Attributes:
        anchor: a run of the same model that counts as exact.
        name: what the anchor is.
        variants: other runs of the same function, whose distance from the anchor is noise too.
    """

    anchor: Runnable
    name: str
    variants: tuple[Runnable, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """Both models on a battery of inputs.

    Attributes:
        agrees: whether the new model stays within the original's own noise on every input.
        bit_identical: whether all outputs are the same bits.
        rmse_ratio: RMSE(new) / RMSE(original) on the worst input, both against the anchor (1 is perfect).
            It may exceed 3 where both are below a few units of rounding, which is accepted.
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


def battery(
    network: ir.Graph, example: Sequence[ir.Array] | None, draws: int = 1, seed: int = 0
) -> list[tuple[str, list[ir.Array]]]:
    """Inputs to try: the example, `draws` of normal, large and small ones, and zeros."""
    generator = np.random.default_rng(seed)
    found: list[tuple[str, list[ir.Array]]] = []
    if example is not None:
        found.append(("given", list(example)))
    kinds = [("normal", 1.0), ("large", 30.0), ("small", 1e-2)] * draws + [("zero", 0.0)]
    for name, size in kinds:
        found.append(
            (name, [_draw(network, i, example, size, generator) for i in range(len(network.inputs))])
        )
    return found


def _draw(
    network: ir.Graph,
    index: int,
    example: Sequence[ir.Array] | None,
    size: float,
    generator: np.random.Generator,
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


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def measure(
    original: Runner,
    new: Runner,
    inputs: Sequence[tuple[str, Sequence[ir.Array]]],
    seconds: float = np.inf,
) -> Measurement:
    """Run `original` and `new` on `inputs`; see the module's docstring for the criterion.

    Stops at the first input on which they part; after `seconds`, once the first `_LEAST` were tried.
    """
    start = time.perf_counter()
    reference = original.reference(inputs[0][1])
    worst = Measurement(True, True, 0.0, 0.0, 0.0, reference.name, len(inputs), original.device)
    identical, failure = True, ""
    for tried, (label, arrays) in enumerate(inputs):
        if failure or (tried >= _LEAST and time.perf_counter() - start > seconds):
            break
        worst = replace(worst, inputs=tried + 1)
        old, other, truth = original.run(arrays), new.run(arrays), reference.anchor.run(arrays)
        if len(old) != len(other):
            return replace(
                worst, agrees=False, bit_identical=False, rmse_ratio=np.inf, failure="number of outputs"
            )
        variants = [old, *(variant.run(arrays) for variant in reference.variants)]
        for index, exact in enumerate(truth):
            identical = identical and _same_bits(old[index], other[index])
            runs = [variant[index] for variant in variants]
            ratio, rmse, noise = _compare(runs, other[index], exact, original.tiny)
            if _RATIO < ratio < np.inf:
                noise = max(noise, _nearby_noise(original, arrays, index, exact))
                ratio = min(ratio, rmse / noise) if noise > 0 else ratio
            if ratio > _RATIO and not failure:
                failure = f"output {index} on {label} input: RMSE {rmse:.3g}, the original's own {noise:.3g}"
            if ratio >= worst.rmse_ratio:
                worst = replace(worst, rmse_ratio=ratio, rmse=rmse, noise=noise)
    if 0 < worst.noise < np.inf and np.isfinite(worst.rmse_ratio):
        worst = replace(worst, rmse_ratio=worst.rmse / worst.noise)
    return replace(worst, agrees=not failure, bit_identical=identical, failure=failure)


def _nearby_noise(original: Runner, arrays: Sequence[ir.Array], index: int, exact: ir.Array) -> float:
    """Relative RMSE of float runs of nearby models against their float64 runs."""
    worst = 0.0
    for seed in range(_NEARBY):
        rounded = original.nearby(seed, None).run(arrays)[index]
        worst = max(worst, _compare([rounded], rounded, exact, original.tiny)[2])
        model = original.nearby(seed, _NEARBY_SIZE)
        reference = model.reference(arrays)
        if reference.name == "float64":
            run, truth = model.run(arrays)[index], reference.anchor.run(arrays)[index]
            worst = max(worst, _compare([run], run, truth, original.tiny)[2])
    return worst


def _same_bits(first: ir.Array, second: ir.Array) -> bool:
    return first.shape == second.shape and first.dtype == second.dtype and first.tobytes() == second.tobytes()


def _compare(
    runs: Sequence[ir.Array], new: ir.Array, truth: ir.Array, tiny: float
) -> tuple[float, float, float]:
    """(RMSE ratio, relative RMSE of new, relative RMSE of the worst run of the original).

    The ratio is infinite where shapes, integers or non-finite entries differ.
    """
    old = runs[0]
    if old.shape != new.shape or old.dtype != new.dtype:
        return np.inf, np.inf, 0.0
    if old.dtype.name not in ir.FLOAT_TYPES:
        return (0.0, 0.0, 0.0) if np.array_equal(old, new) else (np.inf, np.inf, 0.0)
    two, exact = new.astype(np.float64), truth.astype(np.float64)
    values = [run.astype(np.float64) for run in runs]
    finite = np.isfinite(values[0]) & np.isfinite(exact)
    if (
        not np.array_equal(values[0][~finite], two[~finite], equal_nan=True)
        or not np.isfinite(two[finite]).all()
    ):
        return np.inf, np.inf, 0.0
    size = _rms(exact[finite])
    if size == 0.0:
        same = _rms(two[finite]) <= max(_rms(value[finite]) for value in values)
        return (0.0, 0.0, 0.0) if same else (np.inf, np.inf, 0.0)
    rmse = _rms((two - exact)[finite]) / size
    noise = max(_rms((value - exact)[finite]) for value in values) / size
    if old.dtype == np.float64:  # its own anchor: there is no finer run to measure the noise with
        tiny = _TINY_FLOAT64
    floor = tiny * ir.float_format(old.dtype).eps / _RATIO
    return rmse / max(noise, floor), rmse, noise  # judged; reported without the floor


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0
