"""Small torch functions and modules that together call every ATen operator with a lowering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path

from graphnorm.frontends.torch_export import read_torch
from graphnorm.frontends.torch_tensors import to_numpy
from graphnorm.ir import Graph
from tests.ir_interpreter import run


class Fn(nn.Module):
    """A module from a function of tensors."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


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


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape)


x23, x234, image, seq = rand(2, 3), rand(2, 3, 4), rand(2, 4, 6, 6), rand(2, 6, 5)

UNARY: dict[str, Callable[[Tensor], Any]] = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "elu": F.elu,
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.7),
    "softplus": F.softplus,
    "mish": F.mish,
    "softplus_beta": lambda x: F.softplus(x, 2.0),
    "softsign": F.softsign,
    "logsigmoid": F.logsigmoid,
    "tanhshrink": F.tanhshrink,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "threshold0": lambda x: F.threshold(x, 0, 0),
    "threshold": lambda x: F.threshold(x, 0.3, 0),
    "rrelu": F.rrelu,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp_min": lambda x: x.clamp(min=0),
    "clamp_max": lambda x: x.clamp_max(0.1),
    "clamp_tensor": lambda x: torch.clamp(x, x * 0.5, x.abs()),
    "exp": torch.exp,
    "log": lambda x: x.abs().log(),
    "log1p": lambda x: x.abs().log1p(),
    "expm1": torch.expm1,
    "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: x.abs().rsqrt(),
    "reciprocal": torch.reciprocal,
    "neg": torch.neg,
    "sign": torch.sign,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "pow": lambda x: x.abs() ** 1.5,
    "rpow": lambda x: 2.0**x,
    "powt": lambda x: x.abs() ** x,
    "square": torch.square,
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "add_alpha": lambda x: torch.add(x, x, alpha=0.5),
    "sub": lambda x: torch.sub(x, x * x, alpha=2),
    "rsub": lambda x: 1 - x,
    "mul": lambda x: x * 3,
    "div": lambda x: x / 2,
    "max": lambda x: torch.maximum(x, -x),
    "min": lambda x: torch.minimum(x, -x),
    "floordiv": lambda x: x // 0.5,
    "where": lambda x: torch.where(x > 0, x, 0.25),
    "where2": lambda x: torch.where(x != 0, x, -x),
    "masked_fill": lambda x: x.masked_fill(x < 0, -1.0),
    "isnan": lambda x: (x.isnan(), x.isinf()),
    "logic": lambda x: (x > 0) & ~(x >= 1) | (x <= -1) ^ (x == x),
    "lerp": lambda x: torch.lerp(x, x * x, 0.3),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.1),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.exp()),
    "promotion": lambda x: (x > 0) * x + (x > 0).sum(),
    "cast": lambda x: (x.double() * 2).to(torch.float32),
    "identity": lambda x: x.clone().detach().contiguous(),
    "dropout": lambda x: F.dropout(x, 0.5, False),
    "copy": lambda x: torch.zeros_like(x).copy_(x),
    "fill": lambda x: torch.zeros_like(x).fill_(x.mean()) + x,
}

