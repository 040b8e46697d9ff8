"""EquiNorm layers: the formulas literally, what they promise, degenerate input, types, statistics."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from graphnorm.errors import InputError
from graphnorm.nn import (
    EquiNormConv1d,
    EquiNormConv2d,
    EquiNormConv3d,
    EquiNormLayer,
    EquiNormLinear,
    resample_signs_,
)  # fmt: skip
from graphnorm.nn.equilibrium import equilibrium, seen
from graphnorm.nn.signs import one_signed
from tests.support import equinorm_literal as literal

CONVS: dict[int, Any] = {1: EquiNormConv1d, 2: EquiNormConv2d, 3: EquiNormConv3d}
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}
DOUBLE = torch.float64


def images(*shape: int, seed: int = 0) -> Tensor:
    """What a ReLU gives."""
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)).relu()


def randomised(layer: Any, seed: int = 1) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
        resample_signs_(layer.weight, generator)
    return layer


def conv(rank: int = 2, *args: Any, seed: int = 1, **options: Any) -> Any:
    return randomised(CONVS[rank](*args, dtype=DOUBLE, **options), seed)


# The formulas.


GEOMETRIES = [
    {},
    {"stride": 2, "padding": 1},
    {"padding": 1, "padding_mode": "circular"},
    {"padding": 2, "dilation": 2, "padding_mode": "reflect"},
    {"stride": 3, "padding": 1, "padding_mode": "replicate", "groups": 2},
    {"padding": "same", "dilation": 2, "groups": 4},
]


@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_are_the_formulas(rank: int, geometry: dict[str, Any], one_pass: bool) -> None:
    layer = conv(rank, 4, 8, 3, one_pass=one_pass, **geometry)
    x = images(3, 4, *range(7, 7 + rank))
    torch.testing.assert_close(layer(x), literal.forward(layer, x, 3), **EXACT)


def test_sides_of_different_sizes() -> None:
    layer = conv(2, 2, 3, (3, 2), stride=(1, 3), padding=(2, 0), dilation=(2, 1))
    x = images(2, 2, 9, 8)
    torch.testing.assert_close(layer(x), literal.forward(layer, x, 2), **EXACT)


@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5)])
def test_linear_layers_are_the_formulas(shape: tuple[int, ...], one_pass: bool) -> None:
    layer = randomised(EquiNormLinear(5, 4, dtype=DOUBLE, one_pass=one_pass))
    x = images(*shape)
    torch.testing.assert_close(layer(x), literal.forward(layer, x, shape[0]), **EXACT)


@pytest.mark.parametrize(("fraction", "samples"), [(0.25, 2), (0.5, 4), (0.3, 3), (0.01, 1)])
def test_statistics_of_the_first_part(fraction: float, samples: int) -> None:
    layer = conv(2, 2, 3, 3, padding=1, stats_fraction=fraction)
    x = images(8, 2, 5, 5)
    torch.testing.assert_close(layer(x), literal.forward(layer, x, samples), **EXACT)


def test_a_sample_without_a_batch() -> None:
    layer = conv(2, 2, 3, 3, padding=1, stats_fraction=0.25)
    x = images(1, 2, 5, 5)
    torch.testing.assert_close(layer(x[0]), layer(x)[0], **EXACT)
    line = randomised(EquiNormLinear(5, 4, dtype=DOUBLE))
    row = images(1, 5)
    torch.testing.assert_close(line(row[0]), line(row)[0], **EXACT)


def test_the_literal_formulas_notice_a_planted_error() -> None:
    layer = conv(2, 2, 3, 3, padding=1)
    x = images(3, 2, 5, 5)
    expected = literal.forward(layer, x, 3)
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] *= 1.01
    assert (layer(x) - expected).abs().max() > 1e-6


GRADIENTS = {
    "two_pass": {}, "one_pass": {"one_pass": True}, "signed": {"signed_inputs": True},
    "part": {"stats_fraction": 0.5}, "groups": {"groups": 2, "stride": 2, "dilation": 2, "padding": 1},
    "depthwise": {"groups": 4}, "circular": {"padding": 1, "padding_mode": "circular"},
}  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", GRADIENTS.values(), ids=GRADIENTS)
def test_gradients(options: dict[str, Any], training: bool) -> None:
    layer = conv(2, 4, 4, 2, **options).train(training)
    layer.running_v.uniform_(0.5, 1.5)
    names = [name for name, _ in layer.named_parameters()]
    x = (images(2, 4, 4, 4) + 0.1).requires_grad_()

    def run(x: Tensor, *values: Tensor) -> Any:
        return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


def test_linear_gradients() -> None:
    layer = randomised(EquiNormLinear(4, 3, dtype=DOUBLE))
    x = (images(5, 4) + 0.1).requires_grad_()
    names = [name for name, _ in layer.named_parameters()]
    assert torch.autograd.gradcheck(
        lambda x, *values: functional_call(layer, dict(zip(names, values, strict=True)), (x,)),
        (x, *layer.parameters()),
    )


# What equilibrium means.


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_mean_zero_and_positive_part_one(rank: int, dilation: int, groups: int) -> None:
    x = images(4, 4, *[6] * rank)
    layer = conv(
        rank,
        4,
        8,
        3,
        padding=dilation,
        dilation=dilation,
        groups=groups,
        padding_mode="circular",
        affine=False,
    )
    axes = [axis for axis in range(rank + 2) if axis != 1]
    assert layer(x).mean(axes).abs().max() <= 1e-12
    weight = layer.normalized_weight(layer.batch_statistics(x))
    positive = layer._conv_forward(x, weight.clamp_min(0), None).mean(axes)
    negative = layer._conv_forward(x, weight.clamp_max(0), None).mean(axes)
    torch.testing.assert_close(positive, torch.ones_like(positive), **EXACT)
    torch.testing.assert_close(negative, -torch.ones_like(positive), **EXACT)


def test_zero_padding_is_near_that() -> None:
    layer = conv(2, 4, 8, 3, padding=1, affine=False)
    mean = layer(images(4, 4, 12, 12)).mean((0, 2, 3)).abs().max()
    assert 1e-6 < mean < 0.5


# Degenerate input.


def gradients(layer: Any, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = layer(x)
    out.square().sum().backward()
    return [out, x.grad, *(parameter.grad for parameter in layer.parameters())]


DEGENERATE = {
    "zeros": lambda x: 0 * x,
    "negative": lambda x: -x - 1,
    "signed": lambda x: x - 0.5,
    "zero_channels": lambda x: x * torch.tensor([0.0, 1, 0, 0], dtype=DOUBLE)[:, None, None],
    "tiny": lambda x: 1e-200 * x,
    "huge": lambda x: 1e100 * x,
}
KERNELS = {
    "random": lambda w: w,
    "constant": torch.ones_like,
    "positive": torch.abs,
    "negative": lambda w: -w.abs(),
    "zero": torch.zeros_like,
}


@pytest.mark.parametrize("options", [{}, {"one_pass": True}, {"signed_inputs": True}, {"groups": 4}], ids=str)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("change", DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_input_stays_finite(change: Any, kernel: Any, options: dict[str, Any]) -> None:
    layer = conv(2, 4, 4, 3, padding=1, **options)
    with torch.no_grad():
        layer.weight.copy_(kernel(layer.weight))
    for training in (True, False):
        found = gradients(layer.train(training), change(images(3, 4, 5, 5)))
        assert all(tensor.isfinite().all() for tensor in found)
        assert layer.running_v.isfinite().all()
        layer.zero_grad()


def test_a_batch_of_zeros_gives_the_bias() -> None:
    layer = conv(2, 4, 4, 3)
    out = layer(torch.zeros(2, 4, 5, 5, dtype=DOUBLE))
    assert torch.equal(out, layer.bias.reshape(-1, 1, 1).expand_as(out))
    assert torch.equal(equilibrium(layer.weight, torch.zeros(4)), torch.zeros_like(layer.weight))


def test_running_statistics_of_zeros_count_as_one() -> None:
    layer = conv(2, 4, 4, 3, groups=2).eval()
    layer.running_v.copy_(torch.tensor([0, 0, 3.0, 0]))
    assert seen(layer.running_v, 2).tolist() == [1, 1, 3, 0]
    expected = equilibrium(layer.weight, torch.tensor([1, 1, 3.0, 0], dtype=DOUBLE), 2)
    torch.testing.assert_close(layer.normalized_weight(), expected * layer.gain.reshape(-1, 1, 1, 1), **EXACT)


def test_negative_sums_count_as_zero_or_as_magnitudes() -> None:
    layer = conv(2, 2, 3, 3)
    v = torch.tensor([2.0, -1.0], dtype=DOUBLE)
    assert torch.equal(equilibrium(layer.weight, v), equilibrium(layer.weight, v.clamp_min(0)))
    signed = conv(2, 2, 3, 3, signed_inputs=True)
    x = images(3, 2, 5, 5) - 0.4
    torch.testing.assert_close(signed.batch_statistics(x), layer.batch_statistics(x.abs()), **EXACT)


@pytest.mark.parametrize(("one_pass", "kernel"), [(False, torch.ones_like), (True, torch.abs)])
def test_a_kernel_without_denominator_is_divided_by_its_mass(one_pass: bool, kernel: Any) -> None:
    weight = kernel(conv(2, 2, 1, 3).weight.detach())
    v = torch.tensor([2.0, 3.0], dtype=DOUBLE)
    b = -(v * weight.sum((2, 3))).sum(1) / (9 * v.sum())
    mass = (v * weight.abs().sum((2, 3))).sum(1)
    torch.testing.assert_close(equilibrium(weight, v, one_pass=one_pass), (weight + b) / mass, **EXACT)


# Signs at initialisation.


@pytest.mark.parametrize("make", [lambda: EquiNormConv2d(1, 500, 2), lambda: EquiNormLinear(2, 500)])
def test_no_kernel_starts_with_one_sign(make: Any) -> None:
    layer = make()
    assert not one_signed(layer.weight).any()
    with torch.no_grad():
        layer.weight.abs_()
        layer.gain.fill_(3)
    layer.reset_parameters()
    assert not one_signed(layer.weight).any()
    assert (layer.gain == 1).all()
    assert (layer.bias == 0).all()


def test_sign_resampling_keeps_magnitudes_and_what_is_mixed() -> None:
    weight = torch.tensor([[[1.0, 2.0, 3.0]], [[-1.0, 2.0, 3.0]], [[0.0, 0.0, 2.0]], [[0.0, 0.0, 0.0]]])
    new = resample_signs_(weight.clone(), torch.Generator().manual_seed(0))
    assert torch.equal(new.abs(), weight.abs())
    assert torch.equal(new[1:], weight[1:])
    assert not one_signed(new).any()
    assert one_signed(weight).tolist() == [True, False, False, False]


# Running statistics.


def test_running_statistics_are_a_mean_with_momentum() -> None:
    layer, x, y = conv(2, 2, 3, 3, momentum=0.3), images(3, 2, 5, 5), images(4, 2, 6, 6, seed=1)
    layer(x)
    layer(y)
    v = [layer.batch_statistics(batch) for batch in (x, y)]
    torch.testing.assert_close(layer.running_v, 0.7 * (0.7 + 0.3 * v[0]) + 0.3 * v[1], **EXACT)
    assert layer.num_batches_tracked == 2
    before = layer.running_v.clone()
    layer.eval()(x)
    assert torch.equal(layer.running_v, before)
    layer.reset_running_stats()
    assert (layer.running_v == 1).all()


def test_without_momentum_the_mean_is_that_of_all_batches() -> None:
    layer = conv(2, 2, 3, 3, momentum=None)
    batches = [images(3, 2, 5, 5, seed=seed) for seed in range(4)]
    for batch in batches:
        layer(batch)
    mean = torch.stack([layer.batch_statistics(batch) for batch in batches]).mean(0)
    torch.testing.assert_close(layer.running_v, mean, **EXACT)


def test_without_running_statistics_evaluation_takes_the_batch() -> None:
    layer = conv(2, 2, 3, 3, track_running_stats=False)
    x = images(3, 2, 5, 5)
    assert torch.equal(layer.train()(x), layer.eval()(x))
    assert not any("running" in name for name in layer.state_dict())
    with pytest.raises(InputError, match="no running statistics"):
        layer.normalized_weight()
    with pytest.raises(InputError, match="no running statistics"):
        layer.folded()


def test_an_empty_batch_leaves_no_trace() -> None:
    layer = conv(2, 2, 3, 3)
    assert layer(torch.zeros(0, 2, 5, 5, dtype=DOUBLE)).shape == (0, 3, 3, 3)
    assert (layer.running_v == 1).all()


def test_state_round_trip() -> None:
    layer = conv(2, 2, 3, 3)
    layer(images(3, 2, 5, 5))
    assert set(layer.state_dict()) == {"weight", "gain", "bias", "running_v", "num_batches_tracked"}
    other = EquiNormConv2d(2, 3, 3, dtype=DOUBLE)
    other.load_state_dict(layer.state_dict())
    x = images(3, 2, 5, 5, seed=2)
    assert torch.equal(other.eval()(x), layer.eval()(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


# Types and compilers.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(dtype: torch.dtype) -> None:
    layer = EquiNormConv2d(4, 8, 3, padding=1)
    x = images(16, 4, 40, 40).float() + 40  # sums beyond float16
    expected = layer(x)
    with torch.autocast("cpu", dtype=dtype):
        out = layer(x.to(dtype))
        out.float().mean().backward()
    assert out.dtype == dtype
    assert layer.state_dict()["running_v"].dtype == torch.float32
    assert (out.float() - expected).square().mean().sqrt() < 0.2 * expected.std()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_layers_in_low_precision(dtype: torch.dtype) -> None:
    layer = conv(2, 4, 8, 3)
    x = images(8, 4, 9, 9)
    expected, low = layer(x), copy.deepcopy(layer).to(dtype)(x.to(dtype))
    assert low.dtype == dtype
    error = (low.double() - expected).abs().max() / expected.abs().max()
    assert error < 8 * torch.finfo(dtype).eps


def test_compiled() -> None:
    layer = conv(2, 2, 3, 3, padding=1)
    other: Any = torch.compile(copy.deepcopy(layer), backend="aot_eager", fullgraph=True)
    x = images(3, 2, 5, 5)
    for one, two in zip(gradients(layer, x), gradients(other, x), strict=True):
        torch.testing.assert_close(one, two, **EXACT)
    torch.testing.assert_close(other.running_v, layer.running_v, **EXACT)


@pytest.mark.slow
def test_compiled_by_inductor() -> None:
    layer = EquiNormConv2d(2, 3, 3, padding=1)
    other: Any = torch.compile(copy.deepcopy(layer), fullgraph=True)
    x = images(3, 2, 5, 5).float()
    for one, two in zip(gradients(layer, x), gradients(other, x), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("training", "fraction"), itertools.product([True, False], [1.0, 0.25]))
def test_exported_for_batches_of_any_size(training: bool, fraction: float) -> None:
    layer = conv(2, 2, 3, 3, padding=1, stats_fraction=fraction).train(training)
    batch: Any = 4 * torch.export.Dim("batch", min=2)
    program = torch.export.export(copy.deepcopy(layer), (images(8, 2, 5, 5),), dynamic_shapes=({0: batch},))
    module, x = program.module(), images(12, 2, 5, 5)
    torch.testing.assert_close(module(x), layer(x), **EXACT)
    torch.testing.assert_close(module.state_dict()["running_v"], layer.running_v, **EXACT)


@pytest.mark.gpu
def test_on_the_gpu() -> None:
    layer = conv(2, 4, 8, 3, padding=1, groups=2)
    x = images(6, 4, 9, 9)
    other = copy.deepcopy(layer).cuda()
    for one, two in zip(gradients(layer, x), gradients(other, x.cuda()), strict=True):
        torch.testing.assert_close(two.cpu(), one, rtol=1e-10, atol=1e-10)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_on_the_gpu(dtype: torch.dtype) -> None:
    layer = EquiNormConv2d(4, 8, 3, padding=1).cuda()
    with torch.autocast("cuda", dtype=dtype):
        out = layer(images(16, 4, 40, 40).float().cuda() + 40)
    out.float().mean().backward()
    assert out.dtype == dtype
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


# What people see.


def test_what_is_printed() -> None:
    assert repr(EquiNormConv1d(2, 3, 5, one_pass=True, stats_fraction=0.25)) == (
        "EquiNormConv1d(2, 3, kernel_size=(5,), stride=(1,), one_pass=True, stats_fraction=0.25)"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stats_fraction": 0.0}, r"stats_fraction must lie in \(0, 1\], got 0.0"),
        ({"stats_fraction": 2.0}, "stats_fraction"),
        ({"momentum": -0.5}, r"momentum must lie in \[0, 1\] or be None, got -0.5"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EquiNormConv2d(2, 3, 3, **options)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            EquiNormConv2d(2, 3, 3),
            (4, 5, 6, 6),
            r"EquiNormConv2d takes .* \(\[batch,\] 2, 2 sizes\), got \(4, 5, 6, 6\)",
        ),
        (EquiNormConv2d(2, 3, 3), (6, 6), "EquiNormConv2d takes"),
        (EquiNormConv1d(2, 3, 3), (1, 1, 2, 6), "EquiNormConv1d takes"),
        (EquiNormLinear(4, 3), (2, 5), r"shape \(..., 4\), got \(2, 5\)"),
    ],
    ids=str,
)
def test_input_of_another_shape(layer: EquiNormLayer, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        layer(torch.zeros(shape))


def test_synchronised_statistics_need_ranks() -> None:
    with pytest.raises(InputError, match=r"needs torch.distributed: call"):
        EquiNormConv2d(2, 3, 3, synchronise=True)(torch.ones(2, 2, 5, 5))
