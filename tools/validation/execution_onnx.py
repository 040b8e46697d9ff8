"""What graphnorm computes of an ONNX operator: the float64 anchor's kernels, and constants at reading."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphnorm.api.sources import OnnxSource, open_model
from graphnorm.errors import GraphNormError
from graphnorm.ir import Array
from graphnorm.verification.onnx.float64 import Float64Runner
from tools.validation.case import Case
from tools.validation.evaluate import evaluator
from tools.validation.interpret import wide
from tools.validation.one_node import by_onnxruntime, feeds, one_node
from tools.validation.specials import SPECIAL

Arrays = Sequence[Array | None]
UNIT = float(np.finfo(np.float32).eps)
SHAKES = 4


def anchored(case: Case, operands: Arrays) -> str | None:
    """What is wrong with the anchor's result, "" if nothing; None if it has none or there is no judge.

    onnxruntime computes in float32: the anchor may be as far from it as from itself where operands are moved
    by a unit of rounding.  Our own functions in float64 are compared to the last digits.
    """
    if kept_narrow(case):
        return None
    model = one_node(case, operands)
    given = feeds(model, operands)
    expected = by_onnxruntime(model, given)
    try:
        source = open_model(model)
        assert isinstance(source, OnnxSource)
        runner = Float64Runner(source.model, source.network)
        inputs = [given[name] for name in source.network.inputs]
        found = runner.run(inputs)
        moved = [runner.shaken(inputs, UNIT, seed) for seed in range(SHAKES)]
    except GraphNormError:
        return None
    if case.op in SPECIAL:
        own = evaluator(case)([None if x is None else wide(x) for x in operands])
        said = apart(own, found, 64 * UNIT if case.op in IN_FLOAT32 else 1e-9)
        if said:
            return f"the anchor's {said}, by our own functions"
    if expected is None or differs_by_choice(case):
        return "" if case.op in SPECIAL else None
    noise = [noise_of(one, [shaken[j] for shaken in moved]) for j, one in enumerate(found)]
    said = apart(expected, found, 16 * UNIT, noise)
    return f"the anchor's {said}, by onnxruntime" if said else ""


# The reference implementation computes these in float32 somewhere.
IN_FLOAT32 = frozenset({"AffineGrid", "Attention", "DeformConv", "LinearAttention"})


def kept_narrow(case: Case) -> bool:
    """Casts to narrow floats: the anchor widens all floats."""
    return case.op in {"Cast", "CastLike"}


def differs_by_choice(case: Case) -> bool:
    """Where onnxruntime and ONNX's reference implementation read the standard differently.

    onnxruntime lets ``SAME_...`` forget dilations in pools, and crops after the resizing in
    ``tf_crop_and_resize``.  The anchor is not used where both disagree.
    """
    same = str(case.attributes.get("auto_pad", "")).startswith("SAME")
    dilated = max(case.attributes.get("dilations", [1])) > 1
    crops = case.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    return crops or (same and dilated and case.op in {"AveragePool", "LpPool"})


def folded(case: Case, operands: Arrays) -> str | None:
    """What is wrong with the constants that reading computes; None if it computes none."""
    model = one_node(case, operands, known=True)
    try:
        network = open_model(model).network
    except GraphNormError:  # a case that is none of ONNX's
        return None
    results = [f"y{j}" for j in range(case.results)]
    if not set(results) <= set(network.constants):
        return None
    expected = by_onnxruntime(model, {})
    if expected is None or differs_by_choice(case) or _run_time_scales(case):
        return None
    found = [network.constants[name] for name in results]
    for one, two in zip(expected, found, strict=True):
        if one.dtype != two.dtype:
            return f"a constant is computed as {two.dtype}, not {one.dtype}"
    said = apart(expected, found, 64 * UNIT)
    return f"a constant's {said}, by onnxruntime" if said else ""


def _run_time_scales(case: Case) -> bool:
    """Where onnxruntime differs from itself: scales that it computes, and deviations of 0."""
    return case.op == "MeanVarianceNormalization" or (
        case.op == "Resize" and len(case.operands) > 2 and case.operands[2].kind != "absent"
    )


def noise_of(array: Array, moved: Sequence[Array]) -> Array:
    """How far entries move."""
    if any(other.shape != array.shape for other in moved):
        return np.full(array.shape, np.inf)
    with np.errstate(invalid="ignore"):
        off = [np.abs(other.astype(np.float64) - array.astype(np.float64)) for other in moved]
    return np.asarray(np.nan_to_num(np.stack(off), nan=0.0, posinf=np.inf).max(0))


def apart(
    expected: Sequence[Array], found: Sequence[Array], relative: float, noise: Arrays | None = None
) -> str:
    """Where arrays differ by more than `relative` of their largest entry and 16 times the noise, or ""."""
    for j, (one, two) in enumerate(zip(expected, found, strict=True)):
        if one.shape != two.shape:
            return f"result {j} has shape {two.shape}, not {one.shape}"
        if one.dtype.kind not in "fV":
            allowed = np.zeros(one.shape)
            if noise is not None and noise[j] is not None and np.any(noise[j]):
                continue  # decided by rounding
        else:
            size = np.abs(one[np.isfinite(one)].astype(np.float64)).max(initial=0.0)
            extra = 0.0 if noise is None else 16 * np.asarray(noise[j])
            allowed = np.broadcast_to(relative * size + extra, one.shape)
        first, second = one.astype(np.float64), two.astype(np.float64)
        same = (np.abs(first - second) <= allowed) | (first == second) | (np.isnan(first) & np.isnan(second))
        if not same.all():
            at = tuple(int(i) for i in np.argwhere(~same)[0])
            return f"result {j} is {second[at]} at {list(at)}, not {first[at]}"
    return ""
