"""Operators that turn an infinity into a number: freedom ends there, unless their operand is finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import graphnorm
from graphnorm.frontends.torch.finite import Finite
from graphnorm.frontends.torch.infinities import settle_bounds
from graphnorm.ir import Array, Graph, Node, Value
from graphnorm.rescaling.graph import build
from graphnorm.scales.registry import Rule
from graphnorm.scales.rules.elementwise import degree
from graphnorm.scales.rules.table import default_registry

MOST = torch.finfo(torch.float32).max
Between = Callable[["Net", Tensor, Tensor], Tensor]


class Net(nn.Module):
    """A layer, something between, a layer."""

    gain: Tensor

    def __init__(self, between: Between) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("gain", torch.tensor([1.0, 2.0, 3.0, 4.0]))
        self.between = between

    def forward(self, x: Tensor, count: Tensor) -> Tensor:
        out: Tensor = self.last(self.between(self, self.first(x), count))
        return out


def dimension(between: Between, dtype: torch.dtype = torch.float32) -> int:
    torch.manual_seed(0)
    inputs = torch.randn(5, 3, dtype=dtype), torch.rand(5, 1, dtype=dtype) + 1
    return graphnorm.trace(Net(between).to(dtype), inputs).dimension


INFINITE: dict[str, Between] = {
    "quotient": lambda net, h, n: h / n,
    "quotient of magnitudes": lambda net, h, n: h / n.abs(),
    "quotient after relu": lambda net, h, n: h / torch.relu(n),
    "reciprocal": lambda net, h, n: h.reciprocal(),
    "inverse root": lambda net, h, n: torch.rsqrt(h.abs()),
    "negative power": lambda net, h, n: h.abs() ** -1.5,
    "exponential": lambda net, h, n: h * torch.exp(n),
    "logarithm": lambda net, h, n: h * torch.log(n),
    "moved": lambda net, h, n: torch.cat([h / n, h], 0).reshape(2, 5, 4).amax(0),
    "masked": lambda net, h, n: h.masked_fill(n > 1.5, float("inf")),
    "made finite at the end only": lambda net, h, n: torch.nan_to_num(h / n) * 1e-3,
    "a sum that may vanish": lambda net, h, n: h / (n.abs() - 1),
}
CUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "nan_to_num": torch.nan_to_num,
    "clamp": lambda t: torch.clamp(t, -MOST, MOST),
    "clamp below": lambda t: torch.clamp(t, min=-3.3e38),
    "hardtanh": lambda t: nn.functional.hardtanh(t, -3.2e38, 3.2e38),
    "one side": lambda t: torch.nan_to_num(t, posinf=0.0),
}


@pytest.mark.parametrize("made", INFINITE)
def test_no_freedom_passes_where_an_infinity_becomes_a_number(made: str) -> None:
    assert dimension(lambda net, h, n: torch.nan_to_num(INFINITE[made](net, h, n))) == 0


@pytest.mark.parametrize("cut", CUTS)
def test_every_bound_that_a_quotient_can_reach_is_one(cut: str) -> None:
    assert dimension(lambda net, h, n: CUTS[cut](h / n)) == 0
    assert dimension(lambda net, h, n: CUTS[cut](h)) == 4, "and none that a sum can reach"


@pytest.mark.parametrize("bound", [3.3e38, 1e300, 1.7e308, float(np.finfo(np.float64).max)])
def test_bounds_in_float64(bound: float) -> None:
    assert dimension(lambda net, h, n: torch.clamp(h / n, -bound, bound), torch.float64) == 0
    kept = 4 if bound > 1.6e308 else 0  # else an ordinary number
    assert dimension(lambda net, h, n: torch.clamp(h, -bound, bound), torch.float64) == kept


FINITE: dict[str, Between] = {
    "away from zero by a number": lambda net, h, n: h / (n.abs() + 1e-3),
    "by a clamp": lambda net, h, n: h / n.clamp(min=0.1),
    "by a maximum": lambda net, h, n: h / torch.maximum(n, torch.tensor(0.1)),
    "inverse root of squares": lambda net, h, n: h * torch.rsqrt(n.pow(2).mean(-1, keepdim=True) + 1e-6),
    "negative power": lambda net, h, n: h * (n * n + 1e-6) ** -0.5,
    "gate": lambda net, h, n: h * torch.sigmoid(n.reciprocal()),
    "divided by a gain": lambda net, h, n: h / net.gain,
    "attention": lambda net, h, n: torch.softmax(n @ n.T, -1) @ h,
    "normalised by a sum": lambda net, h, n: h / (torch.exp(n).clamp(max=9.0).sum(-1, keepdim=True) + 1),
    "infinities cut before": lambda net, h, n: h * torch.clamp(n.reciprocal(), -9, 9),
}


@pytest.mark.parametrize("made", FINITE)
def test_freedom_passes_where_nothing_can_be_infinite(made: str) -> None:
    plain = dimension(FINITE[made])
    assert plain > 0
    assert dimension(lambda net, h, n: torch.nan_to_num(FINITE[made](net, h, n))) == plain


def test_infinities_that_become_zero_may_be_scaled() -> None:
    assert dimension(lambda net, h, n: torch.nan_to_num(h / n, posinf=0.0, neginf=0.0)) == 4
    assert dimension(lambda net, h, n: torch.nan_to_num(h / n, posinf=0.0, neginf=1.0)) == 0


@pytest.mark.parametrize("cut", CUTS)
def test_canonicalising_keeps_what_infinities_become(cut: str) -> None:
    torch.manual_seed(1)
    model = Net(lambda net, h, n: CUTS[cut](h / n) * 1e-30).double()
    with torch.no_grad():
        model.first.weight.mul_(0.1)
    x, zero = torch.randn(3, 3).double(), torch.tensor([[1.0], [0.0], [2.0]]).double()
    with torch.no_grad():
        result = graphnorm.canonicalize(model, (x, zero + 1), verify=False)
        torch.testing.assert_close(result.model(x, zero), model(x, zero), rtol=1e-9, atol=0)


# ONNX: a bound that is left out is the largest number.


def clipped(
    opset: int, bounds: Mapping[str, float], *, quotient: bool, dtype: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    rng = np.random.default_rng(0)
    arrays = {
        "A": (rng.normal(size=(3, 4)) * 1e-3).astype(kind),
        "B": (rng.normal(size=(4, 2)) * 1e-3).astype(kind),
    }
    arrays |= {name: np.array(bound, kind) for name, bound in bounds.items() if opset >= 11}
    operands = [name if name in bounds else "" for name in ("min", "max")]
    clip: dict[str, Any] = {"inputs": ["q", *operands]} if opset >= 11 else {"inputs": ["q"], **bounds}
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["h"]),
        helper.make_node("Div" if quotient else "Mul", ["h", "n"], ["q"]),
        helper.make_node("Clip", outputs=["c"], **clip),
        helper.make_node("MatMul", ["c", "B"], ["y"]),
    ]
    shapes = {"x": [2, 3], "n": [2, 1], "y": [2, 2]}
    x, n, y = (helper.make_tensor_value_info(name, dtype, shape) for name, shape in shapes.items())
    held = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "clipped", [x, n], [y], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


BOUNDS: list[dict[str, float]] = [
    {},
    {"min": 0.0},
    {"max": 0.0},
    {"min": -3.4e38, "max": 3.4e38},
    {"max": 3.3e38},
]


@pytest.mark.parametrize("opset", [7, 11, 17])
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_onnx_clips(opset: int, bounds: dict[str, float]) -> None:
    if opset == 7 and "min" in bounds and "max" not in bounds:
        bounds = {"min": bounds["min"], "max": float(np.finfo(np.float32).max)}
    assert graphnorm.trace(clipped(opset, bounds, quotient=True)).dimension == 0
    assert graphnorm.trace(clipped(opset, bounds, quotient=False)).dimension == 4


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_onnx_clips_keep_their_function_where_a_count_is_zero(bounds: dict[str, float]) -> None:
    model = clipped(17, bounds, quotient=True)
    feed = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) + 1, "n": np.eye(2, 1, 1, dtype=np.float32)}
    after = graphnorm.canonicalize(model, verify=False).model
    (old,), (new,) = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, feed) for m in (model, after)
    )
    np.testing.assert_allclose(new, old, rtol=1e-4)


def test_true_infinities_are_no_bounds() -> None:
    bounds = {"min": 0.0, "max": np.inf}
    assert graphnorm.trace(clipped(17, bounds, quotient=True)).dimension == 4


@pytest.mark.parametrize("quotient", [True, False])
def test_half_precision_overflows_at_ordinary_values(quotient: bool) -> None:
    model = clipped(17, {"min": -65504.0, "max": 65504.0}, quotient=quotient, dtype=TensorProto.FLOAT16)
    assert graphnorm.trace(model).dimension == 0


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_check_proves_no_rescaling_across_an_infinity(dtype: int) -> None:
    for quotient, proved in ((True, False), (False, True)):
        most = float(np.finfo(helper.tensor_dtype_to_np_dtype(dtype)).max)
        a = clipped(17, {"min": -most, "max": most}, quotient=quotient, dtype=dtype)
        b = onnx.ModelProto.FromString(a.SerializeToString())
        for tensor, factor in zip(b.graph.initializer, (4.0, 0.25), strict=False):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.array(factor).astype(
                numpy_helper.to_array(tensor).dtype), tensor.name))  # fmt: skip
        assert (graphnorm.check(a, b, seconds=0.5).verdict == "proved") is proved


# The walk itself.


def graph_of(op: str, operands: int, array: Array | None = None, **attributes: Any) -> Graph:
    """One node on float inputs (the last of them an array, if one is given), cut at the largest number."""
    names = [f"x{i}" for i in range(operands)]
    constants = {"low": np.array(-MOST, np.float32)}
    if array is not None:
        constants[names.pop()] = array
    nodes = (
        Node("made", op, tuple(f"x{i}" for i in range(operands)), ("v",), attributes),
        Node("cut", "Clip", ("v", "low"), ("y",)),
    )
    held = {name: Value(name, data.shape, data.dtype.name) for name, data in constants.items()}
    values = {name: Value(name, (2, 2), "float32") for name in (*names, "v", "y")} | held
    return Graph("one", tuple(names), ("y",), nodes, values, {}, constants)


@pytest.mark.parametrize(
    ("op", "array", "finite"),
    [
        ("Div", np.array([[1, 2], [-3, 4]], np.float32), True),
        ("Div", np.array([[1, 0], [3, 4]], np.float32), False),
        ("Add", np.array([[1, np.inf], [3, 4]], np.float32), False),
        ("Mul", np.array([[1, MOST], [3, 4]], np.float32), False),
        ("Pow", np.float32(2), True),
        ("Pow", np.float32(-2), False),
        ("Max", np.float32(-np.inf), False),
        ("aten::unheard_of", np.float32(1), False),
    ],
)
def test_finite_operands(op: str, array: Array, finite: bool) -> None:
    graph = graph_of(op, 2, np.asarray(array))
    assert Finite(graph).holds("v") is finite
    assert (settle_bounds(graph).nodes[1].inputs[1] == "") is finite


def test_a_planted_rule_that_passes_large_bounds_changes_the_function() -> None:
    """The comparison of runs above would see it."""
    network = graphnorm.trace(clipped(17, {"min": -3.4e38, "max": 3.4e38}, quotient=True)).network
    registry = default_registry()
    planted = registry.replaced(Rule("x -> x", degree(Fraction(1)), "planted"), "Clip")
    assert build(network, registry).dimension == 0
    assert build(network, planted).dimension == 4
