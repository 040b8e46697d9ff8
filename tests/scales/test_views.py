"""Views against NumPy: chains of reshapes and transposes, and slices that are taken before them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from graphnorm.alignment.views import View, axis_of, whole

Array = npt.NDArray[np.int64]
SHAPES = [
    shape
    for n in (12, 24)
    for rank in (1, 2, 3, 4)
    for shape in itertools.product(range(1, n + 1), repeat=rank)
    if math.prod(shape) == n
]


def seen(view: View, array: Array) -> Array:
    return array.reshape(view.fine).transpose(view.perm).reshape(view.shape)


@st.composite
def views(draw: st.DrawFn) -> tuple[Array, View]:
    """A tensor and a view of it."""
    base = draw(st.sampled_from(SHAPES))
    array = np.arange(math.prod(base)).reshape(base)
    view = whole(base)
    expected = array
    for _ in range(draw(st.integers(0, 3))):
        shape = draw(st.sampled_from([s for s in SHAPES if math.prod(s) == array.size]))
        perm = draw(st.permutations(range(len(shape))))
        moved = view.reshaped(shape).transposed(perm)
        if moved is None:
            break
        view, expected = moved, expected.reshape(shape).transpose(perm)
    assert np.array_equal(seen(view, array), expected)
    return array, view


@settings(max_examples=500, deadline=None)
@given(views(), st.data())
def test_a_slice_is_taken_before_the_view(case: tuple[Array, View], data: st.DataObject) -> None:
    array, view = case
    axis = data.draw(st.integers(0, len(view.shape) - 1))
    start = data.draw(st.integers(0, view.shape[axis] - 1))
    stop = data.draw(st.integers(start + 1, view.shape[axis]))
    found = view.cut(axis, start, stop)
    if found is None:  # such as half of an axis that two others were merged to
        return
    early = array.reshape(-1, found.size, found.stride)[:, found.start : found.stop]
    region = (*(slice(None) for _ in range(axis)), slice(start, stop))
    assert np.array_equal(seen(found.view, early), seen(view, array)[region])
    place = axis_of(array.shape, found.size, found.stride)
    if place is not None:
        inner = math.prod(array.shape[place + 1 :])
        assert array.shape[place] % (found.size * (found.stride // inner)) == 0


def test_slices_of_heads_are_slices_of_columns() -> None:
    """Queries, keys and values: cut of the product, or of its heads after the transpose."""
    product = whole((1, 5, 24))
    columns = product.cut(2, 8, 16)
    heads = product.reshaped((1, 5, 3, 2, 4)).transposed((2, 0, 3, 1, 4))
    assert columns is not None
    assert heads is not None
    late = heads.cut(0, 1, 2)
    assert late is not None
    cuts = [(cut.size, cut.stride, cut.start, cut.stop) for cut in (columns, late)]
    assert cuts == [(3, 8, 1, 2)] * 2


def test_a_slice_across_merged_axes_stays_where_it_is() -> None:
    assert whole((4, 3)).reshaped((12,)).cut(0, 0, 8) is not None  # a run of memory
    turned = whole((4, 3)).transposed((1, 0))
    assert turned is not None
    assert turned.reshaped((12,)).cut(0, 0, 4) is not None
    assert turned.reshaped((12,)).cut(0, 0, 5) is None