SHAPE: dict[str, Callable[[Tensor], Any]] = {
    "view": lambda x: x.reshape(2, -1),
    "flatten": lambda x: x.flatten(1),
    "permute": lambda x: x.permute(2, 0, 1),
    "transpose": lambda x: x.transpose(1, -1),
    "t": lambda x: x[0].t(),
    "mT": lambda x: x.mT,
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "squeeze": lambda x: x.unsqueeze(1).squeeze(1),
    "squeeze_all": lambda x: x[:, :1].squeeze(),
    "expand": lambda x: x.unsqueeze(1).expand(-1, 5, -1, -1),
    "repeat": lambda x: x.repeat(2, 1, 1, 3),
    "tile": lambda x: x.tile(2),
    "cat": lambda x: torch.cat([x, x], -1),
    "stack": lambda x: torch.stack([x, -x], 1),
    "split": lambda x: torch.split_with_sizes(x, [1, 2], 1)[1],
    "chunk": lambda x: x.chunk(2, -1),
    "unbind": lambda x: x.unbind(1)[2] - x.unbind(1)[0],
    "select": lambda x: x[:, -1],
    "slice": lambda x: x[..., 1:-1],
    "slice_step": lambda x: x[..., ::2],
    "narrow": lambda x: x.narrow(1, 1, 2),
    "index_select": lambda x: x.index_select(1, torch.tensor([2, 0])),
    "gather_one": lambda x: x[:, torch.tensor([[0, 2]])],
    "index_two": lambda x: x[torch.tensor([1]), torch.tensor([2])],
    "flip": lambda x: x.flip(1, 2),
    "roll": lambda x: x.roll((1, -2), (1, 2)),
    "tril": lambda x: x.tril(),
    "triu": lambda x: x.triu(1),
    "unfold": lambda x: x.unfold(2, 2, 1),
    "meshgrid": lambda x: torch.meshgrid(x[0, 0], x[1, 0, :2], indexing="ij"),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "gather": lambda x: x.gather(1, torch.zeros(2, 1, 4, dtype=torch.long)),
    "type_as": lambda x: x.type_as(x),
    "scatter": lambda x: x.scatter(1, torch.ones(2, 1, 4, dtype=torch.long), 5.0),
    "slice_scatter": lambda x: torch.slice_scatter(x, x[:, :1] * 2, 1, 1, 2),
    "select_scatter": lambda x: torch.select_scatter(x, x[:, 0] * 2, 1, 2),
    "expand_as": lambda x: x[:, :1].expand_as(x) + x,
    "einsum": lambda x: torch.einsum("b i j, k i j -> bk", x, x),
    "overwrite": lambda x: torch.slice_scatter(x, x * 2, 1),
    "bools": lambda x: (x > 0) * (x < 1),
    "outer": lambda x: torch.outer(x[0, 0], x[0, 1]),
    "baddbmm": lambda x: torch.baddbmm(x @ x.mT, x, x.mT, beta=0.5, alpha=2),
    "addmm": lambda x: torch.addmm(x[0, 0], x[0], x[0].T @ x[1]),
    "mv": lambda x: x[0] @ x[0, 0],
}

REDUCE: dict[str, Callable[[Tensor], Any]] = {
    "mean": lambda x: x.mean((1, 2)),
    "mean_all": lambda x: x.mean(),
    "sum": lambda x: x.sum(1, keepdim=True),
    "sum_all": lambda x: x.sum(),
    "amax": lambda x: x.amax(-1),
    "amin": lambda x: x.amin((0, 1)),
    "max_dim": lambda x: x.max(1).values,
    "max_all": lambda x: x.max(),
    "prod": lambda x: x.prod(1),
    "argmax": lambda x: x.argmax(1),
    "argmax_all": lambda x: x.argmax(),
    "argmin": lambda x: x.argmin(2, True),
    "cumsum": lambda x: x.cumsum(1),
    "topk": lambda x: x.topk(2, 1),
    "norm": lambda x: x.norm(dim=1),
    "norm1": lambda x: x.norm(1, dim=(1, 2)),
    "norm_inf": lambda x: torch.linalg.vector_norm(x, float("inf"), 1),
    "normalize": lambda x: F.normalize(x),
    "logsumexp": lambda x: x.logsumexp(1),
    "var": lambda x: x.var(1),
    "std": lambda x: x.std((1, 2), correction=0, keepdim=True),
    "sum_bool": lambda x: (x > 0).sum(1),
}

