"""Contractions, attention, recurrent layers, norms, losses and their quantised forms."""

from __future__ import annotations

from graphnorm.ops.traits import ANY, Operator, Trait, family, row

ALONG_AXIS = Trait.ALONG_AXIS
ATTENDS = Trait.ATTENDS
BOUNDED = Trait.BOUNDED
CHANNELS_FIRST = Trait.CHANNELS_FIRST
CONTRACTS = Trait.CONTRACTS
FINITE = Trait.FINITE
LOSS = Trait.LOSS
MULTILINEAR = Trait.MULTILINEAR
NONNEGATIVE = Trait.NONNEGATIVE
NORMALISES = Trait.NORMALISES
QUANTISED = Trait.QUANTISED
RECURRENT = Trait.RECURRENT
REDUCES = Trait.REDUCES
RESAMPLES = Trait.RESAMPLES

ROWS: dict[str, Operator] = {
    **family(
        "contractions",
        row("MatMul", 2, since=1, traits=CONTRACTS | MULTILINEAR | FINITE, degree=2, layer="Linear"),
        row("Gemm", 2, 3, since=1, traits=CONTRACTS | MULTILINEAR | FINITE, layer="Linear"),
        row("Conv", 2, 3, since=1, traits=CONTRACTS | MULTILINEAR | CHANNELS_FIRST | FINITE),
        row("ConvTranspose", 2, 3, since=1, traits=CONTRACTS | MULTILINEAR | CHANNELS_FIRST | FINITE),
        row("DeformConv", 3, 5, since=19, traits=CONTRACTS | RESAMPLES | CHANNELS_FIRST | FINITE),
        row("CausalConvWithState", 2, 4, since=27, traits=CONTRACTS | RECURRENT | CHANNELS_FIRST | FINITE),
        row("Einsum", 1, ANY, since=12, traits=CONTRACTS | MULTILINEAR | FINITE),
    ),
    **family(
        "attention",
        row("Attention", 3, 7, since=23, traits=ATTENDS),
        row("RotaryEmbedding", 3, 4, since=23, traits=ATTENDS | FINITE),
        row("LinearAttention", 3, 6, since=27, traits=ATTENDS | RECURRENT | FINITE),
        row("com.microsoft::RotaryEmbedding", 4, traits=ATTENDS),
    ),
    **family(
        "recurrent layers",
        row("RNN", 3, 6, since=1, traits=RECURRENT | FINITE),
        row("LSTM", 3, 8, since=1, traits=RECURRENT | FINITE),
        row("GRU", 3, 6, since=1, traits=RECURRENT | FINITE),
        row("aten::lstm_projected", 3, 8, traits=RECURRENT | FINITE),
        row("aten::lstm", 1, ANY, traits=RECURRENT),
        row("aten::gru", 1, ANY, traits=RECURRENT),
        row("aten::rnn_tanh", 1, ANY, traits=RECURRENT),
        row("aten::rnn_relu", 1, ANY, traits=RECURRENT),
    ),
    **family(
        "normalisation",
        row("BatchNormalization", 5, since=1, traits=NORMALISES | CHANNELS_FIRST, title="BatchNorm"),
        row("LayerNormalization", 2, 3, since=17, traits=NORMALISES, title="LayerNorm"),
        row("RMSNormalization", 2, since=23, traits=NORMALISES, title="RMSNorm"),
        row("GroupNormalization", 3, since=18, traits=NORMALISES | CHANNELS_FIRST, title="GroupNorm"),
        row("InstanceNormalization", 3, since=1, traits=NORMALISES | CHANNELS_FIRST, title="InstanceNorm"),
        row("LpNormalization", 1, since=1, traits=NORMALISES | ALONG_AXIS, degree=0),
        row("Softmax", 1, since=1, traits=NORMALISES | ALONG_AXIS | BOUNDED | NONNEGATIVE | FINITE),
        row("LogSoftmax", 1, since=1, traits=NORMALISES | ALONG_AXIS | FINITE),
        row("LRN", 1, since=1, traits=NORMALISES | CHANNELS_FIRST),
        row("MeanVarianceNormalization", 1, since=9, traits=NORMALISES),
        row("ReduceLogSum", 1, 2, since=1, traits=REDUCES),
        row("ReduceLogSumExp", 1, 2, since=1, traits=REDUCES),
        row("com.microsoft::EmbedLayerNormalization", 7, 9, traits=NORMALISES),
    ),
    **family(
        "losses",
        row("NegativeLogLikelihoodLoss", 2, 3, since=12, traits=LOSS),
        row("SoftmaxCrossEntropyLoss", 2, 3, since=12, traits=LOSS),
        row("aten::_ctc_loss", 2, 4, traits=LOSS),
    ),
    **family(
        "quantised",
        row("QuantizeLinear", 2, 3, since=10, traits=QUANTISED),
        row("DequantizeLinear", 2, 3, since=10, traits=QUANTISED),
        row("DynamicQuantizeLinear", 1, since=11, traits=QUANTISED),
        row("ConvInteger", 2, 4, since=10, traits=QUANTISED | CHANNELS_FIRST),
        row("QLinearConv", 8, 9, since=10, traits=QUANTISED | CHANNELS_FIRST),
        row("MatMulInteger", 2, 4, since=10, traits=QUANTISED),
        row("QLinearMatMul", 8, since=10, traits=QUANTISED),
        row("aten::_int_mm", 2, traits=QUANTISED),
        row("aten::_weight_int8pack_mm", 3, traits=QUANTISED),
        row("aten::_weight_int4pack_mm", 3, traits=QUANTISED),
        row("aten::_scaled_mm", 2, 6, traits=QUANTISED),
        row("com.microsoft::GatherBlockQuantized", 3, 4, traits=QUANTISED),
    ),
}
