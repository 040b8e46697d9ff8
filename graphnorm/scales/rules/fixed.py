"""Operators that are known to fix what they touch, with the reason why: nothing is missed here."""

from __future__ import annotations

from graphnorm.scales.registry import Rule
from graphnorm.scales.rules.elementwise import fixed

_SATURATES = (
    "Sigmoid", "Tanh", "Gelu", "Swish", "Mish", "Elu", "Selu", "Celu", "Softplus", "Softsign", "HardSigmoid",
    "HardSwish", "Erf", "Exp", "Log", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh",
    "Acosh", "Atanh", "Floor", "Ceil", "Round", "Shrink", "ThresholdedRelu",
    "aten::erfinv", "aten::lgamma", "aten::digamma", "aten::polygamma", "aten::igamma", "aten::igammac",
    "aten::i0", "aten::special_i0e", "aten::special_i1", "aten::special_i1e", "aten::special_erfcx",
    "aten::special_ndtri", "aten::special_zeta", "aten::special_bessel_j0", "aten::special_bessel_j1",
    "aten::special_bessel_y0", "aten::special_bessel_y1", "aten::special_spherical_bessel_j0",
    "aten::nextafter", "aten::frexp",
    "com.microsoft::Gelu", "com.microsoft::FastGelu", "com.microsoft::BiasGelu", "com.microsoft::QuickGelu",
)  # fmt: skip
_NORMALISES = (
    "Softmax", "LogSoftmax", "LRN", "MeanVarianceNormalization", "ReduceLogSum", "ReduceLogSumExp",
)  # fmt: skip
_QUANTISES = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger",
    "QLinearConv", "QLinearMatMul", "aten::_int_mm", "aten::_weight_int8pack_mm",
    "aten::_weight_int4pack_mm", "aten::_scaled_mm",
)  # fmt: skip
_LOGICAL = (
    "And", "Or", "Xor", "Not", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitShift", "BitCast",
)  # fmt: skip
_COUNTS = (
    "OneHot", "NonZero", "Unique", "NonMaxSuppression", "aten::histc", "aten::bincount", "aten::histogram",
    "aten::unique_consecutive", "aten::unique_dim_consecutive", "aten::item", "aten::_local_scalar_dense",
)  # fmt: skip
RANDOM = (
    "Multinomial", "Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    "aten::poisson", "aten::binomial", "aten::_standard_gamma", "aten::cauchy", "aten::geometric",
    "aten::multinomial",
)  # fmt: skip
_GENERATES = (
    "Constant", "ConstantOfShape", "Range", "AffineGrid", "BlackmanWindow", "HammingWindow",
    "HannWindow", "MelWeightMatrix", "ImageDecoder",
)  # fmt: skip
_LOSSES = ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", "aten::_ctc_loss")
_TEXT = ("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer")
_SEQUENCES = (
    "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
    "SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement",
)  # fmt: skip
_COMPLEX = (
    "aten::view_as_complex", "aten::complex", "aten::polar", "aten::_fft_r2c", "aten::_fft_c2c",
    "aten::_fft_c2r", "aten::stft", "aten::istft",
)  # fmt: skip
_ALGEBRA = (
    "Det", "aten::_linalg_det", "aten::_linalg_slogdet", "aten::_linalg_svd", "aten::_linalg_eigh",
    "aten::linalg_eig", "aten::linalg_qr", "aten::linalg_cholesky_ex", "aten::linalg_inv_ex",
    "aten::_linalg_solve_ex", "aten::linalg_lu", "aten::linalg_lu_factor_ex", "aten::linalg_lu_solve",
    "aten::linalg_solve_triangular", "aten::linalg_lstsq", "aten::linalg_matrix_exp", "aten::linalg_pinv",
    "aten::linalg_householder_product", "aten::cholesky_solve", "aten::cholesky_inverse",
    "aten::triangular_solve",
)  # fmt: skip
_PACKED = ("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu")

_REASONS = {
    "not homogeneous": _SATURATES,
    "normalised": _NORMALISES,
    "quantised": _QUANTISES,
    "truth values or bits": _LOGICAL,
    "discrete result": _COUNTS,
    "random": RANDOM,
    "makes its own values": _GENERATES,
    "loss": _LOSSES,
    "text": _TEXT,
    "sequence or optional value": _SEQUENCES,
    "complex numbers": _COMPLEX,
    "linear algebra": _ALGEBRA,
    "packed sequence": _PACKED,
    "memory layout": ("aten::as_strided",),
    "sampled by position": ("torchvision::ps_roi_align", "torchvision::ps_roi_pool"),
    "weights that the model writes": ("aten::embedding_renorm",),
}

RULES = tuple(Rule(operators, "0 -> 0", fixed, "fixed", reason) for reason, operators in _REASONS.items())
