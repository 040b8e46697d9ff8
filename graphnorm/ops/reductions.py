"""Pools, reductions, what runs along an axis, and what interpolates."""

from __future__ import annotations

from graphnorm.ops.traits import ANY, Operator, Trait, family, row

ALONG_AXIS = Trait.ALONG_AXIS
BOUNDED = Trait.BOUNDED
CHANNELS_FIRST = Trait.CHANNELS_FIRST
FINITE = Trait.FINITE
LINEAR = Trait.LINEAR
MOVES = Trait.MOVES
MULTILINEAR = Trait.MULTILINEAR
NONNEGATIVE = Trait.NONNEGATIVE
REDUCES = Trait.REDUCES
RESAMPLES = Trait.RESAMPLES
WITHIN = Trait.WITHIN
POOL = REDUCES | CHANNELS_FIRST
MEANS = LINEAR | WITHIN | FINITE

ROWS: dict[str, Operator] = {
    **family(
        "pools and reductions",
        row("MaxPool", 1, since=1, traits=POOL | FINITE, degree=1),
        row("AveragePool", 1, since=1, traits=POOL | LINEAR | FINITE, degree=1, title="AvgPool"),
        row("LpPool", 1, since=1, traits=POOL | NONNEGATIVE | FINITE, degree=1),
        row("GlobalAveragePool", 1, since=1, traits=MEANS | POOL, degree=1, title="AvgPool"),
        row("GlobalMaxPool", 1, since=1, traits=POOL | WITHIN | FINITE, degree=1, title="MaxPool"),
        row("GlobalLpPool", 1, since=1, traits=POOL | NONNEGATIVE | FINITE, degree=1),
        row("aten::adaptive_avg_pool", 1, traits=MEANS | POOL, degree=1, title="AvgPool"),
        row("aten::adaptive_max_pool", 1, traits=POOL | WITHIN | FINITE, degree=1, title="MaxPool"),
        row("aten::fractional_max_pool", 2, traits=POOL, degree=1),
        row("ReduceMean", 1, 2, since=1, traits=MEANS | REDUCES, degree=1),
        row("ReduceSum", 1, 2, since=1, traits=REDUCES | LINEAR | FINITE, degree=1),
        row("ReduceMax", 1, 2, since=1, traits=REDUCES | WITHIN | FINITE, degree=1),
        row("ReduceMin", 1, 2, since=1, traits=REDUCES | WITHIN | FINITE, degree=1),
        row("ReduceL1", 1, 2, since=1, traits=REDUCES | NONNEGATIVE | FINITE, degree=1),
        row("ReduceL2", 1, 2, since=1, traits=REDUCES | NONNEGATIVE | FINITE, degree=1),
        row("ReduceSumSquare", 1, 2, since=1, traits=REDUCES | NONNEGATIVE | FINITE, degree=2),
        row("ReduceProd", 1, 2, since=1, traits=REDUCES | FINITE),
        row("CumSum", 2, since=11, traits=ALONG_AXIS | LINEAR | FINITE, degree=1),
        row("TopK", 2, since=1, traits=ALONG_AXIS | WITHIN | FINITE, degree=1),
        row("ArgMax", 1, since=1, traits=ALONG_AXIS, degree=0),
        row("ArgMin", 1, since=1, traits=ALONG_AXIS, degree=0),
        row("aten::cummax", 1, traits=ALONG_AXIS | WITHIN | FINITE, degree=1),
        row("aten::cummin", 1, traits=ALONG_AXIS | WITHIN | FINITE, degree=1),
        row("CumProd", 2, since=26, traits=ALONG_AXIS | FINITE),
        row("aten::segment_reduce", 1, ANY, traits=ALONG_AXIS | REDUCES),
        row("Hardmax", 1, since=1, traits=ALONG_AXIS | BOUNDED | NONNEGATIVE | FINITE, degree=0),
    ),
    **family(
        "interpolation and sampling",
        row("Resize", 1, 4, since=10, traits=RESAMPLES | CHANNELS_FIRST | FINITE),
        row("Upsample", 2, since=1, traits=RESAMPLES | CHANNELS_FIRST | LINEAR | FINITE, degree=1),
        row("GridSample", 2, since=16, traits=RESAMPLES | CHANNELS_FIRST | FINITE),
        row("MaxRoiPool", 2, since=1, traits=RESAMPLES | CHANNELS_FIRST | FINITE),
        row("RoiAlign", 3, since=10, traits=RESAMPLES | CHANNELS_FIRST | FINITE),
        row("MaxUnpool", 2, 3, since=9, traits=RESAMPLES | CHANNELS_FIRST | LINEAR | FINITE, degree=1),
        row("Col2Im", 3, since=18, traits=RESAMPLES | LINEAR | FINITE, degree=1),
        row("DFT", 1, 3, since=17, traits=ALONG_AXIS | LINEAR | FINITE, degree=1),
        row("STFT", 2, 4, since=17, traits=RESAMPLES | MULTILINEAR | FINITE),
        row("CenterCropPad", 2, since=18, traits=MOVES | LINEAR | FINITE, degree=1),
        row("torchvision::ps_roi_align", 2, traits=RESAMPLES | CHANNELS_FIRST),
        row("torchvision::ps_roi_pool", 2, traits=RESAMPLES | CHANNELS_FIRST),
    ),
}
