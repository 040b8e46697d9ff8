"""Passes that put EquiNorm layers in, fold them, and take them out: same function, or how far from it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, symbolic_trace
from torch.fx.passes.infra.pass_manager import PassManager

from graphnorm.errors import InputError
from graphnorm.nn import (
    EquiNormConv1d,
    EquiNormConv2d,
    EquiNormConv3d,
    EquiNormLayer,
    EquiNormLinear,
    EquiNormOptions,
)
from graphnorm.passes import fx
from graphnorm.passes.fx.equinorm_layers import trace_layers

CONVS: dict[int, Any] = {1: EquiNormConv1d, 2: EquiNormConv2d, 3: EquiNormConv3d}
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}
GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1, "groups": 2},
    {"padding": 1, "padding_mode": "circular", "groups": 4},
    {"padding": "same", "dilation": 2, "padding_mode": "reflect"},
]
OPTIONS: list[dict[str, Any]] = [{}, {"one_pass": True}, {"affine": False}, {"signed_inputs": True}]


def sample(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def trained(model: Any, *batches: Tensor) -> Any:
    """In evaluation mode, with random affines and statistics of the batches."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.copy_(
                    torch.rand(parameter.shape, generator=generator) + (0.5 if "bias" not in name else -0.5)
                )
    for batch in batches:
        model.train()(batch)
    return model.eval()


def layers_of(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, EquiNormLayer)]


