"""The torch front end: every lowering computes what torch computes; weights, names, folding, errors."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_flatten_with_path

from graphnorm.errors import ExportError, InputError, ModelFileError
from graphnorm.frontends.aten_call import Lowerings
from graphnorm.frontends.torch_export import export_program, read_torch
from graphnorm.frontends.torch_tensors import to_numpy, to_tensor
from graphnorm.ir import Graph
from tests.ir_interpreter import run


class Fn(nn.Module):
    """A module from a function of tensors."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape)


class Table(nn.Module):
    """Many functions of one tensor: exporting them together is ten times as fast."""

    def __init__(self, functions: dict[str, Callable[[Tensor], Any]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {name: function(x) for name, function in self.functions.items()}


def check(model: nn.Module, *inputs: Tensor) -> Graph:
    """Run torch and the graph's ONNX nodes on the same inputs."""
    torch.manual_seed(0)
    graph = read_torch(model, inputs)
    feeds = {name: to_numpy(tensor) for name, tensor in zip(graph.inputs, inputs, strict=True)}
    values = run(graph, feeds)
    with torch.no_grad():
        expected = model(*inputs)
    leaves = [(str(path), leaf) for path, leaf in tree_flatten_with_path(expected)[0]]
    assert len(leaves) == len(graph.outputs)
    for name, (where, tensor) in zip(graph.outputs, leaves, strict=True):
        np.testing.assert_allclose(values[name], to_numpy(tensor), rtol=1e-5, atol=1e-5, err_msg=where)
    return graph


x23, x234, image, seq = rand(2, 3), rand(2, 3, 4), rand(2, 4, 6, 6), rand(2, 6, 5)

UNARY: dict[str, Callable[[Tensor], Any]] = {
    "relu": torch.relu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu, "leaky": lambda x: F.leaky_relu(x, 0.2), "relu6": F.relu6, "hardtanh": F.hardtanh,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "sigmoid": torch.sigmoid, "elu": F.elu,
    "selu": F.selu, "celu": lambda x: F.celu(x, 0.7), "softplus": F.softplus, "mish": F.mish,
    "softplus_beta": lambda x: F.softplus(x, 2.0), "softsign": F.softsign, "logsigmoid": F.logsigmoid,
    "tanhshrink": F.tanhshrink, "hardshrink": F.hardshrink, "softshrink": F.softshrink,
    "threshold0": lambda x: F.threshold(x, 0, 0), "threshold": lambda x: F.threshold(x, 0.3, 0),
    "rrelu": F.rrelu, "clamp": lambda x: x.clamp(-0.5, 0.5), "clamp_min": lambda x: x.clamp(min=0),
    "clamp_max": lambda x: x.clamp_max(0.1), "clamp_tensor": lambda x: torch.clamp(x, x * 0.5, x.abs()),
    "exp": torch.exp, "log": lambda x: x.abs().log(), "log1p": lambda x: x.abs().log1p(),
    "expm1": torch.expm1, "sqrt": lambda x: x.abs().sqrt(), "rsqrt": lambda x: x.abs().rsqrt(),
    "reciprocal": torch.reciprocal, "neg": torch.neg, "sign": torch.sign, "erf": torch.erf,
    "sin": torch.sin, "cos": torch.cos, "floor": torch.floor, "ceil": torch.ceil, "round": torch.round,
    "pow": lambda x: x.abs() ** 1.5, "rpow": lambda x: 2.0**x, "powt": lambda x: x.abs() ** x,
    "square": torch.square, "softmax": lambda x: x.softmax(1), "log_softmax": lambda x: x.log_softmax(-1),
    "add_alpha": lambda x: torch.add(x, x, alpha=0.5), "sub": lambda x: torch.sub(x, x * x, alpha=2),
    "rsub": lambda x: 1 - x, "mul": lambda x: x * 3, "div": lambda x: x / 2, "max": lambda x: torch.maximum(x, -x),
    "min": lambda x: torch.minimum(x, -x), "floordiv": lambda x: x // 0.5,
    "where": lambda x: torch.where(x > 0, x, 0.25), "where2": lambda x: torch.where(x != 0, x, -x),
    "masked_fill": lambda x: x.masked_fill(x < 0, -1.0), "isnan": lambda x: (x.isnan(), x.isinf()),
    "logic": lambda x: (x > 0) & ~(x >= 1) | (x <= -1) ^ (x == x), "lerp": lambda x: torch.lerp(x, x * x, 0.3),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.1), "addcdiv": lambda x: torch.addcdiv(x, x, x.exp()),
    "promotion": lambda x: (x > 0) * x + (x > 0).sum(), "cast": lambda x: (x.double() * 2).to(torch.float32),
    "identity": lambda x: x.clone().detach().contiguous(), "dropout": lambda x: F.dropout(x, 0.5, False),
    "copy": lambda x: torch.zeros_like(x).copy_(x), "fill": lambda x: torch.zeros_like(x).fill_(x.mean()) + x,
}  # fmt: skip

SHAPE: dict[str, Callable[[Tensor], Any]] = {
    "view": lambda x: x.reshape(2, -1), "flatten": lambda x: x.flatten(1), "permute": lambda x: x.permute(2, 0, 1),
    "transpose": lambda x: x.transpose(1, -1), "t": lambda x: x[0].t(), "mT": lambda x: x.mT,
    "unsqueeze": lambda x: x.unsqueeze(-1), "squeeze": lambda x: x.unsqueeze(1).squeeze(1),
    "squeeze_all": lambda x: x[:, :1].squeeze(), "expand": lambda x: x.unsqueeze(1).expand(-1, 5, -1, -1),
    "repeat": lambda x: x.repeat(2, 1, 1, 3), "tile": lambda x: x.tile(2), "cat": lambda x: torch.cat([x, x], -1),
    "stack": lambda x: torch.stack([x, -x], 1), "split": lambda x: x.split([1, 2], 1)[1],
    "chunk": lambda x: x.chunk(2, -1), "unbind": lambda x: x.unbind(1)[2] - x.unbind(1)[0],
    "select": lambda x: x[:, -1], "slice": lambda x: x[..., 1:-1], "slice_step": lambda x: x[..., ::2],
    "narrow": lambda x: x.narrow(1, 1, 2), "index_select": lambda x: x.index_select(1, torch.tensor([2, 0])),
    "gather_one": lambda x: x[:, torch.tensor([[0, 2]])], "index_two": lambda x: x[torch.tensor([1]), torch.tensor([2])],
    "flip": lambda x: x.flip(1, 2), "roll": lambda x: x.roll((1, -2), (1, 2)), "tril": lambda x: x.tril(),
    "triu": lambda x: x.triu(1), "unfold": lambda x: x.unfold(2, 2, 1), "meshgrid": lambda x: torch.meshgrid(
        x[0, 0], x[1, 0, :2], indexing="ij"), "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "gather": lambda x: x.gather(1, torch.zeros(2, 1, 4, dtype=torch.long)), "type_as": lambda x: x.type_as(x),
    "scatter": lambda x: x.scatter(1, torch.ones(2, 1, 4, dtype=torch.long), 5.0),
    "slice_scatter": lambda x: torch.slice_scatter(x, x[:, :1] * 2, 1, 1, 2),
    "select_scatter": lambda x: torch.select_scatter(x, x[:, 0] * 2, 1, 2),
    "expand_as": lambda x: x[:, :1].expand_as(x) + x, "einsum": lambda x: torch.einsum("b i j, k i j -> bk", x, x),
    "outer": lambda x: torch.outer(x[0, 0], x[0, 1]), "baddbmm": lambda x: torch.baddbmm(
        x @ x.mT, x, x.mT, beta=0.5, alpha=2), "addmm": lambda x: torch.addmm(x[0, 0], x[0], x[0].T @ x[1]),
    "mv": lambda x: x[0] @ x[0, 0],
}  # fmt: skip

REDUCE: dict[str, Callable[[Tensor], Any]] = {
    "mean": lambda x: x.mean((1, 2)), "mean_all": lambda x: x.mean(), "sum": lambda x: x.sum(1, keepdim=True),
    "sum_all": lambda x: x.sum(), "amax": lambda x: x.amax(-1), "amin": lambda x: x.amin((0, 1)),
    "max_dim": lambda x: x.max(1).values, "max_all": lambda x: x.max(), "prod": lambda x: x.prod(1),
    "argmax": lambda x: x.argmax(1), "argmax_all": lambda x: x.argmax(), "argmin": lambda x: x.argmin(2, True),
    "cumsum": lambda x: x.cumsum(1), "topk": lambda x: x.topk(2, 1), "norm": lambda x: x.norm(dim=1),
    "norm1": lambda x: x.norm(1, dim=(1, 2)), "norm_inf": lambda x: torch.linalg.vector_norm(x, float("inf"), 1),
    "normalize": lambda x: F.normalize(x), "logsumexp": lambda x: x.logsumexp(1), "var": lambda x: x.var(1),
    "std": lambda x: x.std((1, 2), correction=0, keepdim=True), "sum_bool": lambda x: (x > 0).sum(1),
}  # fmt: skip

IMAGE: dict[str, Callable[[Tensor], Any]] = {
    "max_pool": lambda x: F.max_pool2d(x, 3, 2, 1), "max_pool_ceil": lambda x: F.max_pool2d(x, 2, 4, ceil_mode=True),
    "max_pool_unbatched": lambda x: F.max_pool2d(x[0], 2), "avg_pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "avg_pool_exclude": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "max_pool_indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0], "max_pool1": lambda x: F.max_pool1d(
        x[:, 0], 2), "gap": lambda x: F.adaptive_avg_pool2d(x, 1), "gmp": lambda x: F.adaptive_max_pool2d(x, 1),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (4, 3)), "adaptive_max": lambda x: F.adaptive_max_pool2d(x, 4),
    "nearest": lambda x: F.interpolate(x, scale_factor=2), "bilinear": lambda x: F.interpolate(
        x, size=(9, 4), mode="bilinear"), "aligned": lambda x: F.interpolate(
        x, size=(9, 4), mode="bilinear", align_corners=True), "bicubic": lambda x: F.interpolate(
        x, scale_factor=2, mode="bicubic"), "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_shuffle3": lambda x: F.pixel_shuffle(x[0], 2), "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2), "pad": lambda x: F.pad(x, (1, 2, 0, 3), value=0.5),
    "crop": lambda x: F.pad(x, (-1, 0, 0, -2)), "reflect": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "edge": lambda x: F.pad(x, (1, 2, 0, 3), mode="replicate"), "wrap": lambda x: F.pad(x, (1, 2, 0, 3), mode="circular"),
    "im2col": lambda x: F.unfold(x, (2, 3), 1, 1, 2), "glu": lambda x: F.glu(x, 1), "lp_pool": lambda x: F.lp_pool2d(
        x, 2, 2), "grid": lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1).tanh(), align_corners=False),
    "lrn": lambda x: F.local_response_norm(x, 2), "group_norm": lambda x: F.group_norm(x, 2),
    "instance_norm": lambda x: F.instance_norm(x), "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "layer_norm": lambda x: F.layer_norm(x, (6, 6)), "rms_norm": lambda x: F.rms_norm(x, (6,)),
}  # fmt: skip

