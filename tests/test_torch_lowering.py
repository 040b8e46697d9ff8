"""Every lowering of an ATen operator computes what torch computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from tests.torch_functions import IMAGE, MODULES, REDUCE, SHAPE, UNARY, Fn, Table, check, image, rand, x234


@pytest.mark.parametrize(
    ("functions", "x"), [(UNARY, x234), (SHAPE, x234), (REDUCE, x234), (IMAGE, image)],
    ids=["elementwise", "shape", "reduce", "image"],
)  # fmt: skip
def test_functions(functions: dict[str, Callable[[Tensor], Any]], x: Tensor) -> None:
    check(Table(functions).eval(), x)


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str) -> None:
    model, inputs = MODULES[name]
    check(model, *inputs)


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (4, 5, 3), (5, 3), (2, 2, 4, 5, 3)])
@pytest.mark.parametrize("causal", [False, True])
def test_attention(shape: tuple[int, ...], causal: bool) -> None:
    graph = check(
        Fn(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal)),
        rand(*shape), rand(*shape), rand(*shape),
    )  # fmt: skip
    assert "Attention" in {node.op for node in graph.nodes}


def test_attention_with_mask_and_shared_heads() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, mask, scale=0.3, enable_gqa=True)

    check(Fn(attend), rand(2, 4, 5, 3), rand(2, 2, 6, 3), rand(2, 2, 6, 3), rand(5, 6))


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
