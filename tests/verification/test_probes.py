"""Inputs are run on the original first: what it refuses or overflows on is mended or left out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import graphnorm
from graphnorm import ir
from graphnorm.errors import RunError
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.verification.inputs.battery import Drawing, kinds
from graphnorm.verification.inputs.probes import Probes
from graphnorm.verification.inputs.reach import Suspect, differing_rows, filled, unpicked
from graphnorm.verification.measure import Judge, measure
from graphnorm.verification.runner import Reference
from graphnorm.verification.search import find_difference
from tests.verification.test_input_ranges import FLOAT, INT64, TABLE, graph, node

Function = Callable[..., np.ndarray]


class Fake:
    """A model that is a function of arrays."""

    device, tiny, runtime, remarks = "fake", 2.0, "NumPy", ()

    def __init__(self, function: Function) -> None:
        self.function = function

    def run(self, inputs: Sequence[ir.Array]) -> list[ir.Array]:
        return [np.asarray(self.function(*inputs))]

    def reference(self) -> Reference:
        return Reference(self, "itself")

    def shaken(self, inputs: Sequence[ir.Array], unit: float, seed: int) -> list[ir.Array]:
        return self.run(inputs)

    def nearby(self, seed: int, size: float | None) -> Fake:
        return self


def network(**inputs: tuple[tuple[int, ...], str]) -> ir.Graph:
    values = {name: ir.Value(name, shape, kind) for name, (shape, kind) in inputs.items()}
    return ir.Graph("g", tuple(inputs), (), (), values)


def probes(
    graph_: ir.Graph, function: Function, example: list[ir.Array] | None = None, draws: int = 2
) -> Probes:
    return Probes(Drawing(graph_, example, wide=True), Fake(function), kinds(draws, wide=True))


def adds_up(x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Takes lengths that add up to the rows."""
    if lengths.min() < 0 or lengths.sum() != len(x):
        raise RunError("lengths must add up to the rows")
    return np.repeat(np.arange(len(lengths)), lengths) * x


LENGTHS = network(x=((6,), "float32"), lengths=((3,), "int64"))


class TestRefusals:
    def test_integers_that_are_refused_are_those_of_the_example(self) -> None:
        given = [np.ones(6, np.float32), np.array([1, 2, 3])]
        found = probes(LENGTHS, adds_up, given)
        assert [kind for kind, _ in found] == ["given", *kinds(2, wide=True)]
        assert all((arrays[1] == [1, 2, 3]).all() for _, arrays in found)
        assert not all((arrays[0] == given[0]).all() for _, arrays in found[1:])
        assert len(found.remarks) == 1
        assert "'lengths'" in found.remarks[0]
        assert "must add up" in found.remarks[0]

    def test_without_an_example_valid_ones_are_found(self) -> None:
        found = probes(LENGTHS, adds_up)
        assert len(found) == len(kinds(2, wide=True))
        assert all(arrays[1].sum() == 6 for _, arrays in found)

    def test_other_integers_go_on_being_drawn(self) -> None:
        def function(x: np.ndarray, lengths: np.ndarray, ids: np.ndarray) -> np.ndarray:
            return adds_up(x, lengths) + ids.sum()

        both = network(x=((6,), "float32"), lengths=((3,), "int64"), ids=((4,), "int64"))
        given = [np.ones(6, np.float32), np.array([1, 2, 3]), np.array([1, 1, 2, 1])]
        found = probes(both, function, given)
        large = [arrays[2] for kind, arrays in found if kind == "large"]
        assert max(np.abs(ids).max() for ids in large) > 100
        assert "'ids'" not in "".join(found.remarks)

    def test_what_is_always_refused_leaves_nothing(self) -> None:
        def refuses(x: np.ndarray) -> np.ndarray:
            raise RunError("never")

        found = probes(network(x=((2,), "float32")), refuses)
        assert len(found) == 0
        assert "left out, because the original refuses them (never)" in found.remarks[0]

    def test_an_example_that_is_refused_is_an_error(self) -> None:
        with pytest.raises(RunError, match="add up"):
            len(probes(LENGTHS, adds_up, [np.ones(6, np.float32), np.array([1, 1, 1])]))

    def test_a_machine_out_of_memory_is_no_refusal(self) -> None:
        def full(x: np.ndarray) -> np.ndarray:
            try:
                raise MemoryError
            except MemoryError as error:
                raise RunError("no memory") from error

        with pytest.raises(RunError, match="no memory"):
            len(probes(network(x=((2,), "float32")), full))

    def test_a_new_model_that_refuses_an_input_differs(self) -> None:
        def picky(x: np.ndarray) -> np.ndarray:
            if np.abs(x).max() > 20:
                raise RunError("too large")
            return x

        x = network(x=((8,), "float32"))
        found = probes(x, lambda x: x)
        measured = measure(Fake(lambda x: x), Fake(picky), found)
        assert not measured.agrees
        assert "refused on large input: too large" in measured.failure


