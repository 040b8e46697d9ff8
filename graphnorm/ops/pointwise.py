"""Pointwise operators that keep some degree of homogeneity, and those on truth values."""

from __future__ import annotations

from fractions import Fraction

from graphnorm.ops.traits import ANY, Operator, Trait, family, row

BOUNDED = Trait.BOUNDED
COMMUTATIVE = Trait.COMMUTATIVE
COMPARES = Trait.COMPARES
COPIES = Trait.COPIES
FINITE = Trait.FINITE
LINEAR = Trait.LINEAR
LOGICAL = Trait.LOGICAL
MOVES = Trait.MOVES
MULTILINEAR = Trait.MULTILINEAR
NONNEGATIVE = Trait.NONNEGATIVE
POINTWISE = Trait.POINTWISE
RANDOM = Trait.RANDOM
WITHIN = Trait.WITHIN
COPY = POINTWISE | COPIES | LINEAR | WITHIN | FINITE
PRODUCT = POINTWISE | MULTILINEAR | FINITE

ROWS: dict[str, Operator] = {
    **family(
        "elementwise, homogeneous",
        row("Relu", 1, since=1, traits=POINTWISE | NONNEGATIVE | FINITE, degree=1),
        row("LeakyRelu", 1, since=1, traits=POINTWISE | FINITE, degree=1),
        row("Abs", 1, since=1, traits=POINTWISE | NONNEGATIVE | FINITE, degree=1),
        row("Neg", 1, since=1, traits=POINTWISE | LINEAR | FINITE, degree=1),
        row("Identity", 1, since=1, traits=COPY, degree=1),
        row("Dropout", 1, 3, since=1, traits=COPY | RANDOM, degree=1),
        row("Trilu", 1, 2, since=14, traits=MOVES | LINEAR | FINITE, degree=1),
        row("Sqrt", 1, since=1, traits=POINTWISE | NONNEGATIVE | FINITE, degree=Fraction(1, 2)),
        row("Reciprocal", 1, since=1, traits=POINTWISE, degree=-1),
        row("Pow", 2, since=1, traits=POINTWISE),
        row("Cast", 1, since=1, traits=POINTWISE | COPIES | WITHIN | FINITE),
        row("CastLike", 2, since=15, traits=POINTWISE | COPIES | WITHIN | FINITE),
        row("Clip", 1, 3, since=1, traits=POINTWISE),
        row("PRelu", 2, since=1, traits=POINTWISE | FINITE),
    ),
    **family(
        "sums and choices",
        row("Add", 2, since=1, traits=POINTWISE | LINEAR | COMMUTATIVE | FINITE, degree=1),
        row("Sum", 1, ANY, since=1, traits=POINTWISE | LINEAR | COMMUTATIVE | FINITE, degree=1),
        row("Sub", 2, since=1, traits=POINTWISE | LINEAR | FINITE, degree=1),
        row("Mean", 1, ANY, since=1, traits=POINTWISE | LINEAR | COMMUTATIVE | WITHIN | FINITE, degree=1),
        row("Max", 1, ANY, since=1, traits=POINTWISE | COMMUTATIVE | WITHIN | FINITE, degree=1),
        row("Min", 1, ANY, since=1, traits=POINTWISE | COMMUTATIVE | WITHIN | FINITE, degree=1),
        row("Mod", 2, since=10, traits=POINTWISE | FINITE, degree=1),
        row("Where", 3, since=9, traits=POINTWISE | WITHIN | FINITE, degree=1),
        row("Equal", 2, since=1, traits=POINTWISE | COMMUTATIVE | COMPARES, degree=0),
        row("Less", 2, since=1, traits=POINTWISE | COMPARES, degree=0),
        row("LessOrEqual", 2, since=12, traits=POINTWISE | COMPARES, degree=0),
        row("Greater", 2, since=1, traits=POINTWISE | COMPARES, degree=0),
        row("GreaterOrEqual", 2, since=12, traits=POINTWISE | COMPARES, degree=0),
        row("aten::atan2", 2, traits=POINTWISE | BOUNDED | FINITE, degree=0),
        row("Sign", 1, since=9, traits=POINTWISE | BOUNDED | FINITE, degree=0),
        row("IsNaN", 1, since=9, traits=POINTWISE | COMPARES, degree=0),
        row("IsInf", 1, since=10, traits=POINTWISE | COMPARES, degree=0),
    ),
    **family(
        "products",
        row("Mul", 2, since=1, traits=PRODUCT | COMMUTATIVE, degree=2, layer="Scale"),
        row("Div", 2, since=1, traits=POINTWISE, degree=0, layer="Scale"),
        row("SwiGLU", 2, since=28, traits=POINTWISE | FINITE),
    ),
    **family(
        "truth values and bits",
        row("And", 2, since=1, traits=POINTWISE | COMMUTATIVE | LOGICAL),
        row("Or", 2, since=1, traits=POINTWISE | COMMUTATIVE | LOGICAL),
        row("Xor", 2, since=1, traits=POINTWISE | COMMUTATIVE | LOGICAL),
        row("Not", 1, since=1, traits=POINTWISE | LOGICAL),
        row("BitwiseAnd", 2, since=18, traits=POINTWISE | COMMUTATIVE | LOGICAL),
        row("BitwiseOr", 2, since=18, traits=POINTWISE | COMMUTATIVE | LOGICAL),
        row("BitwiseXor", 2, since=18, traits=POINTWISE | COMMUTATIVE | LOGICAL),
        row("BitwiseNot", 1, since=18, traits=POINTWISE | LOGICAL),
        row("BitShift", 2, since=11, traits=POINTWISE | LOGICAL),
        row("BitCast", 1, since=26, traits=POINTWISE | LOGICAL),
    ),
}
