"""What may be said of an operator: traits, and the row that holds them.

Traits are facts of mathematics, as those of MLIR and xDSL: they say what an operator is, and no analysis
is mentioned in them.  Rules for whole classes of operators are registered by trait (`rules`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from fractions import Fraction


class Trait(enum.Flag):
    """A fact about an operator.  x stands for its operands, entries are those of tensors.

    "Finite operands" and the like are meant over the reals: nothing overflows.
    """

    POINTWISE = enum.auto()
    """Each entry of a result depends on the entries of the broadcast operands at the same place."""
    UNARY = enum.auto()
    """One operand.  Follows from the row's number of operands."""
    HOMOGENEOUS = enum.auto()
    """f(c x) = c f(x) for c > 0, all float operands scaled at once.  Follows from degree 1."""
    LINEAR = enum.auto()
    """f(x + y) = f(x) + f(y) in all float operands at once."""
    MULTILINEAR = enum.auto()
    """Linear in each of two or more operands (apart from a bias), the others kept."""
    COMMUTATIVE = enum.auto()
    """Operands may change places."""
    SATURATES = enum.auto()
    """Pointwise, and homogeneous of no degree: the function has a scale of its own."""
    COMPARES = enum.auto()
    """Truth values, found by comparing operands entry by entry."""
    LOGICAL = enum.auto()
    """Pointwise, on truth values or bits."""
    COPIES = enum.auto()
    """The result is operand 0, as it is or as another type of numbers."""
    MOVES = enum.auto()
    """Entries of operand 0 at other places, or zeros; where they come from depends on other operands,
    sizes and attributes only."""
    WRITES = enum.auto()
    """A copy of operand 0 with entries written into it."""
    REDUCES = enum.auto()
    """Many entries become one: along whole axes, or window by window."""
    ALONG_AXIS = enum.auto()
    """Entries mix along one axis, which an argument names; the others are batches."""
    CONTRACTS = enum.auto()
    """Sums products of two operands along common axes."""
    NORMALISES = enum.auto()
    """Divides entries by a norm, a deviation or a sum of them."""
    CHANNELS_FIRST = enum.auto()
    """Axis 1 of operand 0 holds channels."""
    RESAMPLES = enum.auto()
    """Interpolates, pools or folds entries at computed places."""
    RECURRENT = enum.auto()
    """Runs over time steps with a state."""
    ATTENDS = enum.auto()
    """Sums values with weights that queries and keys decide, or prepares these."""
    WITHIN = enum.auto()
    """Entries of float results lie between the least and the largest entry of the float operands."""
    BOUNDED = enum.auto()
    """Results lie in a fixed interval, whatever the operands."""
    NONNEGATIVE = enum.auto()
    """Results are at least 0."""
    FINITE = enum.auto()
    """Finite operands give finite results, whatever the attributes."""
    READS_SHAPE = enum.auto()
    """Of operand 0 only the shape is read."""
    GENERATES = enum.auto()
    """Makes a tensor that depends on sizes, attributes and a few numbers."""
    RANDOM = enum.auto()
    """May draw random numbers."""
    REGIONS = enum.auto()
    """Has bodies: graphs that it runs."""
    GLUE = enum.auto()
    """Joins a body to the graph around it (graphnorm's domain)."""
    DISCRETE = enum.auto()
    """Counts, sets, chosen places or a number for the host."""
    QUANTISED = enum.auto()
    """Computes with rounded integers and their steps."""
    COMPLEX = enum.auto()
    """Complex numbers."""
    ALGEBRA = enum.auto()
    """Decompositions, solutions and determinants of matrices."""
    LOSS = enum.auto()
    """Compares a prediction with labels."""
    SEQUENCE = enum.auto()
    """Sequences and optional values."""
    TEXT = enum.auto()
    """Strings."""


NONE = Trait(0)


@dataclass(frozen=True, slots=True)
class Operator:
    """A row of the table.

    Attributes:
        name: ``Conv``; of other domains than ONNX's ``domain::name``.
        heading: the group of operators that people look for it in.
        traits: facts.
        operands: least and largest number of operands; None: as many as one likes.
        since: the opset of ONNX that brought it; None outside ONNX.
        degree: k if f(c x) = c^k f(x) for all c > 0, all float operands scaled at once; None if there is
            no such k or it depends on attributes, values or on which operands are there.
        title: what people call it.
        layer: what people call it where it multiplies by a weight.
    """

    name: str
    heading: str
    traits: Trait
    operands: tuple[int, int | None]
    since: int | None
    degree: Fraction | None
    title: str
    layer: str

    def has(self, traits: Trait) -> bool:
        """Whether it has all of these traits."""
        return traits in self.traits

    def has_any(self, traits: Trait) -> bool:
        """Whether it has one of these traits."""
        return bool(traits & self.traits)


ANY = -1
"""As many operands as one likes."""


def row(
    name: str,
    least: int,
    most: int | None = None,
    *,
    since: int | None = None,
    traits: Trait = NONE,
    degree: Fraction | int | None = None,
    title: str = "",
    layer: str = "",
) -> Operator:
    """A row without heading; `most` is `least` if it isn't given."""
    most = least if most is None else most
    if (least, most) == (1, 1):
        traits |= Trait.UNARY
    if degree == 1:
        traits |= Trait.HOMOGENEOUS
    title = title or name.rpartition("::")[2]
    exact = None if degree is None else Fraction(degree)
    return Operator(
        name, "", traits, (least, None if most == ANY else most), since, exact, title, layer or title
    )


def family(heading: str, *rows: Operator) -> dict[str, Operator]:
    """Rows under one heading, by name."""
    return {one.name: replace(one, heading=heading) for one in rows}
