"""ATen -> ONNX: distances between points."""

from __future__ import annotations

import numpy as np

from graphnorm.frontends.torch.aten.reduce import norm_of
from graphnorm.frontends.torch.call import Call, Number, axes_of, known_shape, rank
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import combined, taken, unsqueezed
from graphnorm.ir import Value

TABLE = Lowerings()


@TABLE.lowers("dist")
def dist(call: Call, x: Value, y: Value, p: Number = 2) -> None:
    apart = combined(call, "Sub", x, y)
    call.yields(norm_of(call, apart, float(p), axes_of(None, rank(apart)), keepdims=False))


@TABLE.lowers("cdist", "_cdist_forward")
def cdist(call: Call, x: Value, y: Value, p: float = 2.0, *_: object) -> None:
    """Of all pairs: ``[.., n, k], [.., m, k] -> [.., n, m]``."""
    apart = combined(call, "Sub", unsqueezed(call, x, [rank(x) - 1]), unsqueezed(call, y, [rank(y) - 2]))
    call.yields(norm_of(call, apart, float(p), [rank(apart) - 1], keepdims=False))


@TABLE.lowers("_euclidean_dist")
def euclidean_dist(call: Call, x: Value, y: Value) -> None:
    cdist(call, x, y)


@TABLE.lowers("pdist", "_pdist_forward")
def pdist(call: Call, x: Value, p: float = 2.0) -> None:
    """Of the pairs i < j of the rows of a matrix."""
    first, second = np.triu_indices(known_shape(x)[0], 1)
    apart = combined(call, "Sub", taken(call, x, first, 0), taken(call, x, second, 0))
    call.yields(norm_of(call, apart, float(p), [1], keepdims=False))
