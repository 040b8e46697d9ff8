"""Operators that provably pin their operands, with the reason: no freedom is missed here."""

from __future__ import annotations

from graphnorm.ops.rules import Rules
from graphnorm.ops.traits import Trait
from graphnorm.scales.registry import Registry, Rule
from graphnorm.scales.rules.elementwise import fixed

_BY_TRAIT = {
    Trait.POINTWISE | Trait.SATURATES: "not homogeneous",
    Trait.NORMALISES: "normalised",
    Trait.QUANTISED: "quantised",
    Trait.POINTWISE | Trait.LOGICAL: "truth values or bits",
    Trait.DISCRETE: "discrete result",
    Trait.RANDOM: "random",
    Trait.GENERATES: "makes its own values",
    Trait.GENERATES | Trait.RANDOM: "random",
    Trait.LOSS: "loss",
    Trait.TEXT: "text",
    Trait.SEQUENCE: "sequence or optional value",
    Trait.COMPLEX: "complex numbers",
    Trait.ALGEBRA: "linear algebra",
    Trait.REGIONS: "body of a control-flow operator",
}
_BY_NAME = {
    "normalised": ("ReduceLogSum", "ReduceLogSumExp"),
    "packed sequence": ("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu"),
    "memory layout": ("aten::as_strided",),
    "sampled by position": ("torchvision::ps_roi_align", "torchvision::ps_roi_pool"),
    "weights that the model writes": ("aten::embedding_renorm",),
}

RULES: Registry = Rules("scales")
for _traits, _reason in _BY_TRAIT.items():
    RULES.for_trait(_traits, Rule("0 -> 0", fixed, _reason))
for _reason, _operators in _BY_NAME.items():
    RULES.add(Rule("0 -> 0", fixed, _reason), *_operators)
for _operator in ("ai.onnx.ml::ArrayFeatureExtractor", "com.microsoft::RotaryEmbedding"):
    RULES.none("outside ONNX, and nobody has written its rule: it is reported as unknown", _operator)
