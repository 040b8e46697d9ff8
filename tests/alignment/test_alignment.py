"""Normal forms: what they bring together, and what they must keep apart."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from graphnorm.alignment.normal import normalise
from graphnorm.api.sources import open_model
from graphnorm.proof.prove import attempt


class Function(nn.Module):
    """A function of x, a weight and a bias."""

    def __init__(
        self, body: Callable[[Tensor, Tensor, Tensor], Tensor], dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 4, generator=generator).to(dtype))
        self.bias = nn.Parameter(torch.randn(4, generator=generator).to(dtype))
        self._body = body

    def forward(self, x: Tensor) -> Tensor:
        return self._body(x, self.weight, self.bias)


Body = Callable[[Tensor, Tensor, Tensor], Tensor]


def proved(one: Body, two: Body, dtype: torch.dtype = torch.float32, shape: Sequence[int] = (2, 4)) -> str:
    """``proved`` or why not."""
    x = torch.randn(*shape, dtype=dtype)
    a, b = (open_model(Function(body, dtype).eval(), x).network for body in (one, two))
    found = attempt(a, b)
    return "proved" if found.proof is not None or found.identical else found.note


def centred(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    h = x @ w
    h = h - h.mean(1, True)
    return h / (h * h).mean(1, True).add(1e-3).sqrt() * b + b


def attention(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    mask = torch.ones(2, 2).tril().bool()
    q = (x @ w).reshape(1, 1, 2, 4)
    return F.scaled_dot_product_attention(q, q * b, q, mask)


def guarded(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    q = (x @ w).reshape(1, 1, 2, 4)
    kept = x.new_zeros(2, 2).masked_fill(torch.ones(2, 2).triu(1).bool(), -torch.inf)
    shares = torch.softmax(q @ (q * b).transpose(2, 3) / 2 + kept, -1)
    return torch.where(shares.isnan(), 0.0, shares) @ q


def heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(1, 2), -1) @ v


def cut_heads(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Heads are made of all columns, then cut into queries, keys and values."""
    return heads(
        *torch.cat([x @ w, x @ w * b, x @ w + b], 1).reshape(4, 3, 2, 2).permute(1, 2, 0, 3).unbind()
    )


