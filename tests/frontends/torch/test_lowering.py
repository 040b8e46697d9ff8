"""Every lowering of an ATen operator computes what torch computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphnorm.frontends.torch.aten.table import LOWERINGS
from graphnorm.frontends.torch.call import Call
from tests.support.torch_functions import Fn, Functions, Table, check, image, rand, x23, x234
from tests.support.torch_tables import elementwise, images, movement, overloads, reductions
from tests.support.torch_tables.modules import MODULES
from tests.support.torch_tables.operators import OPERATORS

TABLES = {
    name: (table, image if subject is images else x234)
    for subject in (elementwise, movement, overloads, reductions, images)
    for name, table in vars(subject).items()
    if name.isupper() and isinstance(table, dict)
}


@pytest.mark.parametrize("name", TABLES)
def test_functions(name: str) -> None:
    functions, x = TABLES[name]
    check(Table(functions).eval(), x)


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str) -> None:
    model, inputs = MODULES[name]
    check(model, *inputs)


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name: str) -> None:
    function, inputs = OPERATORS[name]
    graph = check(Fn(function), *inputs)
    assert all(not node.op.startswith(("torchvision::", "aten::_")) for node in graph.nodes)


def test_a_wrong_lowering_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(call: Call, x: Any, *_: object) -> None:
        call.out("Mul", x, call.number(1.0001, x.dtype))

    monkeypatch.setitem(LOWERINGS.table, "relu.default", wrong)
    functions: Functions = {"identity": lambda x: x, "relu": torch.relu}
    with pytest.raises(AssertionError, match="relu"):
        check(Table(functions), x23.abs() + 1)


def test_a_lowering_of_another_type_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(call: Call, x: Any) -> None:
        call.yields(call.step("ReduceSum", x, [0], shape=(3,), keepdims=0))

    monkeypatch.setitem(LOWERINGS.table, "relu.default", wrong)
    with pytest.raises(NotImplementedError, match="aten::relu"):
        check(Fn(torch.relu), x23)


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (4, 5, 3), (5, 3), (2, 2, 4, 5, 3)])
@pytest.mark.parametrize("causal", [False, True])
def test_attention(shape: tuple[int, ...], causal: bool) -> None:
    graph = check(
        Fn(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal)),
        rand(*shape), rand(*shape), rand(*shape),
    )  # fmt: skip
    assert "Attention" in {node.op for node in graph.nodes}


@pytest.mark.parametrize(
    ("q", "k", "mask"),
    [
        ((2, 4, 5, 3), (4, 6, 3), (5, 6)),
        ((2, 4, 5, 3), (1, 1, 6, 3), (2, 1, 5, 6)),
        ((4, 5, 3), (1, 6, 3), (4, 5, 6)),
        ((2, 2, 4, 5, 3), (2, 1, 4, 6, 3), (2, 5, 6)[1:]),
    ],
)
def test_attention_with_operands_that_broadcast(
    q: tuple[int, ...], k: tuple[int, ...], mask: tuple[int, ...]
) -> None:
    graph = check(Fn(F.scaled_dot_product_attention), rand(*q), rand(*k), rand(*k), rand(*mask))
    assert "Attention" in {node.op for node in graph.nodes}


def test_attention_with_mask_and_shared_heads() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, mask, scale=0.3, enable_gqa=True)

    check(Fn(attend), rand(2, 4, 5, 3), rand(2, 2, 6, 3), rand(2, 2, 6, 3), rand(5, 6))
    check(Fn(attend), rand(1, 4, 5, 3), rand(2, 2, 6, 3), rand(2, 2, 6, 3), torch.rand(5, 6) > 0.3)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_first": True, "num_layers": 2, "bias": False}, {"num_layers": 2, "bidirectional": True}],
)
def test_recurrent(cell: Callable[..., nn.Module], options: dict[str, Any]) -> None:
    model = cell(3, 4, **options)
    graph = check(model, rand(5, 2, 3))
    assert set(graph.weights) == set(model.state_dict())
    assert {"LSTM", "GRU", "RNN"} & {node.op for node in graph.nodes}


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "bias": False}])
def test_lstm_with_projections(options: dict[str, Any]) -> None:
    model = nn.LSTM(3, 4, proj_size=2, **options)
    graph = check(model, rand(5, 2, 3))
    assert set(graph.weights) == set(model.state_dict())
    assert "aten::lstm_projected" in {node.op for node in graph.nodes}


def test_adaptive_pools_with_equal_windows_are_plain_pools() -> None:
    graph = check(Fn(lambda x: F.adaptive_avg_pool2d(x, (3, 2))), image)
    assert [node.op for node in graph.nodes] == ["AveragePool"]


def test_known_index_tensors_become_one_constant() -> None:
    where = torch.tensor([0, 1]), torch.tensor([2, -1])
    graph = check(Fn(lambda x: x[where]), x234)
    (node,) = graph.nodes
    assert node.op == "GatherND"
    assert np.array_equal(graph.constants[node.inputs[1]], [[0, 2], [1, 2]])


def test_rows_that_a_mask_selects_keep_their_features_apart() -> None:
    def forward(x: Tensor, new: Tensor, where: Tensor) -> Tensor:
        return x.masked_scatter(where.unsqueeze(-1).expand_as(x), new)

    graph = check(Fn(forward), x234, rand(4, 4), torch.tensor([[True, False, True], [False, True, True]]))
    (gather,) = (node for node in graph.nodes if node.op == "Gather")
    assert graph.values[gather.inputs[0]].shape == (4, 4)


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("b i j, b j k", [(2, 3, 4), (2, 4, 5)], "bij,bjk->ik"),
        ("...ij,...kj->...ik", [(2, 3, 4), (2, 5, 4)], "aij,akj->aik"),
        ("...i,ij", [(2, 3, 4), (4, 5)], "abi,ij->abj"),
        ("ii", [(3, 3)], "ii->"),
    ],
)
def test_equations_are_explicit(equation: str, shapes: list[tuple[int, ...]], expected: str) -> None:
    graph = check(Fn(lambda *operands: torch.einsum(equation, *operands)), *(rand(*s) for s in shapes))
    (node,) = graph.nodes
    assert node.attributes["equation"] == expected
