"""FX and ONNX passes: same function, nothing folded that may not be, and each refusal has its reason."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import PassManager as OnnxPassManager
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn
from torch.fx import GraphModule, symbolic_trace
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from torch.fx.passes.infra.pass_manager import PassManager
from torch.fx.passes.shape_prop import ShapeProp

from graphnorm.errors import InputError
from graphnorm.passes import fx
from graphnorm.passes import onnx as onnx_passes

NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def randomised(module: nn.Module, seed: int = 0) -> Any:
    """In float64 and evaluation mode, every parameter and statistic drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_floating_point():
                tensor.normal_(generator=generator)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.1)
    return module


def sample(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def assert_same(one: nn.Module, other: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(one(x), other(x), rtol=1e-12, atol=1e-12)


def apply(transform: Callable[[GraphModule], PassResult | None], module: GraphModule) -> PassResult:
    result = transform(module)
    assert result is not None
    return result


def norms_in(graph_module: GraphModule) -> int:
    return sum(isinstance(module, tuple(NORMS.values())) for module in graph_module.modules())


def fold(graph_module: GraphModule, **options: Any) -> tuple[Any, bool, tuple[str, ...]]:
    folding = fx.FoldBatchNormPass(**options)
    result = apply(folding, graph_module)
    return result.graph_module, result.modified, folding.skipped


# torch.fx: folding


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kinds", [CONVS, TRANSPOSED], ids=["conv", "transposed"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_fx_folds_convolutions(
    rank: int, kinds: dict[int, Any], groups: int, affine: bool, bias: bool
) -> None:
    conv = kinds[rank](4, 8, 3, stride=2, padding=1, groups=groups, bias=bias)
    traced = symbolic_trace(randomised(nn.Sequential(conv, NORMS[rank](8, affine=affine), nn.ReLU())))
    before = {name: tensor.clone() for name, tensor in traced.state_dict().items()}
    folded, modified, skipped = fold(traced)
    assert modified
    assert skipped == ()
    assert norms_in(folded) == 0
    assert norms_in(traced) == 1
    assert "1" not in dict(folded.named_modules())
    assert_same(traced, folded, sample(2, 4, *[5] * rank))
    after = traced.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert fold(folded)[:2] == (folded, False)


class Viewed(nn.Module):
    def __init__(self, flatten: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.flatten, self.fc, self.bn = flatten, nn.Linear(12, 12), nn.BatchNorm1d(12)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.fc(nn.functional.relu(self.flatten(x))))
        return out


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: torch.flatten(x, 1),
        lambda x: torch.flatten(x, start_dim=1),
        lambda x: x.flatten(1, -1),
        lambda x: x.view(x.size(0), -1),
        nn.Flatten(),
    ],
)
def test_fx_folds_linear_layers_of_matrices(flatten: Callable[[Tensor], Tensor]) -> None:
    traced = symbolic_trace(randomised(Viewed(flatten)))
    folded, modified, _ = fold(traced)
    assert modified
    assert_same(traced, folded, sample(5, 3, 4))


@pytest.mark.parametrize(("shape", "folds"), [((5, 6), True), ((5, 6, 6), False)])
def test_fx_linear_needs_a_rank_and_takes_shape_metadata(shape: tuple[int, ...], folds: bool) -> None:
    traced = symbolic_trace(randomised(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))))
    assert "rank of 0's output is unknown" in fold(traced)[2][0]
    x = sample(*shape)
    ShapeProp(traced).propagate(x)
    folded, modified, skipped = fold(traced)
    assert modified is folds
    assert_same(traced, folded, x)
    if not folds:
        assert "has rank 3, not 2" in skipped[0]


def test_fx_unbatched_conv_is_left_alone_when_metadata_tells() -> None:
    traced = symbolic_trace(randomised(nn.Sequential(nn.Conv1d(4, 6, 1), nn.BatchNorm1d(6))))
    ShapeProp(traced).propagate(sample(4, 6))
    assert "rank 2, not 3" in fold(traced)[2][0]