MODULES: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "linear": (nn.Linear(3, 5), (x23,)), "linear_no_bias": (nn.Linear(4, 5, bias=False), (x234,)),
    "conv1d": (nn.Conv1d(3, 4, 3, padding=1), (x234,)), "conv2d": (nn.Conv2d(4, 6, 3, 2, 1, 1, 2), (image,)),
    "conv_same": (nn.Conv2d(4, 4, (2, 4), padding="same", dilation=(1, 2)), (image,)),
    "conv_valid": (nn.Conv2d(4, 4, 3, padding="valid", bias=False), (image,)),
    "conv_unbatched": (nn.Conv2d(4, 4, 3), (image[0],)), "conv3d": (nn.Conv3d(4, 2, 2), (rand(1, 4, 3, 3, 3),)),
    "conv_transpose": (nn.ConvTranspose2d(4, 4, 3, 2, 1, 1, groups=2), (image,)),
    "prelu": (nn.PReLU(4, 0.1), (image,)), "prelu_one": (nn.PReLU(), (image,)), "prelu_flat": (nn.PReLU(3), (x23,)),
    "bn": (nn.BatchNorm2d(4).eval(), (image,)), "bn_train": (nn.BatchNorm1d(3), (x23,)),
    "gn": (nn.GroupNorm(2, 4), (image,)), "in": (nn.InstanceNorm2d(4, affine=True), (image,)),
    "ln": (nn.LayerNorm(5), (seq,)), "rms": (nn.RMSNorm(5, eps=1e-3), (seq,)),
    "in_eval": (nn.InstanceNorm2d(4, affine=True, track_running_stats=True).eval(), (image,)),
    "embedding": (nn.Embedding(7, 3), (torch.tensor([[1, 2], [6, 0]]),)),
    "weight_norm": (nn.utils.parametrizations.weight_norm(nn.Linear(3, 5)), (x23,)),
    "spectral_norm": (nn.utils.parametrizations.spectral_norm(nn.Linear(3, 5)).eval(), (x23,)),
    "mha": (nn.MultiheadAttention(8, 2), (rand(5, 2, 8), rand(4, 2, 8), rand(4, 2, 8))),
    "encoder": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), (rand(2, 5, 8),)),
    "sequential": (nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).eval(), (image,)),
}  # fmt: skip


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