# Folding.


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_folded_convolutions(rank: int, geometry: dict[str, Any], options: dict[str, Any]) -> None:
    x = sample(2, 4, *[7] * rank).relu()
    layer = trained(CONVS[rank](4, 8, 3, dtype=torch.float64, **geometry, **options), x, x.square())
    model = nn.Sequential(layer, nn.ReLU())
    folding = fx.FoldEquiNormPass()
    folded = call(folding, model)
    assert type(folded[0]) in (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    assert folding.replaced == ("0",)
    torch.testing.assert_close(folded(x), model(x), **EXACT)
    assert model[0] is layer
    again = folding(folded)
    assert again is not None
    assert not again.modified


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_folded_linear_layers(options: dict[str, Any]) -> None:
    x = sample(6, 5).relu()
    layer = trained(EquiNormLinear(5, 4, dtype=torch.float64, **options), x)
    folded = call(fx.FoldEquiNormPass(), layer)
    assert type(folded) is nn.Linear
    torch.testing.assert_close(folded(x), layer(x), **EXACT)


class Block(nn.Module):
    """A residual block with BatchNorm."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = (
            nn.Conv2d(o, o, 3, 1, 1, groups=2),
            nn.BatchNorm2d(o, affine=False, momentum=0.3),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(i, o, 1, stride), nn.BatchNorm2d(o))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu(h + self.shortcut(x))
        return out


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), Block(8, 8, 1), Block(8, 16, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU(),
        nn.Linear(12, 4),
    ).double()  # fmt: skip
    return trained(model, *[sample(8, 3, 12, 12, seed=seed) for seed in range(30)])


def call(made: Any, model: Any) -> Any:
    """What a pass makes of a model."""
    return made(model).graph_module


def converted(model: nn.Module, **options: Any) -> tuple[Any, fx.ConvertToEquiNormPass]:
    conversion = fx.ConvertToEquiNormPass(**options)
    result = conversion(model)  # type: ignore[arg-type]
    assert result is not None
    assert result.modified == bool(conversion.converted)
    return result.graph_module, conversion


def test_folded_models_are_plain_convolutions_in_onnx(tmp_path: Path) -> None:
    model = converted(network(), calibration=(sample(8, 3, 12, 12),))[0].float()
    folded = call(fx.FoldEquiNormPass(), model)
    x = sample(2, 3, 12, 12, seed=5).float()
    file = tmp_path / "model.onnx"
    torch.onnx.export(folded, (x,), file, dynamo=True, verbose=False)
    proto = onnx.load(file)
    assert {node.op_type for node in proto.graph.node} <= {
        "Conv", "Relu", "Add", "Gemm", "Flatten", "Reshape", "ReduceMean", "GlobalAveragePool", "Identity",
    }  # fmt: skip
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(x.double()).numpy()
        noise = np.abs(model(x).numpy() - expected).max()
    assert np.abs(out - expected).max() <= 4 * noise + 1e-6 * np.abs(expected).max()


def test_folding_leaves_what_it_cannot_see_through() -> None:
    class Special(EquiNormConv2d):
        pass

    watched, shared = EquiNormConv2d(2, 2, 1), EquiNormConv2d(2, 2, 1)
    watched.register_forward_hook(lambda *_: None)
    parametrized = EquiNormConv2d(2, 2, 1)
    nn.utils.parametrize.register_parametrization(parametrized, "weight", nn.Identity())
    model = nn.Sequential(
        Special(2, 2, 1), watched, parametrized, EquiNormConv2d(2, 2, 1, track_running_stats=False),
        EquiNormConv2d(2, 2, 1, device="meta"), shared, shared, EquiNormConv2d(2, 2, 1),
    ).eval()  # fmt: skip
    model[7].train()
    folding = fx.FoldEquiNormPass(inplace=True)
    result = folding(model)  # type: ignore[arg-type]
    assert result is not None
    assert result.graph_module is model
    assert folding.replaced == ("5",)
    assert type(model[5]) is nn.Conv2d
    assert model[6] is model[5]
    reasons = dict(reason.split(": ", 1) for reason in folding.skipped)
    assert reasons.keys() == {"0", "1", "2", "3", "4", "7"}
    for path, words in {
        "1": "hooks", "3": "no running statistics", "4": "meta device", "7": "training mode; call eval",
    }.items():  # fmt: skip
        assert words in reasons[path]
    assert "subclass" in reasons["0"]


def test_folding_keeps_what_is_frozen() -> None:
    layer = EquiNormConv2d(2, 3, 3).eval()
    layer.weight.requires_grad_(False)
    plain = layer.folded()
    assert not plain.get_parameter("weight").requires_grad
    assert plain.get_parameter("bias").requires_grad


# From BatchNorm.


@pytest.mark.parametrize("traced", [True, False])
def test_conversion_stays_close(traced: bool) -> None:
    original = network()
    model = symbolic_trace(original) if traced else original
    state = copy.deepcopy(original.state_dict())
    new, conversion = converted(model, calibration=(sample(64, 3, 12, 12, seed=90),))
    assert type(new) is type(model) if not traced else isinstance(new, GraphModule)
    assert [(pair.layer, pair.norm) for pair in conversion.converted][:3] == [
        ("0", "1"), ("3.conv1", "3.bn1"), ("3.conv2", "3.bn2"),
    ]  # fmt: skip
    assert len(conversion.converted) == len(layers_of(new)) == 8
    assert conversion.skipped == ()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in new.modules())
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in state.items())
    assert not new.training
    x = sample(64, 3, 12, 12, seed=90)
    target, out = original(x), new(x)
    spread = (target - target.mean(0)).square().mean()
    assert all(pair.error is not None and pair.error < 0.7 for pair in conversion.converted)
    assert (out - target).square().mean() < 0.35 * spread
    other, _ = converted(model, fresh=True)
    assert (other.eval()(x) - target).square().mean() > spread


def test_the_fit_is_least_squares() -> None:
    original, x = network(), sample(32, 3, 12, 12, seed=90)
    new, conversion = converted(original, calibration=(x,))
    with torch.no_grad():
        target = original[1](original[0](x))
        error = (new[0](x) - target).square().mean()
        spread = (target - target.mean((0, 2, 3), keepdim=True)).square().mean()
        assert conversion.converted[0].error == pytest.approx(float((error / spread).sqrt()), rel=1e-9)
        for name in ("gain", "bias"):
            for factor in (0.99, 1.01):
                other = copy.deepcopy(new[0])
                other.get_parameter(name).mul_(factor)
                assert (other(x) - target).square().mean() > error
        weight = new[0].weight.flatten(1)
        means = new[0].running_v.repeat_interleave(9)
        assert (weight @ means).abs().max() < 1e-9  # no mean, so that no shift is added
        for seed in range(5):
            other, step = copy.deepcopy(new[0]), 0.01 * sample(8, 27, seed=seed)
            step -= (step @ means)[:, None] * means / means.square().sum()
            other.weight += step.reshape(other.weight.shape)
            assert (other(x) - target).square().mean() > error
    assert new[0].options.signed_inputs
    assert not new[3].conv1.options.signed_inputs
    torch.testing.assert_close(new[0].running_v, new[0].batch_statistics(x), **EXACT)


def test_a_layer_without_mean_converts_exactly() -> None:
    """Where W has no v-weighted mean, nothing is lost."""
    x = sample(16, 4, 6, 6).relu()
    conv, norm = nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular").double(), nn.BatchNorm2d(6).double()
    weights = x.mean((0, 2, 3))
    with torch.no_grad():
        mean = (conv.weight.mean((2, 3)) * weights).sum(1) / weights.sum()
        conv.weight -= mean[:, None, None, None]
    model = trained(nn.Sequential(conv, norm), x)
    new, conversion = converted(model, calibration=(x,))
    assert conversion.converted[0].error is not None
    assert conversion.converted[0].error < 1e-12
    torch.testing.assert_close(new(x), model(x), **EXACT)


def test_fresh_layers() -> None:
    model = network().train()
    new, conversion = converted(model, fresh=True, options=EquiNormOptions(one_pass=True, momentum=None))
    assert all(pair.error is None for pair in conversion.converted)
    assert not torch.equal(new[0].weight, model.get_parameter("0.weight"))
    assert new[3].conv2.gain is None  # its BatchNorm had no affine
    assert new[3].conv2.options.momentum == 0.3
    assert all(module.training for module in new.modules())
    assert all(layer.options.one_pass for layer in layers_of(new))  # type: ignore[union-attr]
    new(sample(8, 3, 12, 12)).sum().backward()
    signed = converted(model, fresh=True, calibration=(sample(8, 3, 12, 12),))[0]
    assert signed[0].options.signed_inputs
    assert (signed[0].gain == 1).all()


def test_conversion_in_place() -> None:
    model, x = network(), sample(16, 3, 12, 12)
    expected = converted(model, calibration=(x,))[0](x)
    new, _ = converted(model, calibration=(x,), inplace=True)
    assert new is model
    assert type(model[1]) is nn.Identity
    torch.testing.assert_close(model(x), expected, **EXACT)
    assert converted(model, calibration=(x,))[1].converted == ()


class Awkward(nn.Module):
    """BatchNorms that no EquiNorm layer can take in."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.bn_up = nn.ConvTranspose2d(2, 2, 2), nn.BatchNorm2d(2)
        self.conv, self.bn = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
        self.twice, self.bn_twice = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
        self.good, self.bn_good = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn_up(self.up(x))
        h = self.conv(x)
        x = torch.relu(self.bn(h) + h)
        x = torch.relu(self.bn_twice(self.twice(torch.relu(self.twice(x)))))
        out: Tensor = self.bn_good(self.good(x))
        return out


def test_what_cannot_be_converted_has_its_reason() -> None:
    conversion = converted(Awkward(), fresh=True)[1]
    assert [pair.layer for pair in conversion.converted] == ["good"]
    reasons = dict(reason.split(": ", 1) for reason in conversion.skipped)
    assert reasons == {
        "bn_up": "there is no EquiNorm layer for ConvTranspose2d",
        "bn": "the output of conv is also used by add",
        "bn_twice": "twice is called more than once",
    }


def test_conversion_refuses() -> None:
    class Dynamic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(
        InputError, match=r"give calibration=\(inputs, ...\) to fit the layers on, or fresh=True"
    ):
        converted(network())
    with pytest.raises(InputError, match=r"torch.fx cannot trace Dynamic"):
        converted(Dynamic(), fresh=True)
    with pytest.raises(InputError, match=r"cannot be fitted: use fresh=True"):
        converted(network(), calibration=(), options=EquiNormOptions(track_running_stats=False))
    with pytest.raises(InputError, match=r"ConvertToEquiNormPass takes a torch.nn.Module, got int"):
        fx.ConvertToEquiNormPass(fresh=True)(3)  # type: ignore[arg-type]


# Back to BatchNorm, and to GroupNorm.


@pytest.mark.parametrize("options", OPTIONS[:3], ids=str)
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_back_to_batch_norm_is_the_same_function(rank: int, options: dict[str, Any]) -> None:
    x = sample(6, 4, *[6] * rank).relu()
    made: Any = (
        CONVS[rank](4, 8, 3, groups=2, dtype=torch.float64, **options)
        if rank
        else EquiNormLinear(4, 8, dtype=torch.float64, **options)
    )
    model = nn.Sequential(trained(made, x))
    conversion = fx.ConvertToBatchNormPass()
    new = call(conversion, model)
    assert conversion.replaced == ("0",)
    assert isinstance(new[0][1], (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
    torch.testing.assert_close(new(x), model(x), **EXACT)
    new.train()(x).sum().backward()


def test_group_norm_takes_the_place_of_both() -> None:
    model: Any = nn.Sequential(
        EquiNormConv2d(3, 48, 3), nn.ReLU(), nn.Conv2d(48, 10, 1), nn.BatchNorm2d(10, affine=False)
    )
    conversion = fx.ConvertToGroupNormPass()
    new = call(conversion, model)
    assert conversion.replaced == ("0", "3")
    assert (new[0][1].num_groups, new[3].num_groups) == (16, 2)
    assert new[3].weight is None
    x = torch.rand(2, 3, 8, 8)
    expected = nn.functional.group_norm(nn.functional.conv2d(x, new[0][0].weight), 16)
    torch.testing.assert_close(new[0](x), expected)
    torch.testing.assert_close(new[0][0].weight, model[0].normalized_weight())
    with pytest.raises(InputError, match="groups must be 1 or more, got 0"):
        fx.ConvertToGroupNormPass(groups=0)(model)


def test_passes_compose_and_graphs_keep_their_layers_whole() -> None:
    graph = trace_layers(nn.Sequential(EquiNormConv2d(3, 4, 3), nn.ReLU()).eval())
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "call_module", "output"]
    x = sample(4, 3, 12, 12)
    managed = PassManager([fx.ConvertToEquiNormPass((x,)), fx.FoldEquiNormPass()])
    result = managed(symbolic_trace(network()))
    assert result is not None
    assert result.modified
    assert not layers_of(result.graph_module)
    assert result.graph_module(x).shape == (4, 4)