class Block(nn.Module):
    """A residual block whose shortcut has its own convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(8)
        self.shortcut = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(nn.functional.relu(self.bn1(self.conv1(x)))))
        out: Tensor = self.fc(nn.functional.relu(y + self.shortcut(x)).mean((2, 3)))
        return out


def test_fx_folds_a_residual_block_and_leaves_the_model_alone() -> None:
    model = randomised(Block())
    folded, modified, skipped = fold(symbolic_trace(model))
    assert modified
    assert skipped == ()
    assert norms_in(folded) == 0
    assert model.conv1.bias is None
    assert_same(model, folded, sample(2, 3, 6, 6))


def test_fx_in_place() -> None:
    model = randomised(Block())
    original, traced = copy.deepcopy(model), symbolic_trace(model)
    folded, modified, _ = fold(traced, inplace=True)
    assert modified
    assert folded is traced
    assert_same(original, traced, sample(2, 3, 6, 6))


def test_fx_folds_two_norms_in_a_row_and_keeps_requires_grad() -> None:
    model = randomised(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)))
    model[0].weight.requires_grad_(False)
    traced = symbolic_trace(model)
    folded, _, skipped = fold(traced)
    assert skipped == ()
    assert not folded.get_parameter("0.weight").requires_grad
    assert_same(model, folded, sample(2, 3, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_fx_rounds_once(dtype: torch.dtype) -> None:
    model = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).to(dtype)
    exact, _, _ = fold(symbolic_trace(copy.deepcopy(model).double()))
    folded, _, _ = fold(symbolic_trace(model))
    for name, tensor in folded.state_dict().items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, exact.state_dict()[name].to(dtype))


# torch.fx: what is not folded


class Pair(nn.Module):
    """A convolution and a BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.other = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Any:
        return self.bn(self.conv(x))


class UsedTwice(Pair):
    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.bn(y) + y


class ConvCalledTwice(Pair):
    def forward(self, x: Tensor) -> Any:
        return self.bn(self.conv(x)) + self.conv(-x)


class NormCalledTwice(Pair):
    def forward(self, x: Tensor) -> Any:
        return self.bn(self.conv(x)) + self.bn(self.other(x))


class WeightRead(Pair):
    def forward(self, x: Tensor) -> Any:
        return self.bn(self.conv(x)) * self.conv.weight.sum()


class AfterRelu(Pair):
    def forward(self, x: Tensor) -> Any:
        return self.bn(nn.functional.relu(self.conv(x)))


class Functional(Pair):
    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return nn.functional.batch_norm(
            y, self.bn.running_mean, self.bn.running_var, self.bn.weight, self.bn.bias
        )


class OwnConv(nn.Conv2d):
    __module__ = "torch.nn.own"  # a leaf of symbolic_trace


def changed(change: Callable[[Any], Any], kind: type[Pair] = Pair) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model: Pair = randomised(kind())
        change(model)
        return model

    return make


def replace(name: str, module: nn.Module) -> Callable[[Any], Any]:
    return lambda model: setattr(model, name, randomised(module))


def nothing(model: Any) -> None:
    del model