class Tied(nn.Module):
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
    assert set(graph.weights) == {"embed.weight", "scale"}
    assert np.shares_memory(graph.weights["embed.weight"], model.embed.weight.detach().numpy())
    assert {"order", "plain", "mask"} <= set(graph.constants)
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
            return self.layers(x) + 1  # type: ignore[no-any-return]

    graph = read_torch(Model(), x23)
    assert [node.scope for node in graph.nodes if node.op == "Relu"] == ["layers.1"]
    assert all(node.source.startswith("tests/test_torch_frontend.py:") for node in graph.nodes)
    assert graph.name == "Model"


def test_names_that_collide_with_weights_are_renamed() -> None:
    model = Fn(lambda weight: weight)
    model.register_parameter("weight", nn.Parameter(torch.rand(3)))
    model.function = lambda weight: weight * model.weight
    assert check(model, x23).inputs != ("weight",)


def test_training_batch_norm_is_pinned_to_its_batch() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    graph = read_torch(model, image)
    assert [node.op for node in graph.nodes] == ["Conv", "BatchNormalization", "Dropout"]
    assert graph.nodes[1].attributes["training_mode"] == 1
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
            return torch.sort(x)[0] * self.gain.item()

    graph = read_torch(Model(), x23)
    ops = [node.op for node in graph.nodes]
    assert ops.count("MatMul") == 2
    assert {"aten::sort", "aten::item"} <= set(ops)
    item = next(node for node in graph.nodes if node.op == "aten::item")
    assert item.inputs == ("gain",)
    assert any(item.outputs[0] in node.inputs for node in graph.nodes)


