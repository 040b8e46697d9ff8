"""Movement of scales against the same movement of one number per entry, and what size 1 means."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphnorm.scales.labels import FREE, PINNED, squeeze_constant_axes
from graphnorm.scales.scale_array import ScaleArray, concat
from graphnorm.util.typing import Array, Shape

RESHAPES = [
    ((2, 3, 4), (6, 4)),
    ((6, 4), (2, 3, 4)),
    ((2, 12), (4, 6)),
    ((1, 3, 1), (3,)),
    ((3,), (1, 3, 1)),
    ((4, 1, 3), (4, 3, 1)),
    ((0, 3), (3, 0)),
]
EMPTY = np.zeros((2, 0), dtype=np.int64)
MOVES: list[tuple[str, Shape, Callable[[ScaleArray], ScaleArray], Callable[[Array], Array]]] = [
    *(
        (f"reshape {old} {new}", old, lambda s, new=new: s.reshape(new), lambda a, new=new: a.reshape(new))
        for old, new in RESHAPES
    ),
    ("transpose", (2, 3, 1), lambda s: s.transpose((2, 0, 1)), lambda a: a.transpose(2, 0, 1)),
    ("expand", (3, 1), lambda s: s.expand((2, 3, 4)), lambda a: np.broadcast_to(a, (2, 3, 4))),
    ("tile", (2, 1, 3), lambda s: s.tile((2, 3, 1)), lambda a: np.tile(a, (2, 3, 1))),
    ("take", (3, 2), lambda s: s.take(np.array([[2, 0]]), 0), lambda a: np.take(a, [[2, 0]], 0)),
    ("take of size 1", (1, 2), lambda s: s.take(np.array([0, 0]), 0), lambda a: a[[0, 0]]),
    ("take a number", (3,), lambda s: s.take(np.array(1), 0), lambda a: np.asarray(a[1])),
    ("take nothing", (3, 2), lambda s: s.take(EMPTY, 1), lambda a: np.take(a, EMPTY, 1)),
    ("region", (5, 2), lambda s: s.region((slice(4, 0, -2), slice(1, 2))), lambda a: a[4:0:-2, 1:2]),
    ("empty region of size 1", (1, 2), lambda s: s.region((slice(1, 9), slice(None))), lambda a: a[1:9]),
    (
        "pad", (2, 1, 3), lambda s: s.pad((0, 1, -1), (1, 2, 1), PINNED),
        lambda a: np.pad(a[..., 1:], ((0, 1), (1, 2), (0, 1)), constant_values=PINNED),
    ),
    (
        "pad an axis of size 1 with zeros", (2, 1), lambda s: s.pad((0, 0), (0, 2), FREE),
        lambda a: np.pad(a, ((0, 0), (0, 2)), constant_values=FREE),
    ),
    ("crop an axis of size 1", (2, 1), lambda s: s.pad((0, -1), (0, 0), FREE), lambda a: a[:, 1:]),
    (
        "concat", (2, 1), lambda s: concat([s, s.tile((1, 3))], 1),
        lambda a: np.concatenate([a, np.tile(a, (1, 3))], 1),
    ),
    ("squeeze", (2, 2), ScaleArray.squeeze, lambda a: a),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "move", "same"), [row[1:] for row in MOVES], ids=[row[0] for row in MOVES])
def test_movement_is_that_of_entries(
    shape: Shape, move: Callable[[ScaleArray], ScaleArray], same: Callable[[Array], Array]
) -> None:
    rng = np.random.default_rng(0)
    for mask in np.ndindex(*(2,) * len(shape)):  # which axes the scale varies along
        own = tuple(n if keep else 1 for n, keep in zip(shape, mask, strict=True))
        scale = ScaleArray(rng.integers(0, 50, own), shape)
        moved, expected = move(scale), same(np.broadcast_to(scale.labels, shape))
        assert moved.shape == expected.shape
        assert (moved.entries() == expected).all()


def test_an_axis_along_which_nothing_varies_stays_so() -> None:
    scale = ScaleArray(np.arange(3).reshape(3, 1), (3, 4))
    for moved in (
        scale.reshape((3, 2, 2)),
        scale.tile((1, 2)),
        scale.region((slice(None), slice(0, 2))),
        scale.take(np.array([3, 1]), 1),
        scale.pad((0, 1), (0, 1), FREE),
    ):
        assert moved.labels.size == 3
    assert concat([scale, scale], 1).labels.shape == (3, 1)
    assert scale.reshape((12,)).labels.shape == (12,)
    assert scale.along([1]).shape == (3, 4)
    assert squeeze_constant_axes(scale.entries()).tolist() == scale.labels.tolist()


@pytest.mark.parametrize(("sizes", "shape"), [((3,), (3, 1)), ((2, 3), (2, 4)), ((2,), (1,)), ((1, 1), (4,))])
def test_labels_of_another_form_are_refused(sizes: Shape, shape: Shape) -> None:
    with pytest.raises(ValueError, match="for a tensor of shape"):
        ScaleArray(np.zeros(sizes, dtype=np.int64), shape)