REFUSED: dict[str, Callable[[], nn.Module]] = {
    r"the output of conv is also used by add": changed(nothing, UsedTwice),
    r"conv is called more than once": changed(nothing, ConvCalledTwice),
    r"it is called more than once": changed(nothing, NormCalledTwice),
    r"the weight of conv is shared": changed(nothing, WeightRead),
    r"its input relu is not the output of": changed(nothing, AfterRelu),
    r"called as a function": changed(nothing, Functional),
    r"it is in training mode": changed(lambda model: model.bn.train()),
    r"no running statistics": changed(replace("bn", nn.BatchNorm2d(4, track_running_stats=False))),
    r"conv has hooks": changed(lambda model: model.conv.register_forward_hook(lambda *_: None)),
    r"it has hooks": changed(lambda model: model.bn.register_forward_pre_hook(lambda *_: None)),
    r"conv is parametrized": changed(lambda model: nn.utils.parametrizations.weight_norm(model.conv)),
    r"conv is a OwnConv": changed(replace("conv", OwnConv(4, 4, 1))),
    r"Conv2d takes BatchNorm2d, it is SyncBatchNorm": changed(replace("bn", nn.SyncBatchNorm(4))),
    r"it has 5 channels, conv has 4": changed(replace("bn", nn.BatchNorm2d(5))),
    r"no data \(meta device\)": changed(lambda model: model.to("meta")),
    r"weight of conv is torch.complex128": changed(
        lambda model: setattr(model.conv, "weight", nn.Parameter(model.conv.weight * 1j))
    ),
    r"not finite in torch.float64": changed(lambda model: model.bn.running_var.fill_(-1.0)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_fx_says_why_not(reason: str) -> None:
    traced = symbolic_trace(REFUSED[reason]())
    result, modified, skipped = fold(traced)
    assert result is traced
    assert not modified
    assert any(re.search(reason, text) for text in skipped), skipped


def test_fx_shared_weight_is_not_folded() -> None:
    model = randomised(Pair())
    model.other.weight = model.conv.weight
    traced = symbolic_trace(model)
    traced.add_submodule("other", model.other)
    assert "the weight of conv is shared" in fold(traced)[2][0]


@pytest.mark.parametrize("make", [fx.FoldBatchNormPass, lambda: fx.CanonicalizePass((sample(1, 4),))])
def test_fx_takes_graph_modules_only(make: Callable[[], PassBase]) -> None:
    with pytest.raises(InputError, match=r"got Linear: trace it first with torch.fx.symbolic_trace"):
        make()(nn.Linear(2, 2))  # type: ignore[arg-type]


def test_fx_module_that_cannot_be_copied() -> None:
    model = randomised(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    model[0].trace = model[0].weight * 1  # as torch.nn.utils.weight_norm leaves one
    with pytest.raises(InputError, match=r"cannot be copied .*inplace=True"):
        fold(symbolic_trace(model))
    assert fold(symbolic_trace(model), inplace=True)[1]


# torch.fx: composition


class DropIdentities(PassBase):
    def call(self, graph_module: GraphModule) -> PassResult:
        modified = False
        for node in list(graph_module.graph.nodes):
            if node.op == "call_module" and type(graph_module.get_submodule(node.target)) is nn.Identity:
                node.replace_all_uses_with(node.args[0])
                graph_module.graph.erase_node(node)
                modified = True
        return PassResult(graph_module, modified)


def test_fx_passes_compose() -> None:
    layers = (nn.Conv2d(3, 6, 3), nn.Identity(), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 3))
    model = randomised(nn.Sequential(*layers))
    x = sample(2, 3, 8, 8)
    manager = PassManager([DropIdentities(), fx.FoldBatchNormPass(), fx.CanonicalizePass((x,))])
    expected = copy.deepcopy(model)
    result = manager(symbolic_trace(model))
    assert result.modified
    assert norms_in(result.graph_module) == 0
    assert_same(expected, result.graph_module, x)
    again = manager(result.graph_module)
    assert not again.modified
    assert again.graph_module is result.graph_module


# torch.fx: canonicalisation


def test_fx_canonicalises() -> None:
    traced, x = symbolic_trace(randomised(Block())), sample(2, 3, 6, 6)
    before = copy.deepcopy(traced.state_dict())
    canonicalize = fx.CanonicalizePass((x,))
    result = apply(canonicalize, traced)
    assert result.modified
    assert isinstance(result.graph_module, GraphModule)
    assert canonicalize.report is not None
    assert_same(traced, result.graph_module, x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in traced.state_dict().items())


def test_fx_canonicalises_in_place_and_exactly() -> None:
    model, x = randomised(Block()), sample(2, 3, 6, 6)
    expected = copy.deepcopy(model)
    result = apply(fx.CanonicalizePass((x,), mode="exact", inplace=True), symbolic_trace(model))
    assert result.modified
    with torch.no_grad():
        assert torch.equal(expected(x), model(x))


def test_fx_bad_options_reach_the_user() -> None:
    with pytest.raises(InputError, match=r"mode must be one of"):
        fx.CanonicalizePass((sample(2, 3, 6, 6),), mode="best")(symbolic_trace(randomised(Block())))


# ONNX: folding

RNG = np.random.default_rng(3)


def array(*shape: int, dtype: Any = np.float32) -> Any:
    return RNG.standard_normal(shape).astype(dtype)


def info(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape or None)


def stats(channels: int, prefix: str = "", dtype: Any = np.float32) -> dict[str, Any]:
    drawn = {f"{prefix}{name}": array(channels, dtype=dtype) for name in ("gamma", "beta", "mean", "var")}
    drawn[f"{prefix}var"] = (np.abs(drawn[f"{prefix}var"]) + dtype(0.1)).astype(dtype)
    return drawn


def norm_node(x: str, y: str, prefix: str = "", **attributes: Any) -> onnx.NodeProto:
    names = [x, *(f"{prefix}{name}" for name in ("gamma", "beta", "mean", "var"))]
    return helper.make_node("BatchNormalization", names, [y], name=f"bn_{y}", **attributes)


def make(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, Any],
    shape: Sequence[int],
    outputs: Sequence[str] = ("y",),
    opset: int = 18,
    ir_version: int = 9,
    overridable: Sequence[str] = (),
) -> onnx_ir.Model:
    tensors = [numpy_helper.from_array(np.asarray(data), name) for name, data in weights.items()]
    inputs = [info("x", *shape), *(info(name, *weights[name].shape) for name in overridable)]
    graph = helper.make_graph(nodes, "net", inputs, [info(name) for name in outputs], tensors)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    return onnx_ir.from_proto(onnx.shape_inference.infer_shapes(model))


def run(model: onnx_ir.Model, x: Any) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    proto = onnx_ir.to_proto(model)
    onnx.checker.check_model(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, {"x": x}))


