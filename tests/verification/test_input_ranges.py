"""Which entries inputs may have, by what the graph does with them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphnorm
from graphnorm import ir
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.verification.inputs.battery import GIVEN, RANGED, Drawing, battery
from graphnorm.verification.inputs.ranges import Ranges, input_ranges

TABLE = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
INT64, FLOAT = TensorProto.INT64, TensorProto.FLOAT
Step = tuple[str, Sequence[str], str]


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, **attributes)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    arrays: Mapping[str, np.ndarray] | None = None,
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    """An ONNX model; its outputs' types are left open."""
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (arrays or {}).items()],
    )
    for output in made.output:
        output.type.tensor_type.elem_type = FLOAT
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def ranges(*args: object, **kwargs: object) -> Ranges:
    return input_ranges(read_onnx(graph(*args, **kwargs)))  # type: ignore[arg-type]


PICK = node("Gather", ["table", "i"], ["y"], axis=0)
# Steps from the input x to the index i, and what x may be.
CHAINS: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray], float, float]] = {
    "as it is": ([node("Identity", ["x"], ["i"])], {}, 0, 5),
    "reshaped": ([node("Reshape", ["x", "s"], ["i"])], {"s": np.array([2, 2])}, 0, 5),
    "less one": ([node("Sub", ["x", "c"], ["i"])], {"c": np.array(1)}, 1, 6),
    "from the end": ([node("Sub", ["c", "x"], ["i"])], {"c": np.array(5)}, 0, 5),
    "doubled": ([node("Mul", ["x", "c"], ["i"])], {"c": np.array(2)}, 0, 2.5),
    "negated": ([node("Neg", ["x"], ["i"])], {}, -5, 0),
    "clipped": (
        [node("Clip", ["x", "c", "d"], ["i"])], {"c": np.array(0), "d": np.array(5)}, -np.inf, np.inf,
    ),
    "clipped above": ([node("Min", ["x", "c"], ["i"])], {"c": np.array(3)}, 0, np.inf),
    "remainder": ([node("Mod", ["x", "c"], ["i"])], {"c": np.array(4)}, -np.inf, np.inf),
    "rectified": ([node("Relu", ["x"], ["i"])], {}, -np.inf, 5),
    "of a lookup": ([node("Gather", ["ids", "x"], ["i"])], {"ids": np.array([5, 0, 1])}, 0, 2),
    "a place": ([node("ArgMax", ["x"], ["i"], axis=0)], {}, -np.inf, np.inf),
    "wrapped": (
        [node("Less", ["x", "z"], ["m"]), node("Add", ["x", "n"], ["w"]),
         node("Where", ["m", "w", "x"], ["i"])],
        {"z": np.array(0), "n": np.array(6)}, 0, 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_an_index_is_followed_back_to_the_input(name: str) -> None:
    steps, arrays, low, high = CHAINS[name]
    found = ranges([*steps, PICK], {"x": (INT64, [4])}, {"table": TABLE, **arrays})
    assert (found.low[0] == low).all()
    assert (found.high[0] == high).all()
    assert not found.held[0].any()


def test_each_entry_has_the_range_of_its_own_table() -> None:
    nodes = [
        node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
        node("Gather", ["table", "a"], ["p"]),
        node("Gather", ["other", "b"], ["q"]),
        node("Add", ["p", "q"], ["y"]),
    ]
    found = ranges(nodes, {"x": (INT64, [3, 2])}, {"table": TABLE, "other": TABLE[:2]})
    assert found.high[0].tolist() == [[5, 1]] * 3
    assert [table.name for table in found.tables] == ["table", "other"]


def test_numbers_that_are_added_shift_each_column() -> None:
    """Fields that share one table, each with an offset of its own."""
    nodes = [node("Add", ["x", "offsets"], ["i"]), PICK]
    found = ranges(nodes, {"x": (INT64, [2, 3])}, {"table": TABLE, "offsets": np.array([0, 2, 5])})
    assert found.low[0].tolist() == [[0, -2, -5]] * 2
    assert found.high[0].tolist() == [[5, 3, 0]] * 2


def test_of_floats_only_those_that_are_cast_are_bounded() -> None:
    nodes = [
        node("Slice", ["x", "zero", "one", "one"], ["first"]),
        node("Cast", ["first"], ["i"], to=INT64),
        PICK,
        node("Mul", ["x", "x"], ["z"]),
    ]
    arrays = {"table": TABLE, "zero": np.array([0]), "one": np.array([1])}
    found = ranges(nodes, {"x": (FLOAT, [2, 3])}, arrays, outputs=["y", "z"])
    assert found.high[0].tolist() == [[5, np.inf, np.inf]] * 2


# What lies within a range of its own: operands -> limits of x.
SINKS: dict[str, tuple[list[onnx.NodeProto], list[int], dict[str, np.ndarray], list[float]]] = {
    "elements": ([node("GatherElements", ["table", "x"], ["y"], axis=1)], [6, 1], {}, [2]),
    "coordinates": ([node("GatherND", ["table", "x"], ["y"])], [4, 2], {}, [5, 2]),
    "written rows": ([node("ScatterND", ["table", "x", "u"], ["y"])], [4, 1], {"u": TABLE[:4]}, [5]),
    "classes": (
        [node("OneHot", ["x", "d", "v"], ["y"])],
        [4], {"d": np.array(7), "v": np.array([0, 1], np.float32)}, [6],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SINKS)
def test_operators_that_index_bound_their_operand(name: str) -> None:
    nodes, shape, arrays, most = SINKS[name]
    found = ranges(nodes, {"x": (INT64, shape)}, {"table": TABLE, **arrays})
    assert (found.low[0] == 0).all()
    assert (found.high[0] == np.broadcast_to(most, shape)).all()


def test_recurrent_layers_take_lengths_of_at_least_one() -> None:
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=(1, 4, 3)), "r": rng.normal(size=(1, 4, 4))}
    held = {name: array.astype(np.float32) for name, array in arrays.items()}
    nodes = [node("RNN", ["h", "w", "r", "", "n"], ["y"], hidden_size=4)]
    inputs = {"h": (FLOAT, [7, 2, 3]), "n": (TensorProto.INT32, [2])}
    found = ranges(nodes, inputs, held)
    assert found.low[1].tolist() == [1, 1]
    assert found.high[1].tolist() == [7, 7]


HELD = {
    "sizes of pieces": [node("Split", ["table", "x"], ["y", "z"], axis=0)],
    "a shape": [node("Reshape", ["table", "x"], ["y"])],
    "where a slice ends": [node("Slice", ["table", "zero", "x"], ["y"])],
    "running sums that index": [
        node("CumSum", ["x", "axis"], ["c"]), node("Gather", ["table", "c"], ["y"]),
    ],
    "sums of two that index": [node("Add", ["x", "x2"], ["c"]), node("Gather", ["table", "c"], ["y"])],
    "an operator that nobody knows": [helper.make_node("Odd", ["x"], ["y"], domain="some.where")],
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_what_decides_a_shape_or_is_unknown_stays_as_given(name: str) -> None:
    arrays = {"table": TABLE, "zero": np.array([0, 0]), "axis": np.array(0)}
    built = graph(HELD[name], {"x": (INT64, [2]), "x2": (INT64, [2])}, arrays)
    built.opset_import.append(helper.make_opsetid("some.where", 1))
    network = read_onnx(built)
    assert input_ranges(network).held[0].all()
    given = [np.array([4, 2]), np.array([0, 1])]
    for kind, arrays_ in battery(network, given, draws=3, wide=True):
        assert (arrays_[0] == given[0]).all(), kind


def test_masks_and_comparisons_leave_integers_free() -> None:
    nodes = [
        node("Equal", ["x", "pad"], ["m"]),
        node("Cast", ["m"], ["n"], to=INT64),
        node("CumSum", ["n", "axis"], ["c"]),
        node("Gather", ["table", "c"], ["y"]),
    ]
    found = ranges(nodes, {"x": (INT64, [4])}, {"table": TABLE, "pad": np.array(77), "axis": np.array(0)})
    assert not found.held[0].any()
    assert 77 in found.landmarks[0]


class TestDrawing:
    def network(self, kind: str, shape: Sequence[int] = (8,)) -> ir.Graph:
        return ir.Graph("g", ("x",), (), (), {"x": ir.Value("x", tuple(shape), kind)})

    @pytest.mark.parametrize("kind", ["uint8", "int8"])
    def test_eight_bits_are_drawn_in_full(self, kind: str) -> None:
        drawn = Drawing(self.network(kind, (500,)), None).draw("large")[0]
        assert drawn.dtype == kind
        assert int(drawn.max()) - int(drawn.min()) > 240

    def test_integers_have_signs_and_magnitudes(self) -> None:
        drawn = Drawing(self.network("int64", (500,)), None, wide=True).draw("large")[0]
        assert drawn.min() < -1000
        assert drawn.max() > 1000
        assert np.count_nonzero(np.abs(drawn) < 10) > 10

    @pytest.mark.parametrize("kind", ["float32", "int64", "bool", "bfloat16", "complex64"])
    def test_tensors_without_axes_are_arrays(self, kind: str) -> None:
        drawing = Drawing(self.network(kind, ()), None, wide=True)
        for name in ("normal", "sparse", "uniform", "zero"):
            for array in (
                drawing.draw(name)[0],
                drawing.near(drawing.draw(name), 0.5, np.random.default_rng(0))[0],
            ):
                assert isinstance(array, np.ndarray)
                assert array.shape == ()
                assert array.dtype.name == kind

    def test_rows_are_dealt_until_each_came_up(self) -> None:
        network = read_onnx(
            graph([node("Gather", ["table", "x"], ["y"])], {"x": (INT64, [2])}, {"table": TABLE})
        )
        drawing = Drawing(network, [np.array([1, 1])])
        drawn = [drawing.draw("normal")[0].tolist() for _ in range(3)]
        assert sorted(itertools.chain.from_iterable(drawn)) == [0, 1, 2, 3, 4, 5]

    def test_levels_bring_integers_back_to_the_example(self) -> None:
        given = np.array([3, 9, 3, 9, 5, 5, 5, 5])
        drawing = Drawing(self.network("int64"), [given], wide=True)
        assert drawing.draw("large")[0].max() > 9
        ranged = drawing.draw("large", levels=[RANGED])[0]
        assert ranged.min() >= 3
        assert ranged.max() <= 9
        assert (drawing.draw("large", levels=[GIVEN])[0] == given).all()

    def test_text_cannot_be_drawn(self) -> None:
        with pytest.raises(graphnorm.InputError, match="'x' holds string, of which none can be drawn"):
            Drawing(self.network("string"), None).draw("normal")

    def test_text_stays_as_given(self) -> None:
        given = np.array(["a", "b"], dtype=object)
        assert Drawing(self.network("string", (2,)), [given]).draw("normal")[0] is given
