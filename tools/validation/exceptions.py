"""What isn't validated, and what the rules leave out on purpose, with reasons.

Both lists are meant to be short.  An entry says why the freedom isn't worth a rule, or why it would be wrong
to use it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphnorm.scales.registry import Rule
from tools.validation.case import Case

_RECURRENT = ("RNN", "GRU", "LSTM", "aten::lstm_projected")
_PARAMETERS = (1, 2, 3, 7)  # of recurrent layers; the others are lengths and states
_LAYERS = (
    *_RECURRENT, "DeformConv", "CausalConvWithState", "BatchNormalization",
    "LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization", "PRelu",
    "Attention", "LinearAttention",
)  # fmt: skip
_PICKING = (
    "Gather", "GatherElements", "GatherND", "Slice", "Split", "Compress", "CenterCropPad", "Pad",
    "ScatterElements", "ScatterND", "Scatter", "Where", "Einsum", "graphnorm::Choice",
)  # fmt: skip
FOLLOWED_IN_EXPRESSIONS = (
    "Abs", "Add", "Clip", "Concat", "CumProd", "DepthToSpace", "Div", "Expand", "Flatten", "Gemm",
    "Identity", "LeakyRelu", "Max", "Mean", "Min", "Mul", "Neg", "Pow", "Reciprocal", "ReduceL1",
    "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
    "Relu", "Reshape", "SpaceToDepth", "Sqrt", "Squeeze", "Sub", "Sum", "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
ZEROS_FOLLOWED = (
    "Abs", "Add", "Clip", "Compress", "Concat", "CumProd", "DepthToSpace", "Dropout", "Expand", "Flatten",
    "Gather", "GatherElements", "Identity", "LeakyRelu", "Mean", "Mul", "Neg", "Pad", "Reciprocal",
    "ReduceMax", "ReduceMean", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Slice", "SpaceToDepth",
    "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tile", "Transpose", "Trilu", "Unsqueeze",
)  # fmt: skip


def knows_zeros(case: Case) -> bool:
    """Whether some operand has entries that are known to be 0, where they aren't followed."""
    followed = case.op in ZEROS_FOLLOWED and not {"data", "zeros"}.isdisjoint(case.kinds)
    return not followed and any(
        operand.kind == "zeros"
        or (
            operand.kind == "constant"
            and operand.real
            and operand.value is not None
            and (operand.value == 0).any()
        )
        for operand in case.operands
    )


def of_weights(case: Case) -> bool:
    """Whether nothing depends on the network's inputs, outside of what weight expressions are made of."""
    return case.op not in FOLLOWED_IN_EXPRESSIONS and not any(
        kind in {"data", "zeros", "input"} for kind in case.kinds
    )


def picks_weights(case: Case) -> bool:
    return "weight" in case.kinds


def odd_exponent(case: Case) -> bool:
    """Whether a known exponent isn't a multiple of a half, or is 0."""
    value = case.operands[1].value
    return value is not None and bool(((value == 0) | (2 * value != np.rint(2 * value))).any())


def unusual_roles(case: Case) -> bool:
    """Whether a layer's input is no data, or one of its parameters is no weight."""
    first, *others = case.kinds
    if case.op.endswith("Attention"):
        return "weight" in case.kinds or "constant" in case.kinds[:3]
    parameters = [others[k - 1] for k in _PARAMETERS if k <= len(others)] if case.op in _RECURRENT else others
    return first not in {"data", "zeros"} or not {"weight", "absent"}.issuperset(parameters)


@dataclass(frozen=True)
class Allowance:
    """A freedom that the rules leave out on purpose; no operators: of all."""

    operators: tuple[str, ...]
    reason: str
    when: Callable[[Case], bool] = lambda case: True


ALLOWANCES = (
    Allowance((), "outside of what weight expressions are made of, weights keep their values", of_weights),
    Allowance(_PICKING, "a weight that is read in part moves as a whole", picks_weights),
    Allowance((), "known zeros are followed through movement, sums and products only", knows_zeros),
    Allowance(_LAYERS, "the layer's input is no activation, or its parameters are computed", unusual_roles),
    Allowance(
        ("BatchNormalization",), "running statistics are the model's to write in training mode",
        lambda case: bool(case.attributes["training_mode"]),
    ),
    Allowance(("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), "a loss is the end of a network"),
    Allowance(("QuantizeLinear", "DequantizeLinear"), "scales of quantised tensors are calibration data"),
    Allowance(("NonZero", "Unique", "OneHot"), "sizes and positions are known only at run time"),
    Allowance(("MeanVarianceNormalization",), "its definition adds 1e-9 to the deviation"),
    Allowance(("Det",), "degree of a whole matrix"),
    Allowance(("Hardmax",), "before opset 13 all axes from `axis` on are compared"),
    Allowance(("AffineGrid",), "sampling positions are pinned where they are used"),
    Allowance(("TensorScatter",), "a cache and what is written into it share one scale"),
    Allowance(("STFT",), "the window is no parameter"),
    Allowance(
        ("Resize",), "a crop may reach beyond the image",
        lambda case: case.attributes["coordinate_transformation_mode"] == "tf_crop_and_resize",
    ),
    Allowance(
        ("ScatterElements", "ScatterND"), "products with single entries",
        lambda case: case.attributes.get("reduction") == "mul",
    ),
    Allowance(("Pow",), "exponents that are 0 or no simple fractions", odd_exponent),
)  # fmt: skip


def allowance(case: Case) -> str:
    """Why a freedom that `case` shows is left out, or ""."""
    for item in ALLOWANCES:
        if (not item.operators or case.op in item.operators) and item.when(case):
            return item.reason
    return ""


_BY_OPERATOR = {
    "aten::fractional_max_pool": "random windows",
    "aten::nextafter": "moves by one unit in the last place",
    "aten::segment_reduce": "a prototype of PyTorch's",
    "aten::_ctc_loss": "a loss is the end of a network",
    "com.microsoft::EmbedLayerNormalization": "integers that pick rows of tables, and a norm of these",
}
# Reasons for which a rule fixes its operators, and none of which has a floating-point function to look at.
_BY_REASON = frozenset({
    "body of a control-flow operator", "random", "text", "sequence or optional value", "truth values or bits",
    "makes its own values", "complex numbers", "linear algebra", "packed sequence", "memory layout",
    "sampled by position", "weights that the model writes", "discrete result", "quantised",
})  # fmt: skip


def exemption(op: str, rule: Rule) -> str:
    """Why an operator needs no generator of cases, or ""."""
    if op.startswith("graphnorm::"):
        return "one end of a loop, which does nothing alone"
    return (
        rule.reason if rule.reason in _BY_REASON and rule.signature == "0 -> 0" else _BY_OPERATOR.get(op, "")
    )
