"""The checker, the certificate and the measurement: what is equal is proved, what isn't is caught."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm import ir
from graphnorm.cli.check_table import stages
from graphnorm.emission.torch_module import rescale_torch
from graphnorm.errors import RunError
from graphnorm.verification.certificate import check_certificate
from graphnorm.verification.inputs.battery import battery
from graphnorm.verification.layers import first_difference
from graphnorm.verification.measure import measure
from graphnorm.verification.runner import Reference
from graphnorm.weights.coefficients import rescale
from tests.api.test_canonicalize import exported, network, small_cnn
from tests.support.networks import NETWORKS


def rescaled(model: nn.Module, arguments: object, spread: float = 1.0) -> nn.Module:
    graph = graphnorm.trace(model, arguments)
    z = spread * np.random.default_rng(0).normal(size=graph.solution.count)
    return rescale_torch(model, rescale(graph, z).weights)


# Without -m slow: these of all networks.
COMMON = (
    "mlp", "residual_identity", "zero_pad_shortcut", "densenet", "squeeze_excite", "shuffle", "grouped",
    "transposed_grouped", "attention_sdpa", "attention_fused", "transformer", "batch_norm_eval",
    "batch_norm_train", "group_norm", "reglu", "shared_matrix", "embedding_tied", "low_rank", "rezero",
    "unet", "squared_relu", "prelu", "relu6", "upsampler", "experts_soft", "experts_top",
    "weight_elementwise",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if name in COMMON else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_random_rescalings_are_proved(name: str) -> None:
    model, arguments = network(name)
    model = model.train("train" in name)
    other = rescaled(model, arguments)
    graph = graphnorm.trace(model, arguments)
    report = graphnorm.check(model, other, arguments)
    assert report.verdict == ("proved" if graph.dimension else "identical"), report.note
    assert report.equivalent


def test_large_coefficients_are_proved() -> None:
    model, arguments = network("residual_projection")
    assert graphnorm.check(model, rescaled(model, arguments, spread=4.0), arguments).verdict == "proved"


class Mixed(nn.Module):
    """A layer whose weight is stored in less precision than the others'."""

    def __init__(self, coarse: torch.dtype, fine: torch.dtype) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(5, 3).to(coarse))
        self.second = nn.Linear(5, 2, dtype=fine)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.first.to(self.second.weight.dtype)
        result: Tensor = self.second(torch.relu(nn.functional.linear(x, weights)))
        return result


