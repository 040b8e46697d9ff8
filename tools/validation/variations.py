"""Attributes that no rule of scales looks at: strides, dilations, padding and rounding of windows, masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tools.validation.case import Case, Operand, Rng

_WINDOWS = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"})


def varied(case: Case, rng: Rng) -> Case:
    """The case with other such attributes; itself where its operator has none."""
    if case.op == "Attention":
        return _of_data(case, rng)
    if case.op not in _WINDOWS:
        return case
    rank = len(case.operands[0].shape) - 2
    size = tuple(int(n) for n in rng.integers(4, 7, rank))
    image = replace(case.operands[0], shape=(*case.operands[0].shape[:2], *size))
    image = _constant_again(image, rng)
    own = {
        name: value
        for name, value in case.attributes.items()
        if name in {"kernel_shape", "group", "p", "count_include_pad"}
    }
    own["strides"] = rng.integers(1, 4, rank).tolist()
    if rng.random() < 0.5:
        own["dilations"] = rng.integers(1, 3, rank).tolist()
    own |= _padding(case.op, rank, rng)
    if case.op.endswith("Pool") and "auto_pad" not in own and rng.random() < 0.5:
        own["ceil_mode"] = 1
    if case.op == "ConvTranspose" and rng.random() < 0.5 and "auto_pad" not in own:
        own["output_padding"] = [int(s > 1) for s in own["strides"]]
    return replace(case, operands=(image, *case.operands[1:]), attributes=own)


def _of_data(case: Case, rng: Rng) -> Case:
    """Attention of activations, not of weights."""
    operands = tuple(
        replace(operand, kind="data", value=None) if operand.sample is not None else operand
        for operand in case.operands
    )
    packed = {name: value for name, value in case.attributes.items() if name.endswith("num_heads")}
    choices: list[dict[str, Any]] = [{}, {"is_causal": 1}, {"is_causal": 1, "scale": 0.3}, {"softcap": 1.5}]
    more = choices[int(rng.integers(len(choices)))]
    return replace(case, operands=operands, attributes={**packed, **more})


def _padding(op: str, rank: int, rng: Rng) -> dict[str, Any]:
    kind = rng.choice(["none", "pads", "SAME_UPPER", "SAME_LOWER", "VALID"])
    if kind == "pads":  # a window covers 2 entries, so that none lies in the padding alone
        return {"pads": rng.integers(0, 2, 2 * rank).tolist()}
    if kind == "none" or (op == "ConvTranspose" and kind != "VALID"):
        return {}
    return {"auto_pad": str(kind)}


def _constant_again(operand: Operand, rng: Rng) -> Operand:
    """An operand of another shape: its known entries are redrawn."""
    if operand.value is None:
        return operand
    if operand.kind == "zeros":
        return replace(operand, kind="data", value=None)
    assert operand.sample is not None
    return replace(operand, value=operand.sample(rng, operand.shape))
