"""Measurement: run both models on the same inputs, and judge the difference by the original's own noise.

torch: accept when RMSE(new, f64 original) <= 3 RMSE(original, f64 original) + tiny.
ONNX: the same, through ONNX's reference implementation in float64; the original's noise is the larger of its
runs with graph optimisations on and off.  Where the float64 run doesn't cover the model, or is farther from
the original than rounding explains (`anchor`), the unoptimised run (torch: the original's own) is the anchor.

One run is a single sample of the rounding noise, which may be small by chance (the mean of 10,000 equal
values has an error that depends on their mantissa alone).  So before a difference counts, the noise is
measured on
nearby models too: weights perturbed at random, float run against float64 run; and on the same model with its
weights rounded at random (weights stored in less precision than they are computed with).  Element-wise
relative tolerances are meaningless near zero and are not used.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from graphnorm import ir
from graphnorm.errors import RunError
from graphnorm.verification.anchor import Truth
from graphnorm.verification.movement import Movement
from graphnorm.verification.norms import distance, root_mean_square
from graphnorm.verification.run_errors import is_refusal
from graphnorm.verification.runner import Runner

_RATIO = 3.0
_LEAST = 26  # inputs that are tried regardless of the time limit
_NEARBY = 4  # samples of the noise
_MORE = 16  # samples if those nearly explain the difference: single samples vary by a factor of 30
_FAR = 100.0  # times the sampled noise: no further sample would explain it
_TINY_FLOAT64 = 1024.0
_BINS = 40  # of the histogram of errors, half a decade each
_NEARBY_SIZE = 0.05  # relative perturbation of a nearby model's weights


@dataclass(frozen=True, slots=True)
class Measurement:
    """Both models on a battery of inputs.

    Attributes:
        agrees: whether the new model stays within the original's own noise on every input.
        bit_identical: whether all outputs are the same bits.
        rmse_ratio: RMSE(new) / RMSE(original) on the worst input, both against the reference (1 is perfect).
            It may exceed 3 where both are below a few units of rounding, which is accepted.
        rmse: RMSE(new) on the worst input, relative to the outputs' root mean square.
        noise: RMSE(original) there, likewise.
        anchor: what the noise was measured against.
        inputs: number of inputs tried.
        device: where it ran.
        failure: the input and output on which they differ; empty if none.
        parted: index of that input among those tried.
        runtimes: what ran the original and the new model, and where.
        kinds: kind of input -> how many of it were tried.
        errors: histogram of log10 of the relative errors on all inputs: (first edge, width, counts).
        still: outputs that no input moved: they were infinite, NaN or the same throughout.
        remarks: how the models were run, where that is not as asked.
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
    parted: int | None = None
    runtimes: tuple[str, str] = ("", "")
    kinds: dict[str, int] = field(default_factory=dict)
    errors: tuple[float, float, list[int]] = (-10.0, 0.5, [])
    still: tuple[int, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """Both models on one input.

    Attributes:
        ratio: of the worst output's RMSE and the original's own; infinite where rounding cannot explain it.
        rmse: relative RMSE of the new model there.
        noise: relative RMSE of the original there.
        identical: whether all outputs are the same bits.
        failure: the output that differs, and by how much; empty if none.
        errors: relative errors of single entries, of the worst output.
    """

    ratio: float
    rmse: float
    noise: float
    identical: bool
    failure: str
    errors: ir.Array

    @property
    def differs(self) -> bool:
        return bool(self.failure)


class Judge:
    """Judges a new model by the original, input by input."""

    def __init__(self, original: Runner, new: Runner) -> None:
        self.original, self.new = original, new
        self.truth = Truth(original)
        self.movement = Movement()
        self.tiny = max(original.tiny, new.tiny)

    def __call__(self, arrays: Sequence[ir.Array]) -> Judgement:
        """Run both; see the module's docstring for the criterion."""
        none = np.empty(0)
        old = self.original.run(arrays)
        try:
            other = self.new.run(arrays)
        except RunError as error:
            if not is_refusal(error):
                raise
            return Judgement(np.inf, np.inf, 0.0, False, f"refused: {error}", none)
        self.movement.see(arrays, old)
        if len(old) != len(other):
            return Judgement(np.inf, np.inf, 0.0, False, "number of outputs", none)
        variants = [old, *(variant.run(arrays) for variant in self.truth.reference.variants)]
        truth, _ = self.truth(arrays, variants)
        identical = all(_same_bits(*pair) for pair in zip(old, other, strict=True))
        worst = Judgement(0.0, 0.0, 0.0, identical, "", none)
        for index, exact in enumerate(truth):
            runs = [variant[index] for variant in variants]
            ratio, rmse, noise = _compare(runs, other[index], exact, self.tiny)
            if _RATIO < ratio < np.inf:
                noise = _nearby_noise(self.original, arrays, index, exact, rmse, noise)
                ratio = min(ratio, rmse / noise) if noise > 0 else ratio
            failure = f"output {index}: {_difference(runs[0], other[index], rmse, noise)}"
            if ratio >= worst.ratio:
                errors = _relative_errors(other[index], exact)
                told = worst.failure or (failure if ratio > _RATIO else "")
                worst = Judgement(ratio, rmse, noise, identical, told, errors)
        return worst


def measure(
    original: Runner,
    new: Runner,
    inputs: Sequence[tuple[str, Sequence[ir.Array]]],
    seconds: float = np.inf,
    judge: Judge | None = None,
) -> Measurement:
    """Run `original` and `new` on `inputs`; see the module's docstring for the criterion.

    Stops at the first input on which they differ; after `seconds`, once the first `_LEAST` were tried.
    """
    start = time.perf_counter()
    judge = judge or Judge(original, new)
    worst = Measurement(True, True, 0.0, 0.0, 0.0, "", 0, original.device)
    kinds: dict[str, int] = {}
    counts = np.zeros(_BINS, dtype=np.int64)
    first, width, _ = worst.errors
    for tried, (label, arrays) in enumerate(inputs):
        if tried >= _LEAST and time.perf_counter() - start > seconds:
            break
        found = judge(arrays)
        kinds[label] = kinds.get(label, 0) + 1
        counts += np.histogram(np.log10(np.maximum(found.errors, 10**first)), _BINS,
                               (first, first + width * _BINS))[0]  # fmt: skip
        worst = replace(worst, inputs=tried + 1, bit_identical=worst.bit_identical and found.identical)
        if found.ratio >= worst.rmse_ratio:
            worst = replace(worst, rmse_ratio=found.ratio, rmse=found.rmse, noise=found.noise)
        if found.differs:
            failure = found.failure.replace(":", f" on {label} input:", 1)
            worst = replace(worst, agrees=False, failure=failure, parted=tried)
            break
    if 0 < worst.noise < np.inf and np.isfinite(worst.rmse_ratio):
        worst = replace(worst, rmse_ratio=worst.rmse / worst.noise)
    return replace(
        worst,
        anchor=judge.truth.name,
        still=judge.movement.still,
        remarks=tuple(
            dict.fromkeys(filter(None, (*original.remarks, *new.remarks, judge.truth.reference.remark)))
        ),
        runtimes=(original.runtime, new.runtime),
        kinds=kinds,
        errors=(first, width, [int(n) for n in counts]),
    )


def _relative_errors(new: ir.Array, exact: ir.Array) -> ir.Array:
    """|new - exact| over the outputs' root mean square, entry by entry."""
    if new.shape != exact.shape or new.dtype.name not in ir.FLOAT_TYPES:
        return np.empty(0)
    with np.errstate(invalid="ignore"):
        off = np.abs(new.astype(np.float64) - exact.astype(np.float64))
        size = root_mean_square(exact.astype(np.float64))
    found = off[np.isfinite(off)] / size if size > 0 and np.isfinite(size) else np.empty(0)
    return np.asarray(found).ravel()


def _nearby_noise(
    original: Runner, arrays: Sequence[ir.Array], index: int, exact: ir.Array, rmse: float, noise: float
) -> float:
    """Relative RMSE of float runs of nearby models against their float64 runs, or `noise` if that is larger.

    Samples until the noise explains `rmse`, or clearly cannot.
    """
    worst = noise
    for seed in range(_MORE):
        if rmse <= _RATIO * worst or (seed >= _NEARBY and rmse > _FAR * worst):
            break
        rounded = original.nearby(seed, None).run(arrays)[index]
        worst = max(worst, _compare([rounded], rounded, exact, original.tiny)[2])
        model = original.nearby(seed, _NEARBY_SIZE)
        truth = Truth(model)
        runs = [model.run(arrays), *(variant.run(arrays) for variant in truth.reference.variants)]
        found, believed = truth(arrays, runs)
        if believed:
            worst = max(worst, _compare([runs[0][index]], runs[0][index], found[index], original.tiny)[2])
    return worst


def _same_bits(first: ir.Array, second: ir.Array) -> bool:
    return first.shape == second.shape and first.dtype == second.dtype and first.tobytes() == second.tobytes()


def _difference(old: ir.Array, new: ir.Array, rmse: float, noise: float) -> str:
    if np.isfinite(rmse):
        return f"RMSE {rmse:.3g}, the original's own {noise:.3g}"
    if old.shape != new.shape or old.dtype != new.dtype:
        return f"{new.dtype}{new.shape}, the original's is {old.dtype}{old.shape}"
    if old.dtype.name not in ir.FLOAT_TYPES:
        return f"{np.count_nonzero(old != new)} of {old.size} entries differ"
    wild = [np.count_nonzero(~np.isfinite(array.astype(np.float64))) for array in (new, old)]
    if any(wild):
        return f"{wild[0]} of {old.size} entries are infinite or NaN, {wild[1]} of the original's"
    return "not zero, as the original's is"


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
    size = root_mean_square(exact[finite])
    if size == 0.0:
        most = max(root_mean_square(value[finite]) for value in values)
        return (0.0, 0.0, 0.0) if root_mean_square(two[finite]) <= most else (np.inf, np.inf, 0.0)
    rmse = distance(two[finite], exact[finite]) / size
    noise = max(distance(value[finite], exact[finite]) for value in values) / size
    if old.dtype == np.float64:  # its own reference: there is no run in more precision
        tiny = _TINY_FLOAT64
    floor = tiny * ir.float_format(old.dtype).eps / _RATIO
    return rmse / max(noise, floor), rmse, noise  # judged; reported without the floor
