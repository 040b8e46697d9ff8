"""Where labels go: the middle of what is padded, and axes that a spectrum mixes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from graphnorm.ir import Graph, Node, Value
from graphnorm.rescaling.graph import build
from graphnorm.scales.labels import FREE


def labels(
    op: str, shape: Sequence[int], result: Sequence[int], *constants: Any, **attributes: Any
) -> np.ndarray:
    """Of y = op(x g), where each entry of g has a scale of its own."""
    held = {f"c{i}": np.asarray(array) for i, array in enumerate(constants)}
    arrays = {name: np.ones(shape) for name in "xgh"} | {"y": np.ones(result), "z": np.ones(result)} | held
    nodes = (
        Node("h", "Mul", ("x", "g"), ("h",)),
        Node("y", op, ("h", *held), ("y",), attributes),
        Node("z", "Relu", ("y",), ("z",)),
    )
    values = {name: Value(name, array.shape, array.dtype.name) for name, array in arrays.items()}
    graph = build(Graph("g", ("x",), ("z",), nodes, values, {"g": arrays["g"]}, held))
    assert not graph.remarks
    return graph.scales.labels["y"]


@pytest.mark.parametrize(("before", "after", "start"), [(2, 6, 2), (2, 5, 1), (3, 9, 3), (3, 4, 0)])
def test_the_middle_of_what_is_padded(before: int, after: int, start: int) -> None:
    found = labels("CenterCropPad", (2, before), (2, after), [after], axes=[1])
    assert np.flatnonzero(found[0] != FREE).tolist() == list(range(start, start + before))
    assert len(np.unique(found[found != FREE])) == 2 * before


@pytest.mark.parametrize(("before", "after", "start"), [(5, 1, 2), (5, 2, 1), (9, 3, 3), (4, 3, 0)])
def test_the_middle_is_cut(before: int, after: int, start: int) -> None:
    found = labels("CenterCropPad", (1, before), (1, after), [after], axes=[1]).ravel()
    whole = labels("CenterCropPad", (1, before), (1, before), [before], axes=[1]).ravel()
    assert (found - whole[start : start + after] == 0).all()


def test_a_spectrum_mixes_its_axis_and_the_parts_of_numbers() -> None:
    """Without an axis: those that are the default of some opset."""
    assert labels("DFT", (2, 5, 3, 2), (2, 5, 3, 2)).shape == (2, 1, 1, 1)
    assert labels("DFT", (2, 5, 3, 4, 2), (2, 5, 3, 4, 2)).shape == (2, 1, 3, 1, 1)