def test_control_flow_reads_what_its_branches_capture() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda y: self.a(y), lambda y: self.b(y), (x,))  # type: ignore[no-any-return]

    graph = read_torch(Branches(), x23)
    (branch,) = (node for node in graph.nodes if node.op == "higher_order::cond")
    assert {"a.weight", "a.bias", "b.weight", "b.bias"} <= set(branch.inputs)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_first": True, "num_layers": 2, "bias": False}, {"num_layers": 2, "bidirectional": True}],
)
def test_recurrent(cell: type[nn.RNNBase], options: dict[str, Any]) -> None:
    model = cell(3, 4, **options)
    graph = check(model, rand(5, 2, 3))
    assert set(graph.weights) == set(model.state_dict())
    assert {"LSTM", "GRU", "RNN"} & {node.op for node in graph.nodes}


def test_recurrent_layers_without_an_equivalent_stay_whole() -> None:
    graph = read_torch(nn.LSTM(3, 4, proj_size=2), rand(5, 2, 3))
    (node,) = (node for node in graph.nodes if node.op == "aten::lstm")
    assert set(graph.weights) <= set(node.inputs)


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


def test_archives_round_trip(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    torch.export.save(export_program(model, x23), tmp_path / "net.pt2")
    graph = read_torch(tmp_path / "net.pt2")
    assert graph.name == "net"
    assert np.array_equal(graph.weights["weight"], model.weight.detach().numpy())


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["model.pt", "model.pt2", "model.pkl"])
def test_pickles_are_refused_and_never_run(tmp_path: Path, name: str) -> None:
    path, trap = tmp_path / name, tmp_path / "trap"
    if name == "model.pkl":
        path.write_bytes(pickle.dumps(Payload(trap)))
    else:
        torch.save(Payload(trap), path)
    with pytest.raises(ModelFileError, match=r"never does; export the model with torch\.export\.save"):
        read_torch(path)
    assert not trap.exists()


@pytest.mark.parametrize("member", ["data/constants/opaque_obj_0", "data/aotinductor/model/a.so"])
def test_archives_with_code_are_refused(tmp_path: Path, member: str) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(export_program(nn.Linear(3, 2), x23), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"net/{member}", b"")
    with pytest.raises(ModelFileError, match="compiled code or pickled objects"):
        read_torch(path)


def test_a_pickle_inside_an_archive_is_not_run(tmp_path: Path) -> None:
    good, bad, trap = tmp_path / "good.pt2", tmp_path / "bad.pt2", tmp_path / "trap"
    torch.export.save(export_program(nn.Linear(3, 2), x23), good)
    torch.save(Payload(trap), tmp_path / "payload.pt")
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for member in source.namelist():
            data = source.read(member)
            if member.endswith("sample_inputs/model.pt"):
                data = (tmp_path / "payload.pt").read_bytes()
            target.writestr(member, data)
    with pytest.raises(ModelFileError, match=r"torch\.export\.load failed"):
        read_torch(bad)
    assert not trap.exists()


def test_missing_and_damaged_archives(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        read_torch(tmp_path / "none.pt2")
    path = tmp_path / "net.pt2"
    torch.export.save(export_program(nn.Linear(3, 2), x23), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelFileError, match="damaged or truncated"):
        read_torch(path)


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
    with pytest.raises(InputError, match="'table' is no dense array"):
        read_torch(model, x23)


def test_one_lowering_per_operator() -> None:
    table = Lowerings()
    table.add("relu", check)
    with pytest.raises(ValueError, match=r"aten::relu\.default has two lowerings"):
        table.add("relu", check)