def cut_columns(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    both = torch.cat([x @ w, x @ w * b, x @ w + b], 1)
    return heads(*(both[:, i : i + 4].reshape(4, 2, 2).transpose(0, 1) for i in (0, 4, 8)))


EQUAL: dict[str, tuple[Body, Body]] = {
    "linear": (lambda x, w, b: F.linear(x, w, b), lambda x, w, b: x @ w.t() + b),
    "gelu": (lambda x, w, b: F.gelu(x + b), lambda x, w, b: (y := x + b) * 0.5 * (1 + torch.erf(y / 2**0.5))),
    "silu": (lambda x, w, b: F.silu(x + b), lambda x, w, b: (y := x + b) * torch.sigmoid(y)),
    "scores": (lambda x, w, b: (x @ w) / 8, lambda x, w, b: (x / 8) @ w),
    "order": (lambda x, w, b: F.relu(x @ w) + x, lambda x, w, b: x + F.relu(x @ w)),
    "two biases": (lambda x, w, b: x @ w + (b + b), lambda x, w, b: (x @ w + b) + b),
    "gain": (lambda x, w, b: (x @ w) * b, lambda x, w, b: x @ (w * b)),
    "flat": (lambda x, w, b: x.reshape(2, 2, 2).reshape(2, 4) @ w, lambda x, w, b: x @ w),
    "layer norm": (lambda x, w, b: F.layer_norm(x @ w, (4,), b, b, 1e-3), centred),
    "guarded attention": (attention, guarded),
    "cut": (cut_heads, cut_columns),
}
SHAPES = {"cut": (4, 4)}


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_brought_together(name: str, dtype: torch.dtype) -> None:
    one, two = EQUAL[name]
    shape = SHAPES.get(name, (2, 4))
    assert proved(one, two, dtype, shape) == "proved"
    assert proved(two, one, dtype, shape) == "proved"


def test_numbers_held_as_weights() -> None:
    """An optimiser that folds constants leaves initializers of one entry."""
    root = float(np.sqrt(0.5))
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32) + 1, "w")
    half, roots = (numpy_helper.from_array(np.full(1, value, np.float32), "half") for value in (0.5, root))
    number = oh.make_node(
        "Constant", [], ["half"], value=numpy_helper.from_array(np.asarray(0.5, np.float32))
    )
    scores = [oh.make_node("MatMul", ["x", "w"], ["h"]), oh.make_node("Transpose", ["h"], ["t"], perm=[1, 0])]
    after = [oh.make_node("MatMul", ["h", "t"], ["s"]), oh.make_node("Mul", ["s", "half"], ["m"])]
    before = [
        oh.make_node("Mul", ["h", "half"], ["q"]), oh.make_node("Mul", ["t", "half"], ["k"]),
        oh.make_node("MatMul", ["q", "k"], ["m"]),
    ]  # fmt: skip
    last = oh.make_node("Softmax", ["m"], ["y"], axis=1)
    written = {
        "number": ([number, *scores, *after, last], [weight]),
        "weight": ([*scores, *after, last], [weight, half]),
        "two roots": ([*scores, *before, last], [weight, roots]),
        "two halves": ([*scores, *before, last], [weight, half]),
    }
    values = [
        oh.make_tensor_value_info("x", TensorProto.FLOAT, [3, 4]),
        oh.make_tensor_value_info("y", TensorProto.FLOAT, [3, 3]),
    ]
    networks = {
        name: open_model(
            oh.make_model(oh.make_graph(nodes, "g", values[:1], values[1:], held),
                          opset_imports=[oh.make_opsetid("", 18)], ir_version=8)
        ).network
        for name, (nodes, held) in written.items()
    }  # fmt: skip
    for name in ("weight", "two roots"):
        assert attempt(networks["number"], networks[name]).proof is not None, name
        assert attempt(networks[name], networks["number"]).proof is not None, name
    assert attempt(networks["number"], networks["two halves"]).proof is None
    assert attempt(networks["two roots"], networks["two halves"]).proof is None


