"""Each tolerance, from both sides: a pair just inside and just outside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from onnx import TensorProto

from graphnorm import ir
from graphnorm.alignment import matching
from graphnorm.alignment.normal import normalise
from graphnorm.api.sources import open_model
from graphnorm.certificates import verify
from graphnorm.certificates.file import Claims
from graphnorm.permutation import matching as permuting
from graphnorm.permutation import order
from graphnorm.permutation.symmetry import Symmetry
from graphnorm.proof.prove import attempt
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.rescaling.objective import build_problem
from graphnorm.solver import solve as solving
from graphnorm.solver.auto import auto
from graphnorm.solver.method import Limits, Run
from graphnorm.solver.problem import Problem
from graphnorm.solver.rounding import best_moves
from graphnorm.verification.anchor import Truth
from graphnorm.verification.certificate import check_certificate, violated_equation
from graphnorm.verification.measure import measure
from graphnorm.verification.runner import Reference
from graphnorm.weights.coefficients import LOG2, rescale
from graphnorm.weights.extremes import leaving_half, worth_running
from graphnorm.weights.underflow import underflowed
from tests.certificates.test_forgeries import branches, model, outgoing

KINDS = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
EPS = float(np.finfo(np.float32).eps)
SIDES = pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])


def chain(dtype: str = "float32", **held: Any) -> onnx.ModelProto:
    """One hidden channel: v relu(x w)."""
    nodes = [
        oh.make_node("MatMul", ["x", "w"], ["a"]),
        oh.make_node("Relu", ["a"], ["h"]),
        oh.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    weights = {"w": np.array([[1.0], [0.75], [0.5], [0.5]]), "v": np.array([[1.5]]), **held}
    kept = {name: np.asarray(array).astype(dtype) for name, array in weights.items()}
    return model(nodes, [2, 1], kept, KINDS[dtype])


def scaled(graph: RescalingGraph, scale: float, weight: str = "w") -> Any:
    """Label log-scales in which the coefficient of a weight is exp(scale)."""
    (demand,) = (d for d in graph.demands if d.weight == weight)
    sign = float(np.sign(graph.demand_scale(demand, graph.log_scales(np.ones(1))).ravel()[0]))
    return graph.log_scales(np.array([scale * sign]))


# The certificate.


@SIDES
@pytest.mark.parametrize("slack", [1.0, 8.0])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_new_weights_are_rounded_correctly(dtype: str, slack: float, inside: bool) -> None:
    """1 stays 1 under a coefficient that would take it a little less or more than half an ulp up."""
    graph = build(open_model(chain(dtype, w=np.ones((4, 1)))).network)
    half = float(np.finfo(dtype).eps) / 2
    x = scaled(graph, float(np.log1p(slack * half * (1 + (5e-7 if inside else 2e-6)))))
    weights = {**graph.network.weights, **rescale(graph, x[graph.solution.variables]).weights}
    weights["w"] = graph.network.weights["w"]
    found = check_certificate(graph, weights, x, slack=slack)
    assert found.valid == inside
    assert not found.exact
    assert found.worst_ulp == pytest.approx(slack, rel=1e-5)


@SIDES
def test_a_float64_product_is_itself_rounded(inside: bool) -> None:
    graph = build(open_model(chain("float64")).network)
    x = scaled(graph, 0.4)
    weights = {**graph.network.weights, **rescale(graph, x[graph.solution.variables]).weights}
    for _ in range(1 if inside else 2):
        weights["w"] = np.nextafter(weights["w"], np.inf)
    assert check_certificate(graph, weights, x).valid == inside


@SIDES
@pytest.mark.parametrize("large", [0.0, 3.0])
def test_equations_hold_to_a_billionth(large: float, inside: bool) -> None:
    graph = build(open_model(branches()).network)
    x = np.zeros(graph.scales.constraints.count)
    one, two = outgoing(graph, "w1"), outgoing(graph, "w2")
    x[[one[0], two[0]]] = large
    x[one[0]] += 1e-9 * (1 + large) * (0.999 if inside else 1.001)
    assert (violated_equation(graph, x) == "") == inside


@SIDES
def test_exponents_are_whole_to_a_millionth(inside: bool) -> None:
    graph = build(open_model(chain()).network)
    x = scaled(graph, LOG2 * (1 + (0.99e-6 if inside else 1.01e-6)))
    weights = {"w": 2 * graph.network.weights["w"], "v": graph.network.weights["v"] / 2}
    found = check_certificate(graph, weights, x, exact=True)
    assert found.valid == inside, found.failure
    assert ("not a power of two" in found.failure) == (not inside)


@SIDES
@pytest.mark.parametrize("units", [1.0, 2.0, 8.0])
def test_slices_change_by_half_ulps_below_the_normal_range(units: float, inside: bool) -> None:
    """In a certificate at most by two, whatever else is admitted."""
    least = float(np.finfo(np.float16).smallest_subnormal)
    change = min(units, 2.0) * float(np.finfo(np.float16).eps) / 2 * (1 + (5e-7 if inside else 2e-6))
    factor = 1000 * least / (1 - change)  # rounded down to 1000 * least, this loses `change` of 1
    old, new = np.ones((4, 1), np.float16), np.full((4, 1), 1000 * least, np.float16)
    if units <= 2:
        assert (underflowed(old, new, [np.full((1, 1), factor)], units) is None) == inside
    graph = build(open_model(chain("float16", w=old, v=np.zeros((1, 1)))).network)
    x = scaled(graph, float(np.log(factor)))
    found = check_certificate(graph, {"w": new, "v": np.zeros((1, 1), np.float16)}, x, slack=units)
    assert found.valid == inside
    assert ("loses what counts" in found.failure) == (not inside)


def test_the_same_weights_are_exact() -> None:
    graph = build(open_model(chain()).network)
    found = check_certificate(graph, graph.network.weights, scaled(graph, 0.0))
    assert (found.valid, found.exact, found.worst_ulp) == (True, True, 0.0)


# Certificates in files.


def claims(**changes: Any) -> Claims:
    given = Claims("", "", "", "", False, 2.0, 1.0, 0.0, 0.0, None, "")
    return replace(given, **changes)


@SIDES
@pytest.mark.parametrize("name", ["before", "after"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_objectives_agree_to_a_billionth(name: str, sign: int, inside: bool) -> None:
    graph = build(open_model(chain()).network)
    x = scaled(graph, 0.3)
    right = dict(zip(("before", "after"), verify._objectives(graph, x, 2.0, 1.0, False), strict=True))
    assert verify._wrong_objective(claims(**right), graph, x) == ""
    right[name] *= 1 + sign * (0.999e-9 if inside else 1.002e-9)
    failure = verify._wrong_objective(claims(**right), graph, x)
    assert failure.startswith("" if inside else f"objective {name}: ")
    assert bool(failure) != inside


@SIDES
def test_a_gap_is_confirmed_up_to_ten_times(inside: bool) -> None:
    graph = build(open_model(chain()).network)
    x = scaled(graph, 0.3)
    gap = solving.certified_gap(build_problem(graph, 2.0, 1.0, False), x[graph.solution.variables])
    assert gap > 1e-3
    said = verify._about_gap(claims(gap=gap / (9.999 if inside else 10.001)), graph, x)
    assert said.startswith("the objective is at most" if inside else "the gap is not verified")


@SIDES
def test_a_gap_of_a_billionth_is_none(inside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = build(open_model(chain()).network)
    monkeypatch.setattr(verify, "certified_gap", lambda problem, z: 0.999e-9 if inside else 1.001e-9)
    said = verify._about_gap(claims(gap=0.0), graph, scaled(graph, 0.3))
    assert said.startswith("the objective is at most" if inside else "the gap is not verified")


# The proof.


@SIDES
def test_proofs_admit_eight_half_ulps(inside: bool) -> None:
    """The coefficient follows from the largest entry, which stays; another one moves by whole ulps."""
    a, b = (open_model(chain()).network for _ in range(2))
    moved = b.weights["w"].copy()
    moved[1, 0] += (8 if inside else 10) * EPS / 4  # half an ulp of 0.75
    found = attempt(a, replace(b, weights={**b.weights, "w": moved}))
    assert (found.proof is not None) == inside
    assert found.proof is None or found.proof.certificate.worst_ulp == pytest.approx(8)


@SIDES
@pytest.mark.parametrize("double", [False, True])
def test_numbers_of_a_program_agree(double: bool, inside: bool) -> None:
    """Attributes and constants, relatively; more closely where something is computed in float64."""
    step = (1e-14 if double else 1e-6) * (0.95 if inside else 1.05)

    def network(factor: float) -> ir.Graph:
        held = open_model(model([oh.make_node("LeakyRelu", ["x"], ["y"])], [2, 4], {})).network
        node = replace(held.nodes[0], attributes={"alpha": 0.25 * factor})
        return replace(held, nodes=(node,))

    assert (matching.match(network(1), network(1 + step), double).failure == "") == inside
    close = matching._CLOSE_DOUBLE if double else matching._CLOSE
    assert matching.same_constant(np.array([0.25, 0.0]), np.array([0.25 * (1 + step), 0.0]), close) == inside


@SIDES
def test_a_factor_of_one_up_to_four_units_is_none(inside: bool) -> None:
    """Inverse numbers that meet leave no product behind."""
    nodes = [oh.make_node("Relu", ["x"], ["a"]), oh.make_node("Mul", ["a", "c"], ["y"])]
    constant = oh.make_node("Constant", [], ["c"], value_float=1 + EPS * (4 if inside else 5))
    form = normalise(open_model(model([constant, *nodes], [2, 4], {}, TensorProto.FLOAT)).network)
    assert ("Mul" not in [node.op for node in form.graph.nodes]) == inside


# Permutations.


@SIDES
def test_tensors_count_as_matched_within_a_hundredth(inside: bool) -> None:
    """Two rows are swapped: what is matched is left alone, what is not is matched by its entries."""
    first = np.array([[1.0, 0.0], [1.0, 0.0], [100.0, 100.0]])
    size = float(np.sqrt(np.mean(first**2)))
    first[0, 1] = (0.99e-2 if inside else 1.02e-2) * size * np.sqrt(3)
    second = first[[1, 0, 2]]
    allowed = Symmetry({0: 3}, {"w": (((0,),), ((1,),))}, {0: 3, 1: 2})
    places = permuting.occurrences(allowed)
    found = permuting._refined(allowed, {"w": first}, {"w": second}, places, {0: np.arange(3)})
    assert found[0].tolist() == ([0, 1, 2] if inside else [1, 0, 2])


@SIDES
def test_channels_are_in_order_up_to_a_millionth(inside: bool) -> None:
    key = np.array([0.0, 1.0, 1.0, 3.0])
    key[2] -= (0.999e-6 if inside else 1.001e-6) * float(key.std())
    assert (order._sorted(key) is None) == inside


# Measurements.


@dataclass
class Plain:
    """A model whose outputs are 1 and its errors, in units of float32's epsilon."""

    errors: Any
    tiny: float = 2.0
    device: str = "cpu"
    runtime: str = "numpy"
    remarks: tuple[str, ...] = ()

    def run(self, inputs: Any) -> list[ir.Array]:
        return [(1 + EPS * np.asarray(self.errors, dtype=np.float64)).astype(np.float32)]

    def reference(self) -> Reference:
        return Reference(Exact(), "float64")

    def nearby(self, seed: int, size: float | None) -> Plain:
        return self


