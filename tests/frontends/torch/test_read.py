"""The torch front end: weights, names, folding, what stays outside ONNX, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from graphnorm.errors import ExportError, InputError
from graphnorm.frontends.torch.read import read_torch
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.tensors import to_tensor
from tests.support.torch_functions import Fn, check, image, rand, x23, x234


class Tied(nn.Module):
    scale: Tensor
    order: Tensor
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.head = nn.Linear(3, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.rand(3), persistent=False)
        self.register_buffer("order", torch.tensor([2, 0, 1]))
        self.register_buffer("mask", torch.tensor([0.0, float("-inf"), 0.0]))
        self.plain = torch.rand(3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden: Tensor = self.embed(tokens) * self.scale + self.plain
        logits: Tensor = self.head(hidden[..., self.order] + self.mask.exp())
        return logits


def test_weights_have_their_state_dict_names_and_share_memory() -> None:
    model = Tied()
    graph = check(model, torch.tensor([[1, 2], [6, 0]]))
    assert set(graph.weights) == {"embed.weight"}
    assert np.shares_memory(graph.weights["embed.weight"], model.embed.weight.detach().numpy())
    assert {"order", "plain", "mask", "scale"} <= set(graph.constants)  # no state_dict holds "scale"
    readers = [node.op for node in graph.consumers()["embed.weight"]]
    assert readers == ["Gather", "Transpose"]


def test_overlapping_and_expanded_parameters_are_pinned() -> None:
    storage = torch.rand(6)
    model = Fn(lambda x: x)
    model.register_parameter("a", nn.Parameter(storage[:4]))
    model.register_parameter("b", nn.Parameter(storage[2:]))
    model.register_parameter("c", nn.Parameter(torch.rand(4)))
    model.register_buffer("d", torch.rand(1).expand(4))
    model.function = lambda x: x * model.a + x * model.b + x * model.c + x * model.d
    graph = check(model, rand(2, 4))
    assert set(graph.weights) == {"c"}
    assert {"a", "b", "d"} <= set(graph.constants)


def test_a_weight_that_shares_memory_with_a_constant_is_pinned() -> None:
    model = nn.Linear(3, 3)
    shared = model.weight.detach()[0]
    wrapped = Fn(lambda x: model(x) * shared)
    wrapped.add_module("layer", model)
    wrapped.shared = shared
    wrapped.function = lambda x: model(x) * wrapped.shared
    graph = check(wrapped, x23)
    assert set(graph.weights) == {"layer.bias"}


def test_bfloat16_weights_keep_their_bits() -> None:
    model = nn.Linear(3, 2).to(torch.bfloat16)
    graph = read_torch(model, torch.rand(1, 3, dtype=torch.bfloat16))
    array = graph.weights["weight"]
    assert array.dtype.name == "bfloat16"
    assert graph.values[graph.outputs[0]].dtype == "bfloat16"
    assert torch.equal(to_tensor(array), model.weight)
    assert np.shares_memory(array, model.weight.detach().view(torch.int16).numpy())


def test_scopes_and_sources_name_no_machine_path() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 3), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x) + 1

    graph = read_torch(Model(), x23)
    assert [node.scope for node in graph.nodes if node.op == "Relu"] == ["layers.1"]
    assert all(node.source.startswith("torch/test_read.py:") for node in graph.nodes)
    assert graph.name == "Model"


def test_names_that_collide_with_weights_are_renamed() -> None:
    model = Fn(lambda weight: weight)
    model.register_parameter("weight", nn.Parameter(torch.rand(3)))
    model.function = lambda weight: weight * model.weight
    assert check(model, x23).inputs != ("weight",)


def test_training_batch_norm_is_pinned_to_its_batch() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    graph = read_torch(model, image)
    layers = [node for node in graph.nodes if node.op != "Identity"]  # Identity: buffers that are written to
    assert [node.op for node in layers] == ["Conv", "BatchNormalization", "Dropout"]
    assert layers[1].attributes["training_mode"] == 1
    assert "1.running_mean" in graph.constants  # the model writes to it
    assert set(graph.weights) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_dynamic_batch_and_example_sizes() -> None:
    model = nn.Sequential(nn.Conv2d(4, 3, 3), nn.Flatten(), nn.ReLU())
    program = torch.export.export(model, (image,), dynamic_shapes=({0: Dim("batch", min=2)},), strict=False)
    graph = read_torch(program)
    output = graph.values[graph.outputs[0]]
    assert (output.shape, output.dynamic) == ((2, 48), frozenset({0}))


def test_dead_code_and_constant_masks_cost_no_node() -> None:
    def forward(x: Tensor) -> Tensor:
        x.sin().cos()
        n = x.shape[-1]
        mask = torch.full((n, n), float("-inf")).triu(1)
        return (x[:, :, None, :] * 0 + mask).amax(-1) * torch.arange(n)

    graph = read_torch(Fn(forward), x234)
    assert {node.op for node in graph.nodes} <= {"Unsqueeze", "Mul", "Add", "ReduceMax", "Cast", "Identity"}
    assert any(np.isneginf(array).any() for array in graph.constants.values() if array.dtype.kind == "f")


def test_large_constants_take_no_memory() -> None:
    graph = read_torch(Fn(lambda x: x + torch.ones(3000, 1000)), torch.rand(1))
    (array,) = (array for array in graph.constants.values() if array.size > 1)
    assert array.strides == (0, 0)


def test_a_buffer_that_the_model_writes_is_not_computed_with() -> None:
    class Counter(nn.Module):
        count: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1, dtype=torch.int64))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return x * self.count

    graph = read_torch(Counter(), x23)
    assert "count" in graph.constants
    assert [node.op for node in graph.nodes] == ["Add", "Cast", "Mul"]


def test_changed_inputs_are_outputs() -> None:
    def forward(x: Tensor) -> Tensor:
        x.mul_(2)
        return x + 1

    assert len(read_torch(Fn(forward), x23).outputs) == 2


def test_modes_are_inlined_and_unknown_operators_read_every_tensor() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.gain = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.layer(x)
            with torch.autocast("cpu", enabled=False):
                x = self.layer(x)
            return torch.erfinv(x) * self.gain.item()

    graph = read_torch(Model(), x23)
    ops = [node.op for node in graph.nodes]
    assert ops.count("MatMul") == 2
    assert {"aten::erfinv", "aten::_local_scalar_dense"} <= set(ops)
    item = next(node for node in graph.nodes if node.op == "aten::_local_scalar_dense")
    assert item.inputs == ("gain",)
    assert any(item.outputs[0] in node.inputs for node in graph.nodes)


def test_branches_join_the_graph() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda y: self.a(y), lambda y: self.b(y), (x,))

    graph = read_torch(Branches(), x23)
    (choice,) = (node for node in graph.nodes if node.op == "graphnorm::Choice")
    made_by = graph.producers()
    assert [made_by[name].op for name in choice.inputs] == ["Greater", "Add", "Add"]
    assert {"a.weight", "a.bias", "b.weight", "b.bias"} <= {x for node in graph.nodes for x in node.inputs}


def test_what_no_lowering_can_say_stays_whole() -> None:
    """A variant of an operator that has a lowering."""
    graph = read_torch(Fn(lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True, divisor_override=5)), image)
    (node,) = (node for node in graph.nodes if node.op == "aten::avg_pool2d")
    assert node.attributes["divisor_override"] == 5


def test_operators_without_a_lowering_are_taken_apart_by_torch() -> None:
    graph = check(Fn(lambda x: torch.tensordot(x, x, ([0], [0]))), x234)
    assert {node.op for node in graph.nodes} == {"Reshape", "Transpose", "MatMul"}


def test_views_without_a_lowering_are_taken_apart_too() -> None:
    graph = check(Fn(lambda x: torch.cartesian_prod(x[0], x[1])), x23)
    assert not any("::" in node.op for node in graph.nodes)


def test_symbolically_traced_modules() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = check(torch.fx.symbolic_trace(model), x23)
    assert set(graph.weights) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert graph.nodes[0].scope == "0"


def test_keyword_inputs() -> None:
    class Keyword(nn.Module):
        def forward(self, x: Tensor, *, gain: float = 1.0) -> Tensor:
            return x * gain

    graph = read_torch(Keyword(), kwargs={"x": x23, "gain": 3.0})
    assert graph.inputs == ("x",)


def test_a_module_needs_inputs() -> None:
    with pytest.raises(InputError, match="Linear needs example inputs"):
        read_torch(nn.Linear(3, 2))
    with pytest.raises(InputError, match="expected a torch module"):
        read_torch(3)  # type: ignore[arg-type]


def test_what_cannot_be_traced_says_why() -> None:
    with pytest.raises(ExportError, match=r"(?s)cannot trace Fn: .*\nhint: control flow"):
        read_torch(Fn(lambda x: x if x.sum() > 0 else -x), x23)
    with pytest.raises(ExportError, match="cannot trace Linear"):
        read_torch(nn.Linear(3, 2), rand(2, 7))


def test_weights_without_sound_data_are_refused() -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="'weight' holds NaN"):
        read_torch(model, x23)
    with pytest.raises(InputError, match="'weight' has no data"):
        read_torch(nn.Linear(3, 2, device="meta"), torch.rand(1, 3, device="meta"))


def test_sparse_weights_are_refused() -> None:
    model = Fn(lambda x: x)
    model.register_buffer("table", torch.eye(3).to_sparse())
    with pytest.raises(InputError, match="'table' is not a dense array"):
        read_torch(model, x23)


def test_one_lowering_per_operator() -> None:
    table = Lowerings()
    table.add("relu", lambda call, x: None)
    with pytest.raises(ValueError, match=r"aten::relu\.default has two lowerings"):
        table.add("relu", lambda call, x: None)


def test_sizes_known_only_at_run_time_leave_operators_their_names() -> None:
    layer, conv = nn.Linear(4, 3), nn.Conv1d(3, 2, 1)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        images = x.index_select(0, (x.sum((1, 2)) < 9).nonzero()[:, 0])
        return layer(x[x.sum(-1) > 0]) + 1, conv(images)

    wrapped = Fn(forward)
    wrapped.add_module("layer", layer)
    wrapped.add_module("conv", conv)
    graph = check(wrapped, x234)
    assert {"Compress", "MatMul", "NonZero", "Gather", "Conv"} <= {node.op for node in graph.nodes}
    assert [graph.values[name].shape for name in graph.outputs] == [None, None]