def ops(model: onnx_ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def fold_onnx(model: onnx_ir.Model) -> tuple[bool, tuple[str, ...]]:
    folding = onnx_passes.FoldBatchNormPass()
    result = folding(model)
    assert result.model is model
    return result.modified, folding.skipped


def assert_folds(model: onnx_ir.Model, x: Any) -> None:
    before, names = run(model, x), [value.name for value in model.graph.outputs]
    assert fold_onnx(model) == (True, ())
    assert "BatchNormalization" not in ops(model)
    assert names == [value.name for value in model.graph.outputs]
    for old, new in zip(before, run(model, x), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=2e-5 * np.abs(old).max())
    assert fold_onnx(model) == (False, ())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_onnx_folds_convolutions(rank: int, op: str, groups: int, bias: bool) -> None:
    axes = (8, 4 // groups) if op == "Conv" else (4, 8 // groups)
    weights = {"w": array(*axes, *[3] * rank), **stats(8), **({"b": array(8)} if bias else {})}
    names = ["x", "w", "b"] if bias else ["x", "w"]
    nodes = [helper.make_node(op, names, ["h"], group=groups), norm_node("h", "y", epsilon=1e-3)]
    model = make(nodes, weights, [2, 4, *[5] * rank])
    assert_folds(model, array(2, 4, *[5] * rank))
    assert set(model.graph.initializers) == {"w", "b" if bias else "w_folded_bias"}


@pytest.mark.parametrize("bias", [None, (), (1,), (6,), (1, 6), (3, 6), (3, 1)])
@pytest.mark.parametrize("transposed", [0, 1])
def test_onnx_folds_gemm(transposed: int, bias: tuple[int, ...] | None) -> None:
    weights = {"w": array(*((6, 4) if transposed else (4, 6))), **stats(6)}
    if bias is not None:
        weights["b"] = array(*bias)
    names = ["x", "w"] if bias is None else ["x", "w", "b"]
    nodes = [helper.make_node("Gemm", names, ["h"], transB=transposed, alpha=0.5), norm_node("h", "y")]
    assert_folds(make(nodes, weights, [3, 4]), array(3, 4))


@pytest.mark.parametrize(
    ("opset", "ir_version"), [(7, 3), (8, 3), (9, 4), (13, 7), (14, 8), (15, 8), (22, 10)]
)
def test_onnx_folds_in_every_opset(opset: int, ir_version: int) -> None:
    weights = {"w": array(5, 3, 3, 3), **stats(5)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["h"]), norm_node("h", "y")]
    inputs = list(weights) if ir_version < 4 else []
    model = make(nodes, weights, [1, 3, 6, 6], opset=opset, ir_version=ir_version, overridable=inputs)
    assert_folds(model, array(1, 3, 6, 6))
    expected = {"x", "w", "w_folded_bias"} if ir_version < 4 else {"x"}
    assert {value.name for value in model.graph.inputs} == expected


def test_onnx_chains_constants_and_shared_weights() -> None:
    constants = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(array(4, 4, 3, 3), "")),
        helper.make_node("Constant", [], ["beta"], value_floats=[0.5, -1.0, 2.0, 0.0]),
    ]
    nodes = [
        *constants,
        helper.make_node("Conv", ["x", "w", "b"], ["h1"], pads=[1, 1, 1, 1]),
        norm_node("h1", "h2"),
        norm_node("h2", "h3", prefix="second_"),
        helper.make_node("Conv", ["h3", "w", "b"], ["h4"], pads=[1, 1, 1, 1]),
        norm_node("h4", "y"),
    ]
    weights = {**stats(4), **stats(4, "second_"), "b": array(4)}
    del weights["beta"]
    model = make(nodes, weights, [2, 4, 5, 5], outputs=("y", "h3"))
    assert_folds(model, array(2, 4, 5, 5))
    assert ops(model) == ["Conv", "Conv"]
    assert len(model.graph.initializers) == 4