def rounded(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return x @ w.to(torch.bfloat16).to(x.dtype)


def masked(scores: Tensor) -> Tensor:
    """Every other row is filled with -inf."""
    return torch.softmax(scores + torch.tensor([0.0, -torch.inf]).repeat(2)[:, None].expand(4, 4), -1)


def scores(x: Tensor, w: Tensor, empty: Tensor) -> Tensor:
    """Scores with rows of -inf."""
    return (x @ w).reshape(1, 1, 4, 4) + empty


def kept_finite(shares: Tensor) -> Tensor:
    return torch.where(shares.isnan(), 0.0, shares)


HALF = torch.tensor([0.0, 0.0, -torch.inf, -torch.inf])
OTHER = torch.tensor([-torch.inf, -torch.inf, 0.0, 0.0])
GUARDS: dict[str, Body] = {
    "along columns": lambda x, w, b: torch.softmax(scores(x, w, HALF), -2),
    "factor behind the mask": lambda x, w, b: torch.softmax(scores(x, w, HALF[:, None]) * 0.5, -1),
    "product behind the mask": lambda x, w, b: torch.softmax(scores(x, w, HALF[:, None]) @ w.abs(), -1),
    "two masks": lambda x, w, b: torch.softmax(scores(x, w, HALF) + OTHER, -1),
}


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_stays_where_a_mask_may_leave_nothing(name: str) -> None:
    body = GUARDS[name]
    assert proved(body, lambda x, w, b: kept_finite(body(x, w, b)), shape=(4, 4)) != "proved"
    assert proved(body, body, shape=(4, 4)) == "proved"


APART: dict[str, tuple[Body, Body]] = {
    "a bound or none": (lambda x, w, b: (x @ w).clamp(-1), lambda x, w, b: (x @ w).clamp(-1, 1e6)),
    "no scores": (
        lambda x, w, b: F.scaled_dot_product_attention(q := (x @ w)[None, None], q, q, scale=0.0),
        lambda x, w, b: F.scaled_dot_product_attention(q := (x @ w)[None, None], q, q),
    ),
    "rounded weights": (rounded, lambda x, w, b: x @ w),
    "draws": (
        lambda x, w, b: torch.rand_like(x) - torch.rand_like(x),
        lambda x, w, b: (r := torch.rand_like(x)) - r,
    ),
    "transposed": (lambda x, w, b: x @ w, lambda x, w, b: x @ w.t()),
    "mean over another axis": (
        lambda x, w, b: (x @ w).mean(0),
        lambda x, w, b: (x @ w).mean(1)[[0, 1, 0, 1]],
    ),
    "gelu": (lambda x, w, b: F.gelu(x), lambda x, w, b: F.gelu(x, approximate="tanh")),
    "leaky": (lambda x, w, b: F.leaky_relu(x @ w), lambda x, w, b: F.leaky_relu(x @ w, 0.02)),
    "softmax axis": (lambda x, w, b: F.softmax(x @ w, 0), lambda x, w, b: F.softmax(x @ w, 1)),
    "gain of another axis": (
        lambda x, w, b: (x.reshape(4, 4) @ w) * b,
        lambda x, w, b: (x.reshape(4, 4) @ w) * b[:, None],
    ),
    "bias before": (lambda x, w, b: F.relu(x @ w) + b, lambda x, w, b: F.relu(x @ w + b)),
    "operands of a difference": (lambda x, w, b: x @ w - x, lambda x, w, b: x - x @ w),
    "order of a view": (lambda x, w, b: x.reshape(4, 4).t() @ w, lambda x, w, b: x.reshape(4, 4) @ w),
    "a guard that matters": (
        lambda x, w, b: masked(x @ w),
        lambda x, w, b: torch.where((s := masked(x @ w)).isnan(), 0.0, s),
    ),
    "slice": (lambda x, w, b: (x @ w)[..., :2], lambda x, w, b: (x @ w)[..., 1:3]),
}


@pytest.mark.parametrize("name", APART)
def test_kept_apart(name: str) -> None:
    one, two = APART[name]
    assert proved(one, two, shape=(4, 4)) != "proved"
    assert proved(one, one, shape=(4, 4)) == "proved"


NUMBERS: dict[str, tuple[Body, Body]] = {
    "scale": (lambda x, w, b: (x @ w) * 1.0, lambda x, w, b: (x @ w) * (1 + 1e-8)),
    "constant": (lambda x, w, b: x @ w + 0.1, lambda x, w, b: x @ w + (0.1 + 1e-9)),
    "epsilon": (
        lambda x, w, b: F.layer_norm(x, (4,), b, b, 0.1),
        lambda x, w, b: F.layer_norm(x, (4,), b, b, 0.1 + 1e-9),
    ),
    "slope": (lambda x, w, b: F.leaky_relu(x, 0.1), lambda x, w, b: F.leaky_relu(x, 0.1 + 1e-9)),
    "bound": (lambda x, w, b: x.clamp(-1, 1), lambda x, w, b: x.clamp(-1, 1 + 1e-9)),
    "weight": (lambda x, w, b: (x @ w) * 2, lambda x, w, b: x @ (w * 2 * (1 + 1e-9))),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_a_float64_model_count_to_the_last_digits(name: str) -> None:
    one, two = NUMBERS[name]
    assert proved(one, two, torch.float64) != "proved"
    assert proved(one, one, torch.float64) == "proved"


def single(nodes: list[Any], opset: int, shape: Sequence[Any], out: Sequence[Any]) -> onnx.ModelProto:
    weight = numpy_helper.from_array(
        np.random.default_rng(0).standard_normal((3, 3, 1, 1)).astype(np.float32), "w"
    )
    values = [
        oh.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in (("x", shape), ("y", out))
    ]
    graph = oh.make_graph(nodes, "g", values[:1], values[1:], [weight])
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", opset)], ir_version=8)


def windows(size: Any) -> list[onnx.ModelProto]:
    conv = oh.make_node("Conv", ["x", "w"], ["h"])
    pool = oh.make_node("AveragePool", ["h"], ["y"], kernel_shape=[4, 4])
    everything = oh.make_node("GlobalAveragePool", ["h"], ["y"])
    out = 1 if size == 4 else "m"
    return [
        single([conv, node], 13, [1, 3, size, size], [1, 3, o, o])
        for node, o in ((pool, out), (everything, 1))
    ]


def test_a_window_over_everything_only_where_sizes_are_fixed() -> None:
    one, two = (open_model(model).network for model in windows(4))
    assert attempt(one, two).proof is not None
    one, two = (open_model(model, input_shapes={"x": (1, 3, 4, 4)}).network for model in windows("n"))
    assert attempt(one, two).proof is None


def test_old_softmax_flattens() -> None:
    node = oh.make_node("Softmax", ["x"], ["y"], axis=1)
    old, new = (open_model(single([node], opset, [2, 3, 4], [2, 3, 4])).network for opset in (11, 13))
    found = attempt(old, new)
    assert found.proof is None
    assert not found.identical
    node = oh.make_node("Softmax", ["x"], ["y"], axis=2)
    old, new = (open_model(single([node], opset, [2, 3, 4], [2, 3, 4])).network for opset in (11, 13))
    assert attempt(old, new).proof is not None


def test_computed_weights_that_are_not_finite_prove_nothing() -> None:
    def infinite(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return (x @ w) / (b - b)

    assert "not finite" in proved(infinite, lambda x, w, b: (x @ w) * (1 / (b - b)))


def tiny(x: Tensor, factor: Tensor) -> Tensor:
    return torch.relu(torch.relu(x) * torch.full_like(factor, 1e-200) * factor)


@pytest.mark.parametrize("entries", [1, 4])
def test_products_that_underflow_prove_nothing(entries: int) -> None:
    """Factors that meet in the normal form, but not in the model: there x may be large."""

    def one(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return tiny(x, w.new_full((entries,), 1e-200)) * b

    def two(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return tiny(x, w.new_full((entries,), 3e-200)) * 1.0 * b

    x, b = torch.full((2, 4), 1e300, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    assert torch.allclose(3 * one(x, x, b), two(x, x, b), atol=0)
    assert "underflows" in proved(one, two, torch.float64)


def test_names_of_values_lead_back() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()).eval()
    network = open_model(copy.deepcopy(model), torch.randn(2, 4)).network
    form = normalise(network)
    assert [node.op for node in form.graph.nodes] == ["MatMul", "Add", "Relu"]
    assert form.origin[form.graph.outputs[0]] == network.outputs[0]


def test_momentum_counts_where_running_statistics_are_results() -> None:
    weights = [numpy_helper.from_array(np.full(3, value, np.float32), name) for name, value in
               (("s", 1.5), ("b", 0.5), ("m", 0.25), ("v", 2.0))]  # fmt: skip
    values = [
        oh.make_tensor_value_info(name, TensorProto.FLOAT, size)
        for name, size in (("x", [4, 3]), ("y", [4, 3]), ("mean", [3]))
    ]
    networks = []
    for momentum in (0.9, 0.5):
        node = oh.make_node(
            "BatchNormalization", ["x", "s", "b", "m", "v"], ["y", "mean", "var"], training_mode=1,
            momentum=momentum,
        )  # fmt: skip
        graph = oh.make_graph([node], "g", values[:1], values[1:], weights)
        networks.append(
            open_model(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 18)], ir_version=8)).network
        )
    found = attempt(networks[0], networks[1])
    assert found.proof is None
    assert "momentum" in found.note


def test_a_mask_that_is_shorter_than_the_keys_is_no_sum() -> None:
    """ONNX fills it with -inf."""
    networks = []
    for length in (4, 3, 1):
        mask = numpy_helper.from_array(np.zeros((4, length), np.float32), "mask")
        node = oh.make_node("Attention", ["x", "x", "x", "mask"], ["y"])
        values = [oh.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4, 6]) for name in "xy"]
        graph = oh.make_graph([node], "g", values[:1], values[1:], [mask])
        networks.append(
            open_model(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 24)], ir_version=11)).network
        )
    full, *shorter = networks
    assert "Softmax" in {node.op for node in normalise(full).graph.nodes}
    for network in shorter:
        assert {node.op for node in normalise(network).graph.nodes} == {"Attention"}