class Exact:
    """The float64 run: 1, whatever the input."""

    def run(self, inputs: Any) -> list[ir.Array]:
        return [np.ones(100)]

    def shaken(self, inputs: Any, unit: float, seed: int) -> list[ir.Array]:
        return self.run(inputs)


def errors(size: float, last: float) -> ir.Array:
    return np.array([size] * 99 + [last])


INPUT = [np.ones(3, np.float32)]


@SIDES
def test_differences_are_within_three_times_the_noise(inside: bool) -> None:
    new: Any = Plain(errors(9, 8 if inside else 10))
    original: Any = Plain(errors(3, 3))
    assert measure(original, new, [("given", INPUT)]).agrees == inside


@SIDES
@pytest.mark.parametrize("tiny", [2.0, 16.0])
def test_a_few_units_of_rounding_are_no_difference(tiny: float, inside: bool) -> None:
    original: Any = Plain(errors(0, 0), tiny)
    new: Any = Plain(errors(tiny, tiny - 1 if inside else tiny + 1), tiny)
    assert measure(original, new, [("given", INPUT)]).agrees == inside


@SIDES
def test_an_anchor_within_four_units_is_believed(inside: bool) -> None:
    original: Any = Plain(errors(4, 3 if inside else 5))
    assert Truth(original)(INPUT, [original.run(INPUT)])[1] == inside