def test_onnx_shared_weight_is_not_changed() -> None:
    weights = {"w": array(3, 3, 1, 1), "w_folded": array(1), **stats(3)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        norm_node("h", "n"),
        helper.make_node("Conv", ["n", "w"], ["m"]),
        helper.make_node("Mul", ["m", "w_folded"], ["y"]),
    ]
    model = make(nodes, weights, [1, 3, 2, 2])
    assert_folds(model, array(1, 3, 2, 2))
    kept = model.graph.initializers["w"].const_value
    assert kept is not None
    np.testing.assert_array_equal(kept.numpy(), weights["w"])
    assert "w_folded_1" in model.graph.initializers


def test_onnx_folds_inside_control_flow() -> None:
    branch = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["h"]), norm_node("h", "y1")], "then", [], [info("y1")]
    )
    other = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y2"])], "else", [], [info("y2")])
    nodes = [helper.make_node("If", ["cond"], ["y"], then_branch=branch, else_branch=other)]
    weights = {"cond": np.asarray(True), "w": array(3, 3, 1, 1), **stats(3)}
    model = make(nodes, weights, [1, 3, 2, 2])
    assert_folds(model, array(1, 3, 2, 2))
    assert set(model.graph.initializers) == {"cond", "w", "w_folded", "w_folded_bias"}
    assert all(node.op_type != "BatchNormalization" for node in model.graph.all_nodes())


ROUNDING = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 2**-24, "float64": 2**-52}  # half an ulp


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_onnx_rounds_once(dtype: Any) -> None:
    weights = {"w": array(4, 3, 2, 2, dtype=dtype), "b": array(4, dtype=dtype), **stats(4, dtype=dtype)}
    model = make(
        [helper.make_node("Conv", ["x", "w", "b"], ["h"]), norm_node("h", "y")], weights, [1, 3, 4, 4]
    )
    assert fold_onnx(model) == (True, ())
    exact = {name: data.astype(np.float64) for name, data in weights.items()}
    scale = exact["gamma"] / np.sqrt(exact["var"] + float(np.float32(1e-5)))
    expected = {
        "w": exact["w"] * scale[:, None, None, None],
        "b": scale * (exact["b"] - exact["mean"]) + exact["beta"],
    }
    for name, data in expected.items():
        found = model.graph.initializers[name].const_value
        assert found is not None
        assert found.numpy().dtype == dtype
        np.testing.assert_allclose(
            found.numpy().astype(np.float64), data, rtol=ROUNDING[np.dtype(dtype).name], atol=1e-7
        )


# ONNX: what is not folded


def conv_norm(**changes: Any) -> onnx_ir.Model:
    """Conv and BatchNormalization, with one thing changed."""
    weights = {"w": array(4, 4, 1, 1), **stats(4), **changes.pop("weights", {})}
    norm = norm_node("h", "y", **changes.pop("norm", {}))
    norm.output.extend(changes.pop("extra", ()))
    norm.input[1] = changes.pop("gamma", "gamma")
    layer = changes.pop("layer", helper.make_node("Conv", ["x", "w"], ["h"]))
    nodes = [*changes.pop("first", ()), layer, *changes.pop("middle", ()), norm]
    return make(nodes, weights, [1, 4, 2, 2], **changes)


def refused_in_branch() -> onnx_ir.Model:
    branch = helper.make_graph([norm_node("h", "y1")], "then", [], [info("y1")])
    other = helper.make_graph([helper.make_node("Relu", ["x"], ["y2"])], "else", [], [info("y2")])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("If", ["cond"], ["y"], then_branch=branch, else_branch=other),
    ]
    return make(nodes, {"cond": np.asarray(True), "w": array(4, 4, 1, 1), **stats(4)}, [1, 4, 2, 2])


