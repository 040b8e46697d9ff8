"""The normal form of a network: the same network with exporters' and optimisers' rewrites undone.

Identity, dropout and casts to the same type go; reshapes and transposes are merged, and slices taken before
them; what is computed from weights alone is evaluated; BatchNorm, gains and biases are folded into the layer
before; Gemm is MatMul and Add; layer, group and instance norms, GELU, SiLU and attention are written in
elementary operators; all arguments are written out.  As functions of reals, network and normal form are the
same.
"""

from __future__ import annotations

from graphnorm import ir
from graphnorm.alignment import elementwise, layers, masking, movement
from graphnorm.alignment.builder import Normal
from graphnorm.alignment.folding import fold
from graphnorm.alignment.lowering import lower

FAMILIES = (elementwise, layers, masking, movement)  # modules that register lowerings


def normalise(network: ir.Graph, numbers: bool = False) -> Normal:
    """The normal form; with `numbers`, gains of one entry are moved like numbers of the program."""
    return fold(lower(network, numbers))