# Float16, and the solver.


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [(65504.0, 65505.0, True), (65504.0, 65504.0, False), (65505.0, 65506.0, False), (1.0, 65503.0, False)],
)
def test_what_leaves_the_range_of_float16(before: float, after: float, said: bool) -> None:
    assert bool(leaving_half({"weight": (before, after)})) == said
    assert not leaving_half({"coefficient": (before, after)})


@SIDES
def test_activations_are_looked_at_from_a_coefficient_of_a_hundred(inside: bool) -> None:
    graph = build(open_model(chain()).network)
    assert worth_running(graph, {"coefficient": (1.0, 100.0 if inside else 99.9)}) == inside


@SIDES
def test_activations_are_looked_at_up_to_half_a_gigabyte(inside: bool) -> None:
    graph = build(open_model(chain()).network)
    values = {"a": ir.Value("a", (1 << 13, (1 << 13) if inside else (1 << 13) + 1), "float32")}
    large = replace(graph, network=replace(graph.network, values=values))
    assert worth_running(large, {"coefficient": (1.0, 1e3)}) == inside


@SIDES
@pytest.mark.parametrize("way", [-1, 1])
def test_moves_gain_more_than_rounding(way: int, inside: bool) -> None:
    """From k = 0 with masses 1 + m and m, a move by one unit log((1 + m) / m) exchanges the two."""
    gain = 0.9e-12 if inside else 1.2e-12
    heavy, light = 3.0, 1.0
    spacing = np.log(heavy / light)
    heavy *= 1 + gain * (heavy + light) / (
        heavy * (1 - light / heavy)
    )  # d cost / d heavy = 1 - exp(-spacing)
    masses = np.array([heavy]), np.array([light])
    found = best_moves(*(masses if way < 0 else masses[::-1]), np.array([spacing]))
    assert found.tolist() == [0.0 if inside else float(way)]