ONNX_REFUSED: dict[str, Callable[[], onnx_ir.Model]] = {
    "bn_y: opset 6 is older than 7": lambda: conv_norm(opset=6, ir_version=3),
    "bn_y: its statistics are per position": lambda: conv_norm(opset=7, norm={"spatial": 0}),
    "bn_y: it is in training mode": lambda: conv_norm(norm={"training_mode": 1}, extra=["m", "v"]),
    "training mode": lambda: conv_norm(opset=9, extra=["m", "v", "sm", "sv"]),
    "input h is not computed by Conv": lambda: conv_norm(layer=helper.make_node("Relu", ["x"], ["h"])),
    "h is computed in another graph": refused_in_branch,
    "h is also an output": lambda: conv_norm(outputs=("y", "h")),
    "h is also used elsewhere": lambda: conv_norm(
        middle=[helper.make_node("Relu", ["h"], ["r"])], outputs=("y", "r")
    ),
    "Gemm with beta other than 1": lambda: conv_norm(
        layer=helper.make_node("Gemm", ["x", "w", "b"], ["h"], beta=2.0),
        weights={"w": array(4, 4), "b": array(4)},
    ),
    "g is not a constant": lambda: conv_norm(first=[helper.make_node("Abs", ["gamma"], ["g"])], gamma="g"),
    "w is also a graph input": lambda: conv_norm(overridable=["w"]),
    "not four vectors of 4 numbers, the channels of h": lambda: conv_norm(weights={"mean": array(5)}),
    "weights of h are not finite in float32": lambda: conv_norm(weights={"var": -np.ones(4, np.float32)}),
}


@pytest.mark.parametrize("reason", ONNX_REFUSED)
def test_onnx_says_why_not(reason: str) -> None:
    model = ONNX_REFUSED[reason]()
    before = onnx_ir.to_proto(model).SerializeToString()
    modified, skipped = fold_onnx(model)
    assert not modified
    assert len(skipped) == 1
    assert reason in skipped[0]
    assert onnx_ir.to_proto(model).SerializeToString() == before


@pytest.mark.parametrize("make_pass", [onnx_passes.FoldBatchNormPass, onnx_passes.CanonicalizePass])
def test_onnx_takes_ir_models_only(make_pass: Any) -> None:
    with pytest.raises(InputError, match=r"takes an onnx_ir.Model, got ModelProto: .*from_proto"):
        make_pass()(onnx.ModelProto())


# ONNX: canonicalisation and composition


def small_net() -> onnx_ir.Model:
    weights = {"w": array(6, 3, 3, 3), "w2": array(2, 6, 3, 3), "b2": array(2), **stats(6)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        norm_node("h", "n"),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "w2", "b2"], ["y"]),
        helper.make_node("Relu", ["y"], ["unused"]),
    ]
    return make(nodes, weights, [1, 3, 8, 8])


def test_onnx_passes_compose() -> None:
    model, x = small_net(), array(1, 3, 8, 8)
    before = run(model, x)[0]
    pipeline = Sequential(
        RemoveUnusedNodesPass(), onnx_passes.FoldBatchNormPass(), onnx_passes.CanonicalizePass()
    )
    result = pipeline(model)
    assert result.modified
    assert result.model is not model
    assert ops(result.model) == ["Conv", "Relu", "Conv"]
    np.testing.assert_allclose(run(result.model, x)[0], before, rtol=1e-4, atol=1e-4)
    assert not pipeline(result.model).modified
    assert not OnnxPassManager([pipeline], steps=2)(result.model).modified


def test_onnx_canonicalises_without_touching_its_input() -> None:
    model, x = small_net(), array(1, 3, 8, 8)
    untouched = onnx_ir.to_proto(model).SerializeToString()
    canonicalize = onnx_passes.CanonicalizePass(mode="exact")
    result = canonicalize(model)
    assert result.modified
    assert canonicalize.report is not None
    assert onnx_ir.to_proto(model).SerializeToString() == untouched
    np.testing.assert_array_equal(run(result.model, x)[0], run(model, x)[0])


def test_importing_passes_is_light() -> None:
    code = "import sys, graphnorm.passes; assert not {'torch', 'onnx', 'onnx_ir'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