class TestOverflow:
    def overflows(self, x: np.ndarray) -> np.ndarray:
        return np.where(np.abs(x) > 10, np.inf, x)

    def test_inputs_are_scaled_down(self) -> None:
        found = probes(network(x=((64,), "float32")), self.overflows)
        assert all(np.abs(arrays[0]).max() <= 10 for _, arrays in found)
        assert len(found) == len(kinds(2, wide=True))
        assert found.remarks == ("scaled down, because the original overflows on them: 2 large",)

    def test_infinities_that_are_part_of_the_function_stay(self) -> None:
        def function(x: np.ndarray) -> np.ndarray:
            with np.errstate(divide="ignore"):
                return np.log(np.maximum(x, 0))

        found = probes(network(x=((64,), "float32")), function)
        assert len(found) == len(kinds(2, wide=True))
        assert found.remarks == ()

    def test_integers_give_way_before_floats_shrink(self) -> None:
        def function(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
            return np.where(np.abs(mask) > 1, np.inf, x)

        given = [np.ones(8, np.float32), np.array([0, 1, 1, 0, 1, 1, 1, 0])]
        found = probes(network(x=((8,), "float32"), mask=((8,), "int64")), function, given)
        assert all(0 <= arrays[1].min() <= arrays[1].max() <= 1 for _, arrays in found)
        assert max(np.abs(arrays[0]).max() for _, arrays in found) > 10


class TestRows:
    def model(self, table: np.ndarray) -> ir.Graph:
        return read_onnx(graph([node("Gather", ["t", "i"], ["y"])], {"i": (INT64, [3])}, {"t": table}))

    def test_rows_beyond_a_common_factor_differ(self) -> None:
        factors = np.array([2, 0.5, 3], np.float32)
        other = TABLE * factors
        other[[1, 4], 2] *= np.float32(1.001)
        a, b = self.model(TABLE), self.model(other)
        drawing = Drawing(a, None)
        (found,) = differing_rows(a, b, drawing.ranges, Drawing(b, None).ranges)
        assert found.table.name == "t"
        assert found.rows.tolist() == [1, 4]
        same = self.model(TABLE * factors)
        assert differing_rows(a, same, drawing.ranges, Drawing(same, None).ranges) == []

    def test_rows_that_no_input_picks_are_named(self) -> None:
        a = self.model(TABLE)
        ranges = Drawing(a, None).ranges
        suspect = Suspect(ranges.tables[0], np.array([1, 4]))
        assert unpicked([suspect], ranges, [[np.array([0, 1, 2])]])[0].rows.tolist() == [4]
        assert unpicked([suspect], ranges, [[np.array([0, 1, 2])], [np.array([4, 4, 4])]]) == []

    def test_an_input_can_pick_one_row_alone(self) -> None:
        a = self.model(TABLE)
        ranges = Drawing(a, None).ranges
        assert filled(ranges.tables[0], 4, ranges, [np.array([0, 1, 2])])[0].tolist() == [4, 4, 4]


class Bag(nn.Module):
    """Numbers of categories, as floats, beside plain numbers; only the last row counts."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.a, self.o = nn.Embedding(70, 5), nn.Linear(2, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.table(x[:, 0].long()) + self.a(x[:, 1:]))
        result: torch.Tensor = self.o(hidden)[-1]
        return result


@pytest.mark.parametrize("row", [0, 33, 69])
def test_one_row_of_a_table_that_floats_pick_is_found(row: int) -> None:
    torch.manual_seed(0)
    a = Bag()
    b = copy.deepcopy(a)
    with torch.no_grad():
        b.table.weight[row] += 1
    example = torch.cat([torch.randint(1, 20, (6, 1)), torch.randn(6, 2)], dim=1)
    report = graphnorm.check(a, b, (example,), seconds=1)
    assert report.verdict == "differs"
    assert report.counterexample is not None
    with torch.no_grad():
        x = torch.from_numpy(report.counterexample["x"])
        assert (a(x) - b(x)).abs().max() > 1e-3


def test_the_search_changes_integers() -> None:
    graph_ = network(i=((3,), "int64"))
    one, two = Fake(lambda i: i % 1000), Fake(lambda i: np.where(np.abs(i) > 5000, i % 999, i % 1000))
    found = Probes(Drawing(graph_, [np.array([1, 2, 3])], wide=True), one, ["small"])
    parted, tried = find_difference(Judge(one, two), found, seconds=20)
    assert parted is not None
    assert np.abs(parted[0]).max() > 5000
    assert tried > 0


def weighted(kind: int, of_weights: Sequence[int | str], by: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """A perceptron over T rows whose results meet a second input."""
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal((4, 5)), "v": rng.standard_normal((5, 3))}
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "v"], ["z"]),
        *by,
    ]
    numbers = {"last": np.array([-1]), "zero": np.array(0), "one": np.array(1)}
    held = {**{name: array.astype(np.float32) for name, array in arrays.items()}, **numbers}
    return graph(nodes, {"x": (FLOAT, ["T", 4]), "s": (kind, of_weights)}, held)


ROWS_WEIGHTED = [node("Unsqueeze", ["s", "last"], ["u"]), node("Mul", ["z", "u"], ["y"])]
CUT = [node("Range", ["zero", "s", "one"], ["i"]), node("Gather", ["z", "i"], ["y"], axis=0)]


@pytest.mark.parametrize("sizes", [{}, {"x": (5, 4)}, {"s": (5,)}, {"x": (5, 4), "s": (5,)}], ids=str)
def test_sizes_given_for_some_inputs_suit_the_others(sizes: dict[str, tuple[int, ...]]) -> None:
    report = graphnorm.canonicalize(weighted(FLOAT, ["U"], ROWS_WEIGHTED), input_shapes=sizes).report
    assert report.verification.verdict == "proved"
    assert report.verification.measurement is not None
    assert report.remarks == ()


@pytest.mark.parametrize(
    ("kind", "by"), [(FLOAT, [node("Mul", ["z", "s"], ["y"])]), (INT64, CUT)], ids=["factor", "length"]
)
def test_inputs_without_axes_are_measured(kind: int, by: Sequence[onnx.NodeProto]) -> None:
    built = weighted(kind, [], by)
    result = graphnorm.canonicalize(built)
    assert result.report.verification.measurement is not None
    assert graphnorm.check(built, result.model, seconds=1).equivalent


def test_a_model_that_takes_nothing_that_is_tried_rests_on_its_proof() -> None:
    """Rows picked far beyond the table, whatever the input is."""
    far = [
        node("Mul", ["s", "zero"], ["k"]),
        node("Add", ["k", "far"], ["j"]),
        node("Gather", ["z", "j"], ["g"], axis=0),
        node("Add", ["g", "z"], ["y"]),
    ]
    built = weighted(INT64, [], far)
    built.graph.initializer.append(numpy_helper.from_array(np.array(10**6), "far"))
    result = graphnorm.canonicalize(built, input_shapes={"x": (3, 4)})
    assert result.report.verification.verdict == "proved"
    assert result.report.verification.measurement is None
    assert "it was not measured" in result.report.remarks[-1]
    report = graphnorm.check(built, result.model, input_shapes={"x": (3, 4)})
    assert report.verdict == "proved"
    assert "no input was found that A takes" in " ".join(report.remarks)