@pytest.mark.parametrize(
    ("coarse", "fine"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float64)]
)
@pytest.mark.parametrize("seed", range(3))
def test_coarse_rounding_does_not_reach_fine_weights(
    coarse: torch.dtype, fine: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    model, example = Mixed(coarse, fine), (torch.randn(4, 3, dtype=fine),)
    assert graphnorm.trace(model, example).dimension == 5
    report = graphnorm.check(model, rescaled(model, example), example)
    assert report.verdict == "proved", report.note


def test_a_copy_is_identical() -> None:
    model, example = small_cnn()
    report = graphnorm.check(model, copy.deepcopy(model), example)
    assert report.verdict == "identical"
    assert report.to_dict()["verification"]["verdict"] == "identical"


@pytest.mark.parametrize(
    "name", ["mlp", "residual_identity", "grouped", "transformer", "batch_norm_eval", "densenet"]
)
def test_one_weight_off_by_one_percent_is_rejected(name: str) -> None:
    model, arguments = network(name)
    other = rescaled(model.eval(), arguments)
    weight = max(other.parameters(), key=lambda p: p.ndim)
    with torch.no_grad():
        flat = weight.view(-1)
        flat[flat.abs().argmax()] *= 1.01
    report = graphnorm.check(model, other, arguments)
    assert report.verdict == "differs"
    assert not report.equivalent
    assert "half ulps off" in report.note
    assert "RMSE" in report.verification.failure


def change_bias(model: Any) -> None:
    with torch.no_grad():
        model[0].bias[3] += 1e-2


def change_activation(model: Any) -> None:
    model[1] = nn.GELU()


def change_pool(model: Any) -> None:
    model[4] = nn.AvgPool2d(2)


def change_padding(model: Any) -> None:
    model[0].padding_mode = "circular"


def swap_channels(model: Any) -> None:
    with torch.no_grad():
        model[5].weight[[0, 1]] = model[5].weight[[1, 0]].clone()


@pytest.mark.parametrize(
    "change", [change_bias, change_activation, change_pool, change_padding, swap_channels]
)
def test_planted_differences_are_caught(change: Callable[[Any], None]) -> None:
    model, example = small_cnn()
    other = copy.deepcopy(model)
    change(other)
    assert graphnorm.check(model, other, example).verdict == "differs"


def test_torch_against_onnx_is_measured() -> None:
    model, example = small_cnn()
    proto = exported(model, example)
    assert graphnorm.check(model, proto, example).verdict in {"agrees", "proved"}
    wrong = copy.deepcopy(model)
    change_bias(wrong)
    assert graphnorm.check(wrong, proto, example).verdict == "differs"


def test_onnx_against_its_canonical_form() -> None:
    model, example = small_cnn()
    proto = exported(model, example)
    result = graphnorm.canonicalize(proto)
    report = graphnorm.check(proto, result.model)
    assert report.verdict == "proved"
    assert report.verification.measurement is not None
    assert report.verification.measurement.anchor == "float64"


def test_different_inputs_are_refused() -> None:
    model, example = small_cnn()
    wide = nn.Sequential(nn.Conv2d(4, 2, 1))
    with pytest.raises(graphnorm.InputError, match=r"input 'input': A takes float32\(1, 3, 8, 8\)"):
        graphnorm.check(exported(model, example), exported(wide.eval(), torch.randn(1, 4, 8, 8)))


class TestCertificate:
    def setup_method(self) -> None:
        self.model, self.arguments = network("residual_projection")
        self.graph = graphnorm.trace(self.model, self.arguments)
        self.z = np.random.default_rng(0).normal(size=self.graph.solution.count)
        self.x = self.graph.log_scales(self.z)
        self.new = {**self.graph.network.weights, **rescale(self.graph, self.z).weights}

    def test_holds(self) -> None:
        certificate = check_certificate(self.graph, self.new, self.x)
        assert certificate.valid
        assert 0.5 < certificate.worst_ulp <= 1.0 + 1e-6
        assert not certificate.exact

    def test_last_bit_matters(self) -> None:
        weight = self.new["first.weight"].copy()
        weight.flat[3] = np.nextafter(np.nextafter(weight.flat[3], np.float32(9)), np.float32(9))
        certificate = check_certificate(self.graph, {**self.new, "first.weight": weight}, self.x)
        assert not certificate.valid
        assert "weight 'first.weight'" in certificate.failure

    def test_scale_outside_the_group_is_refused(self) -> None:
        x = self.x.copy()
        tied = next(row for row in self.graph.scales.constraints.rows if row.labels.shape[1] == 2)
        x[tied.labels[0, 0]] += 1e-3
        certificate = check_certificate(self.graph, self.new, x)
        assert not certificate.valid
        assert "equation of" in certificate.failure

    def test_pinned_label_may_not_move(self) -> None:
        x = self.x.copy()
        x[0] = 0.1
        assert check_certificate(self.graph, self.new, x).failure == "the pinned label has a scale"

    def test_untouched_weights_must_be_the_same_bits(self) -> None:
        bias = self.new["head.bias"] + np.float32(1e-6)
        certificate = check_certificate(self.graph, {**self.new, "head.bias": bias}, self.x)
        assert "weight 'head.bias'" in certificate.failure

    def test_missing_weight(self) -> None:
        del self.new["head.bias"]
        certificate = check_certificate(self.graph, self.new, self.x)
        assert "no counterpart" in certificate.failure

    def test_layer_by_layer(self) -> None:
        source = graphnorm.canonicalize(self.model, self.arguments, verify=False).source
        inputs = [x.numpy() for x in self.arguments]
        old = source.hidden_values(self.model, inputs)
        good = source.hidden_values(rescale_torch(self.model, self.new), inputs)
        assert first_difference(self.graph, old, good, self.x) == ""
        bias = self.new["second.bias"] * np.float32(1.1)
        bad = source.hidden_values(rescale_torch(self.model, {**self.new, "second.bias": bias}), inputs)
        assert "second" in first_difference(self.graph, old, bad, self.x)


@dataclasses.dataclass
class Fake:
    """A runner of a plain function, with an exact reference."""

    function: Callable[[np.ndarray], np.ndarray]
    noise: float = 0.0
    device: str = "cpu"
    runtime: str = "numpy"
    tiny: float = 2.0
    remarks: tuple[str, ...] = ()

    def run(self, inputs: Sequence[ir.Array]) -> list[ir.Array]:
        exact = self.function(inputs[0].astype(np.float64))
        jitter = self.noise * np.random.default_rng(0).normal(size=exact.shape)
        return [(exact * (1 + jitter)).astype(np.float32)]

    def reference(self) -> Reference:
        return Reference(Exact(self.function), "float64")

    def nearby(self, seed: int, size: float | None) -> Fake:
        return self


class Exact(Fake):
    def run(self, inputs: Sequence[ir.Array]) -> list[ir.Array]:
        return [self.function(inputs[0].astype(np.float64))]

    def shaken(self, inputs: Sequence[ir.Array], unit: float, seed: int) -> list[ir.Array]:
        jitter = 100 * unit * np.random.default_rng(seed).normal(size=inputs[0].shape)
        return [self.function(inputs[0].astype(np.float64)) * (1 + jitter)]


@dataclasses.dataclass
class Lucky(Fake):
    """One of its nearby models has the noise that its own run happens not to have."""

    unlucky: int = 0
    draws: list[int] = dataclasses.field(default_factory=list)

    def nearby(self, seed: int, size: float | None) -> Fake:
        self.draws.append(seed)
        return Fake(self.function, 1e-4 if seed == self.unlucky else self.noise)


def inputs_of(array: np.ndarray) -> list[tuple[str, Sequence[ir.Array]]]:
    return [("given", [array.astype(np.float32)])]


class TestMeasure:
    data = np.linspace(-1, 1, 1001)

    def test_within_its_own_noise(self) -> None:
        found = measure(Fake(np.sin, 1e-5), Fake(np.sin, 2e-5), inputs_of(self.data))
        assert found.agrees
        assert found.rmse_ratio == pytest.approx(2.0, rel=0.1)

    def test_reported_ratio_is_that_of_the_errors(self) -> None:
        found = measure(Fake(np.sin, 1e-8), Fake(np.sin, 2e-7), inputs_of(self.data))
        assert found.agrees  # both below the rounding floor
        assert found.rmse_ratio == pytest.approx(found.rmse / found.noise)
        assert found.rmse_ratio > 1

    def test_beyond_its_own_noise(self) -> None:
        found = measure(Fake(np.sin, 1e-5), Fake(np.sin, 1e-4), inputs_of(self.data))
        assert not found.agrees
        assert "output 0 on given input" in found.failure

    @pytest.mark.parametrize("unlucky", [0, 3, 7, 15])
    def test_a_lucky_run_is_no_measure_of_the_noise(self, unlucky: int) -> None:
        original = Lucky(np.sin, 1e-5, unlucky=unlucky)
        assert measure(original, Fake(np.sin, 2e-4), inputs_of(self.data)).agrees
        assert max(original.draws) == unlucky

    @pytest.mark.parametrize(("noise", "draws"), [(4e-4, 16), (5e-2, 4)])
    def test_draws_end_where_they_explain_nothing(self, noise: float, draws: int) -> None:
        """All of them where the difference is near, few where it is far."""
        original = Lucky(np.sin, 1e-5, unlucky=1 if noise < 1e-3 else 99)
        assert not measure(original, Fake(np.sin, noise), inputs_of(self.data)).agrees
        assert len(set(original.draws)) == draws

    def test_bit_identity(self) -> None:
        assert measure(Fake(np.sin), Fake(np.sin), inputs_of(self.data)).bit_identical
        assert not measure(Fake(np.sin, 1e-5), Fake(np.sin), inputs_of(self.data)).bit_identical

    def test_non_finite_outputs_must_match(self) -> None:
        def hole(x: np.ndarray) -> np.ndarray:
            return np.where(x > 0.5, np.inf, x)

        assert measure(Fake(hole), Fake(hole), inputs_of(self.data)).agrees
        assert not measure(Fake(hole), Fake(lambda x: x), inputs_of(self.data)).agrees
        found = measure(Fake(lambda x: x), Fake(hole), inputs_of(self.data))
        assert not found.agrees
        assert re.search(r"[1-9]\d* of \d+ entries are infinite or NaN, 0 of the original's", found.failure)

    def test_shapes_must_match(self) -> None:
        found = measure(Fake(lambda x: x), Fake(lambda x: x[:-1]), inputs_of(self.data))
        assert not found.agrees
        assert "the original's is float" in found.failure

    def test_zero_outputs(self) -> None:
        assert measure(Fake(np.zeros_like), Fake(np.zeros_like), inputs_of(self.data)).agrees
        found = measure(Fake(np.zeros_like), Fake(lambda x: x), inputs_of(self.data))
        assert not found.agrees
        assert "not zero" in found.failure


def test_battery_keeps_the_range_of_integers() -> None:
    values = {"ids": ir.Value("ids", (2, 3), "int64"), "x": ir.Value("x", (2,), "bfloat16")}
    graph = ir.Graph("g", ("ids", "x"), (), (), values)
    found = dict(battery(graph, [np.array([[3, 5, 4], [3, 3, 5]]), np.zeros(2)]))
    assert set(found) == {"given", "normal", "large", "small", "zero"}
    for name, (ids, x) in found.items():
        assert 3 <= ids.min() <= ids.max() <= 5
        assert name == "given" or x.dtype.name == "bfloat16"
    assert (found["zero"][1] == 0).all()


@pytest.mark.parametrize("seed", [11, 22])
def test_a_unit_that_few_inputs_reach_is_still_found(seed: int) -> None:
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)]
    model: Any = nn.Sequential(*layers)
    example = torch.randn(1, 6)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[4].weight[0, 0] *= 1.01
    assert graphnorm.check(model, other, example).verdict == "differs"


def test_layers_that_cannot_be_compared_are_accounted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other[2].parameters()).add_(0.5)

    def refused(*_: object) -> None:
        raise RunError("no recorder here\nmore lines")

    monkeypatch.setattr("graphnorm.verification.torch.runner.hidden_values", refused)
    report = graphnorm.check(model, other, torch.randn(3, 4), seconds=1.0)
    assert report.verdict == "differs"
    assert not report.layers
    assert report.layers_unknown == "hidden values cannot be recorded: no recorder here"
    assert report.to_dict()["layers_unknown"] == report.layers_unknown
    assert ("layers", f"not compared: {report.layers_unknown}") in stages(report)
    monkeypatch.undo()
    assert graphnorm.check(model, other, torch.randn(3, 4), seconds=1.0).layers_unknown == ""