@pytest.mark.parametrize("pair", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_nothing_moves_for_ever(pair: tuple[float, float]) -> None:
    rising, falling = (np.array([mass]) for mass in pair)
    assert best_moves(rising, falling, np.ones(1)).tolist() == [0.0]


def status(tol: float = 1e-8, imbalance: float = 0.0, **facts: Any) -> solving.Status:
    gap: float | None = facts.pop("gap", None)
    call = solving._Call(Limits(tol, 10), auto, None, None, "numpy", facts.pop("wanted", None), False)
    return solving._status(Run(facts.pop("cycles", 3), imbalance), call, np.zeros(1), 1.0, gap)


@SIDES
def test_converged_is_up_to_the_tolerance(inside: bool) -> None:
    assert (status(1e-8, 1e-8 if inside else 1.001e-8) is solving.Status.CONVERGED) == inside
    found = status(wanted=1e-6, gap=1e-6 if inside else 1.001e-6)
    assert (found is solving.Status.CONVERGED) == inside
    assert (status(imbalance=1.0, cycles=10 if inside else 9) is solving.Status.CYCLE_LIMIT) == inside


@SIDES
def test_sums_in_float32_carry_tolerances_down_to_their_rounding(
    inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = solving._solve

    def seen(problem: Problem, call: Any, dtype: Any, start: Any = None) -> solving.Solution:
        asked.append(dtype.name)
        return original(problem, call, dtype, start)

    monkeypatch.setattr(solving, "_solve", seen)
    graph = build(open_model(chain()).network)
    solving.solve(build_problem(graph, 2.0, 1.0, False), 5e-7 if inside else 4.9e-7)
    assert asked[0] == ("float32" if inside else "float64")
