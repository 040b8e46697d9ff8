"""Pointwise functions with a scale of their own: they saturate, round or grow exponentially."""

from __future__ import annotations

from graphnorm.ops.traits import Operator, Trait, family, row

BOUNDED = Trait.BOUNDED
FINITE = Trait.FINITE
NONNEGATIVE = Trait.NONNEGATIVE
POINTWISE = Trait.POINTWISE
SATURATES = Trait.SATURATES

ROWS: dict[str, Operator] = {
    **family(
        "functions with a scale of their own",
        row("Sigmoid", 1, since=1, traits=POINTWISE | SATURATES | BOUNDED | NONNEGATIVE | FINITE),
        row("HardSigmoid", 1, since=1, traits=POINTWISE | SATURATES | BOUNDED | NONNEGATIVE | FINITE),
        row("Tanh", 1, since=1, traits=POINTWISE | SATURATES | BOUNDED | FINITE),
        row("Erf", 1, since=9, traits=POINTWISE | SATURATES | BOUNDED | FINITE),
        row("Sin", 1, since=7, traits=POINTWISE | SATURATES | BOUNDED | FINITE),
        row("Cos", 1, since=7, traits=POINTWISE | SATURATES | BOUNDED | FINITE),
        row("Atan", 1, since=7, traits=POINTWISE | SATURATES | BOUNDED | FINITE),
        row("Softsign", 1, since=1, traits=POINTWISE | SATURATES | BOUNDED | FINITE),
        row("Gelu", 1, since=20, traits=POINTWISE | SATURATES | FINITE),
        row("Swish", 1, since=24, traits=POINTWISE | SATURATES | FINITE),
        row("Mish", 1, since=18, traits=POINTWISE | SATURATES | FINITE),
        row("Elu", 1, since=1, traits=POINTWISE | SATURATES | FINITE),
        row("Selu", 1, since=1, traits=POINTWISE | SATURATES | FINITE),
        row("Celu", 1, since=12, traits=POINTWISE | SATURATES | FINITE),
        row("HardSwish", 1, since=14, traits=POINTWISE | SATURATES | FINITE),
        row("Shrink", 1, since=9, traits=POINTWISE | SATURATES | FINITE),
        row("ThresholdedRelu", 1, since=10, traits=POINTWISE | SATURATES | FINITE),
        row("Softplus", 1, since=1, traits=POINTWISE | SATURATES | NONNEGATIVE | FINITE),
        row("Floor", 1, since=1, traits=POINTWISE | SATURATES | FINITE),
        row("Ceil", 1, since=1, traits=POINTWISE | SATURATES | FINITE),
        row("Round", 1, since=11, traits=POINTWISE | SATURATES | FINITE),
        row("Exp", 1, since=1, traits=POINTWISE | SATURATES | NONNEGATIVE),
        row("Log", 1, since=1, traits=POINTWISE | SATURATES),
        row("Tan", 1, since=7, traits=POINTWISE | SATURATES),
        row("Asin", 1, since=7, traits=POINTWISE | SATURATES),
        row("Acos", 1, since=7, traits=POINTWISE | SATURATES),
        row("Sinh", 1, since=9, traits=POINTWISE | SATURATES),
        row("Cosh", 1, since=9, traits=POINTWISE | SATURATES),
        row("Asinh", 1, since=9, traits=POINTWISE | SATURATES),
        row("Acosh", 1, since=9, traits=POINTWISE | SATURATES),
        row("Atanh", 1, since=9, traits=POINTWISE | SATURATES),
        row("aten::erfinv", 1, traits=POINTWISE | SATURATES),
        row("aten::lgamma", 1, traits=POINTWISE | SATURATES),
        row("aten::digamma", 1, traits=POINTWISE | SATURATES),
        row("aten::polygamma", 1, traits=POINTWISE | SATURATES),
        row("aten::igamma", 2, traits=POINTWISE | SATURATES),
        row("aten::igammac", 2, traits=POINTWISE | SATURATES),
        row("aten::i0", 1, traits=POINTWISE | SATURATES),
        row("aten::special_i0e", 1, traits=POINTWISE | SATURATES),
        row("aten::special_i1", 1, traits=POINTWISE | SATURATES),
        row("aten::special_i1e", 1, traits=POINTWISE | SATURATES),
        row("aten::special_erfcx", 1, traits=POINTWISE | SATURATES),
        row("aten::special_ndtri", 1, traits=POINTWISE | SATURATES),
        row("aten::special_zeta", 2, traits=POINTWISE | SATURATES),
        row("aten::special_bessel_j0", 1, traits=POINTWISE | SATURATES),
        row("aten::special_bessel_j1", 1, traits=POINTWISE | SATURATES),
        row("aten::special_bessel_y0", 1, traits=POINTWISE | SATURATES),
        row("aten::special_bessel_y1", 1, traits=POINTWISE | SATURATES),
        row("aten::special_spherical_bessel_j0", 1, traits=POINTWISE | SATURATES),
        row("aten::nextafter", 2, traits=POINTWISE | SATURATES),
        row("aten::frexp", 1, traits=POINTWISE | SATURATES),
        row("com.microsoft::Gelu", 1, traits=POINTWISE | SATURATES),
        row("com.microsoft::QuickGelu", 1, traits=POINTWISE | SATURATES),
        row("com.microsoft::FastGelu", 1, 2, traits=POINTWISE | SATURATES),
        row("com.microsoft::BiasGelu", 2, traits=POINTWISE | SATURATES),
    ),
}