IMAGE: dict[str, Callable[[Tensor], Any]] = {
    "max_pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max_pool_ceil": lambda x: F.max_pool2d(x, 2, 4, ceil_mode=True),
    "max_pool_unbatched": lambda x: F.max_pool2d(x[0], 2),
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "avg_pool_exclude": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "max_pool_indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "max_pool1": lambda x: F.max_pool1d(x[:, 0], 2),
    "gap": lambda x: F.adaptive_avg_pool2d(x, 1),
    "gmp": lambda x: F.adaptive_max_pool2d(x, 1),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (4, 3)),
    "adaptive_max": lambda x: F.adaptive_max_pool2d(x, 4),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "bilinear": lambda x: F.interpolate(x, size=(9, 4), mode="bilinear"),
    "aligned": lambda x: F.interpolate(x, size=(9, 4), mode="bilinear", align_corners=True),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_shuffle3": lambda x: F.pixel_shuffle(x[0], 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "pad": lambda x: F.pad(x, (1, 2, 0, 3), value=0.5),
    "crop": lambda x: F.pad(x, (-1, 0, 0, -2)),
    "reflect": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "edge": lambda x: F.pad(x, (1, 2, 0, 3), mode="replicate"),
    "wrap": lambda x: F.pad(x, (1, 2, 0, 3), mode="circular"),
    "im2col": lambda x: F.unfold(x, (2, 3), 1, 1, 2),
    "glu": lambda x: F.glu(x, 1),
    "lp_pool": lambda x: F.lp_pool2d(x, 2, 2),
    "grid": lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1).tanh(), align_corners=False),
    "lrn": lambda x: F.local_response_norm(x, 2),
    "group_norm": lambda x: F.group_norm(x, 2),
    "instance_norm": lambda x: F.instance_norm(x),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "layer_norm": lambda x: F.layer_norm(x, (6, 6)),
    "rms_norm": lambda x: F.rms_norm(x, (6,)),
}


def _used(norm: nn.BatchNorm2d) -> nn.Module:
    """A layer whose statistics are no longer those of its start."""
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2)
    return norm.eval()


MODULES: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "linear": (nn.Linear(3, 5), (x23,)),
    "linear_no_bias": (nn.Linear(4, 5, bias=False), (x234,)),
    "conv1d": (nn.Conv1d(3, 4, 3, padding=1), (x234,)),
    "conv2d": (nn.Conv2d(4, 6, 3, 2, 1, 1, 2), (image,)),
    "conv_same": (nn.Conv2d(4, 4, (2, 4), padding="same", dilation=(1, 2)), (image,)),
    "conv_valid": (nn.Conv2d(4, 4, 3, padding="valid", bias=False), (image,)),
    "conv_unbatched": (nn.Conv2d(4, 4, 3), (image[0],)),
    "conv3d": (nn.Conv3d(4, 2, 2), (rand(1, 4, 3, 3, 3),)),
    "conv_transpose": (nn.ConvTranspose2d(4, 4, 3, 2, 1, 1, groups=2), (image,)),
    "prelu": (nn.PReLU(4, 0.1), (image,)),
    "prelu_one": (nn.PReLU(), (image,)),
    "prelu_flat": (nn.PReLU(3), (x23,)),
    "bn": (_used(nn.BatchNorm2d(4)), (image,)),
    "bn_train": (nn.BatchNorm1d(3), (x23,)),
    "gn": (nn.GroupNorm(2, 4), (image,)),
    "in": (nn.InstanceNorm2d(4, affine=True), (image,)),
    "ln": (nn.LayerNorm(5), (seq,)),
    "rms": (nn.RMSNorm(5, eps=1e-3), (seq,)),
    "in_eval": (nn.InstanceNorm2d(4, affine=True, track_running_stats=True).eval(), (image,)),
    "embedding": (nn.Embedding(7, 3), (torch.tensor([[1, 2], [6, 0]]),)),
    "weight_norm": (nn.utils.parametrizations.weight_norm(nn.Linear(3, 5)), (x23,)),
    "spectral_norm": (nn.utils.parametrizations.spectral_norm(nn.Linear(3, 5)).eval(), (x23,)),
    "mha": (nn.MultiheadAttention(8, 2), (rand(5, 2, 8), rand(4, 2, 8), rand(4, 2, 8))),
    "encoder": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), (rand(2, 5, 8),)),
    "sequential": (
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).eval(),
        (image,),
    ),
}
