"""Operators that move entries, and those that join graphs: gathering, scattering, control flow, sequences."""

from __future__ import annotations

from graphnorm.ops.traits import ANY, Operator, Trait, family, row

ALONG_AXIS = Trait.ALONG_AXIS
CHANNELS_FIRST = Trait.CHANNELS_FIRST
FINITE = Trait.FINITE
GLUE = Trait.GLUE
LINEAR = Trait.LINEAR
MOVES = Trait.MOVES
READS_SHAPE = Trait.READS_SHAPE
REGIONS = Trait.REGIONS
SEQUENCE = Trait.SEQUENCE
WITHIN = Trait.WITHIN
WRITES = Trait.WRITES

ROWS: dict[str, Operator] = {
    **family(
        "data movement",
        row("Reshape", 2, since=1, traits=MOVES | LINEAR | WITHIN | FINITE, degree=1),
        row("Flatten", 1, since=1, traits=MOVES | LINEAR | WITHIN | FINITE, degree=1),
        row("Squeeze", 1, 2, since=1, traits=MOVES | LINEAR | WITHIN | FINITE, degree=1),
        row("Unsqueeze", 2, since=1, traits=MOVES | LINEAR | WITHIN | FINITE, degree=1),
        row("Transpose", 1, since=1, traits=MOVES | LINEAR | WITHIN | FINITE, degree=1),
        row("Gather", 2, since=1, traits=MOVES | LINEAR | WITHIN | FINITE, degree=1, layer="Embedding"),
        row("Slice", 3, 5, since=1, traits=MOVES | LINEAR | WITHIN | FINITE, degree=1),
        row("Split", 1, 2, since=1, traits=MOVES | LINEAR | WITHIN | FINITE, degree=1),
        row("Expand", 2, since=8, traits=MOVES | LINEAR | WITHIN | FINITE, degree=1),
        row("Tile", 2, since=1, traits=MOVES | LINEAR | WITHIN | FINITE, degree=1),
        row("DepthToSpace", 1, since=1, traits=MOVES | LINEAR | WITHIN | FINITE | CHANNELS_FIRST, degree=1),
        row("SpaceToDepth", 1, since=1, traits=MOVES | LINEAR | WITHIN | FINITE | CHANNELS_FIRST, degree=1),
        row("Concat", 1, ANY, since=1, traits=MOVES | ALONG_AXIS | LINEAR | WITHIN | FINITE, degree=1),
        row("Shape", 1, since=1, traits=READS_SHAPE),
        row("Size", 1, since=1, traits=READS_SHAPE),
        row("EyeLike", 1, since=9, traits=READS_SHAPE | FINITE),
        row("Pad", 2, 4, since=1, traits=MOVES),
    ),
    **family(
        "gather and scatter",
        row("GatherElements", 2, since=11, traits=MOVES | LINEAR | WITHIN | FINITE, degree=1),
        row("GatherND", 2, since=11, traits=MOVES | LINEAR | WITHIN | FINITE, degree=1),
        row("ScatterElements", 3, since=11, traits=WRITES | FINITE),
        row("Scatter", 3, since=9, traits=WRITES | FINITE),
        row("ScatterND", 3, since=11, traits=WRITES | FINITE),
        row("TensorScatter", 2, 3, since=24, traits=WRITES | LINEAR | FINITE, degree=1),
        row("Compress", 2, since=9, traits=MOVES | LINEAR | WITHIN | FINITE, degree=1),
        row("ReverseSequence", 2, since=10, traits=MOVES | LINEAR | WITHIN | FINITE, degree=1),
        row("graphnorm::Route", 2, traits=GLUE | LINEAR | WITHIN | FINITE, degree=1),
    ),
    **family(
        "control flow",
        row("graphnorm::Choice", 3, traits=GLUE | LINEAR | WITHIN | FINITE, degree=1),
        row("graphnorm::State", 1, traits=GLUE),
        row("graphnorm::Carried", 2, traits=GLUE),
        row("graphnorm::Iterate", 1, traits=GLUE | LINEAR | WITHIN | FINITE, degree=1),
        row("graphnorm::Stack", 1, traits=GLUE | LINEAR | WITHIN | FINITE, degree=1),
        row("graphnorm::Control", 0, ANY, traits=GLUE),
        row("If", 1, since=1, traits=REGIONS),
        row("Loop", 2, ANY, since=1, traits=REGIONS),
        row("Scan", 1, ANY, since=8, traits=REGIONS),
        row("SequenceMap", 1, ANY, since=17, traits=REGIONS),
    ),
    **family(
        "sequences and optional values",
        row("SequenceAt", 2, since=11, traits=SEQUENCE),
        row("SequenceConstruct", 1, ANY, since=11, traits=SEQUENCE),
        row("SequenceEmpty", 0, since=11, traits=SEQUENCE),
        row("SequenceErase", 1, 2, since=11, traits=SEQUENCE),
        row("SequenceInsert", 2, 3, since=11, traits=SEQUENCE),
        row("SequenceLength", 1, since=11, traits=SEQUENCE),
        row("SplitToSequence", 1, 2, since=11, traits=SEQUENCE),
        row("ConcatFromSequence", 1, since=11, traits=SEQUENCE),
        row("Optional", 0, 1, since=15, traits=SEQUENCE),
        row("OptionalGetElement", 1, since=15, traits=SEQUENCE),
        row("OptionalHasElement", 0, 1, since=15, traits=SEQUENCE),
    ),
}
