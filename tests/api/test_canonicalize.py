"""Canonicalisation end to end on torch modules and ONNX models."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import graphnorm
from graphnorm.cli.models.demo import resnet18c
from graphnorm.emission.torch_module import rescale_torch
from graphnorm.rescaling.objective import build_problem, layers_after
from graphnorm.solver.problem import objective
from graphnorm.solver.solve import solve
from graphnorm.weights import coefficients
from graphnorm.weights.coefficients import powers_of_two, rescale
from graphnorm.weights.products import round_once
from tests.support.networks import NETWORKS


def network(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    builder, inputs = NETWORKS[name]
    arguments = inputs(torch.Generator().manual_seed(1))
    return builder().to(dtype), tuple(x.to(dtype) if x.is_floating_point() else x for x in arguments)


def small_cnn() -> tuple[Any, torch.Tensor]:
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 5),
    )  # fmt: skip
    with torch.no_grad():
        model[0].weight.mul_(torch.logspace(-2, 2, 8).view(-1, 1, 1, 1))
    return model.eval(), torch.randn(1, 3, 8, 8)


def exported(model: nn.Module, example: torch.Tensor) -> onnx.ModelProto:
    program = torch.onnx.export(model, (example,), dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto


TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["mlp_flatten", "residual_projection", "transformer", "shuffle", "reglu"])
def test_every_float_type_is_proved_and_keeps_its_layout(name: str, dtype: torch.dtype) -> None:
    model, arguments = network(name, dtype)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = graphnorm.canonicalize(model, arguments)
    report = result.report
    assert report.verification.verdict == "proved"
    assert report.objective["after"] < report.objective["before"]
    assert report.solver["imbalance"] <= 1e-8
    assert report.solver["cycles"] <= 30
    assert type(result.model) is type(model)
    assert result.model is not model
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
        assert result.model.state_dict()[key].dtype == value.dtype


@pytest.mark.parametrize("name", ["residual_identity", "densenet", "attention_fused", "unet"])
def test_second_run_finds_nothing_left(name: str) -> None:
    model, arguments = network(name, torch.float64)
    first = graphnorm.canonicalize(model, arguments, tol=1e-11)
    second = graphnorm.canonicalize(first.model, arguments, tol=1e-11)
    assert second.report.objective["before"] == pytest.approx(first.report.objective["after"], rel=1e-12)
    assert all(np.abs(factor - 1).max() < 1e-8 for factor in second.coefficients.values())


@pytest.mark.parametrize(
    "name", ["residual_projection", "grouped", "transformer", "reglu", "batch_norm_eval"]
)
def test_rescaled_copies_share_one_canonical_form(name: str) -> None:
    model, arguments = network(name, torch.float64)
    graph = graphnorm.trace(model, arguments)
    z = np.random.default_rng(0).normal(size=graph.solution.count)
    copied = rescale_torch(model, rescale(graph, z).weights)
    one = graphnorm.canonicalize(model, arguments, tol=1e-12).model.state_dict()
    two = graphnorm.canonicalize(copied, arguments, tol=1e-12).model.state_dict()
    for key, value in one.items():
        assert torch.allclose(value, two[key], rtol=1e-9, atol=0), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "name", ["residual_projection", "densenet", "grouped", "attention_sdpa", "batch_norm_eval"]
)
def test_exact_mode_is_bit_identical(name: str, dtype: torch.dtype) -> None:
    model, arguments = network(name, dtype)
    with torch.no_grad():
        next(iter(model.parameters())).mul_(64.0)
    result = graphnorm.canonicalize(model, arguments, mode="exact")
    measurement = result.report.verification.measurement
    assert measurement is not None
    assert measurement.bit_identical
    assert result.report.verification.certificate is not None
    assert result.report.verification.certificate.exact
    assert result.report.objective["after"] <= result.report.objective["before"]
    assert any((factor != 1).any() for factor in result.coefficients.values())
    for factor in result.coefficients.values():
        assert (np.log2(factor) == np.rint(np.log2(factor))).all()


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_the_cost_of_exactness_is_reported(p: float) -> None:
    model, example = small_cnn()
    best = graphnorm.canonicalize(model, example, p=p).report
    exact = graphnorm.canonicalize(model, example, p=p, mode="exact")
    after, cost = exact.report.objective["after"], exact.report.solver["exact_cost"]
    assert cost == pytest.approx(after / best.objective["after"] - 1)
    assert 0 < cost < exact.report.objective["before"] / best.objective["after"] - 1
    weights = [
        value.detach().double() for name, value in exact.model.named_parameters() if name.endswith("weight")
    ]
    assert after == pytest.approx(sum(float((w.abs() ** p).sum()) for w in weights), rel=1e-6)
    problem = build_problem(exact.graph, p)
    rounded = powers_of_two(exact.graph, solve(problem).z)
    assert objective(problem, rounded) > after * (1 + 1e-6)  # rounding alone costs more
    assert best.solver["exact_cost"] is None


def test_the_largest_weights_balance() -> None:
    model, example = small_cnn()
    result = graphnorm.canonicalize(model, example, p=float("inf"))
    assert result.report.verification.verdict == "proved"
    first, second = (result.model[k].weight.detach().abs() for k in (0, 2))
    come = first.flatten(1).max(dim=1).values  # channel c of 8; two of them go into each of 4 groups
    go = second.reshape(4, 2, 2, 3, 3).amax(dim=(1, 3, 4)).flatten()
    assert torch.allclose(come, go, rtol=1e-5)
    assert result.report.objective["after"] == pytest.approx(
        max(
            float(p.detach().abs().max())
            for name, p in result.model.named_parameters()
            if name.endswith("weight")
        )
    )


def test_weights_out_of_range_are_left_with_a_reason() -> None:
    model, example = small_cnn()
    with torch.no_grad():
        model[0].weight.mul_(1e20)
    result = graphnorm.canonicalize(model, example, p=40.0)  # 1e800 leaves float64
    assert result.report.solver["status"] == "out_of_range"
    assert not result.report.solver["converged"]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), result.model.parameters(), strict=True))


@pytest.mark.parametrize("method", ["coarse", "newton", "cyclic", "paper_blocks"])
def test_methods_agree(method: str) -> None:
    model, example = small_cnn()
    best = graphnorm.canonicalize(model, example, tol=1e-10)
    other = graphnorm.canonicalize(model, example, tol=1e-10, method=method, memory=0)
    assert other.report.solver["method"] == method
    assert other.report.solver["gap"] <= 1e-12
    for name, factors in best.coefficients.items():
        assert np.abs(other.coefficients[name] / factors - 1).max() <= 1e-8


def test_exact_mode_gives_up_channels_that_would_lose_bits() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)).half()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[8.0, 8.0], [8.0, 2.0**-24]]))  # the smallest subnormal
        model[2].weight.copy_(torch.full((2, 2), 2.0**-3))
    result = graphnorm.canonicalize(model, torch.ones(1, 2).half(), mode="exact")
    assert result.report.solver["limited_channels"] == 1
    assert result.report.verification.certificate is not None
    assert result.report.verification.certificate.exact
    assert result.coefficients["0.weight"].ravel().tolist() == [2.0**-3, 1.0]


def test_resnet18_type_c() -> None:
    model, example = resnet18c(), torch.randn(1, 3, 32, 32)
    result = graphnorm.canonicalize(model, example)
    assert result.report.verification.verdict == "proved"
    assert result.report.solver["cycles"] <= 30
    with torch.no_grad():
        assert torch.allclose(result.model(example), model(example), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        "mlp_flatten",
        "residual_identity",
        "transposed",
        "shuffle",
        "swiglu",
        "unet",
        "attention_matmul",
        "transformer",
    ],
)
def test_torch_and_its_onnx_export_agree(name: str) -> None:
    model, arguments = network(name)
    with torch.no_grad():  # the exporter merges tensors that happen to be equal, such as gains of ones
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    one = graphnorm.canonicalize(model.eval(), arguments)
    two = graphnorm.canonicalize(exported(model, *arguments))
    assert one.report.dimension == two.report.dimension > 0
    assert one.report.objective["before"] == pytest.approx(two.report.objective["before"], rel=1e-6)
    assert one.report.objective["after"] == pytest.approx(two.report.objective["after"], rel=1e-6)
    assert two.report.verification.verdict == "proved"


@pytest.mark.parametrize("recurrent", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_count_as_layers(recurrent: type[nn.LSTM | nn.GRU | nn.RNN]) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(3, 4), recurrent(4, 5), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> Any:
            return self.last(self.second(torch.relu(self.first(x)))[0])

    graph = graphnorm.trace(Model(), torch.randn(6, 3))
    depth = layers_after(graph.network, graph.demands)
    layers = {demand.weight: depth.get(demand.node, 0) for demand in graph.demands if demand.role == "weight"}
    assert layers["first.weight"] == 2
    assert layers["last.weight"] == 0


def test_asymmetric_cycle_is_the_papers() -> None:
    """At the optimum of ENorm-c, d = sqrt(R / (c L)) = 1: outgoing norms are c times incoming ones."""
    model, arguments = network("mlp", torch.float64)
    for p, c in ((2.0, 1.2), (1.0, 0.8)):
        result = graphnorm.canonicalize(model, arguments, p=p, c=c, tol=1e-11)
        first, second, third = (result.model[i].weight.detach() for i in (0, 2, 4))
        for near, far in ((first, second), (second, third)):
            incoming, outgoing = near.norm(p=p, dim=1), far.norm(p=p, dim=0)
            assert torch.allclose(outgoing, c * incoming, rtol=1e-9)


def test_inplace_changes_the_module_itself() -> None:
    model, example = small_cnn()
    before = copy.deepcopy(model)
    result = graphnorm.canonicalize(model, example, inplace=True)
    assert result.model is model
    assert not torch.equal(model[0].weight, before[0].weight)
    assert graphnorm.check(before, model, example).verdict == "proved"


def test_train_mode_uses_the_training_rule() -> None:
    model, arguments = network("batch_norm_train")
    result = graphnorm.canonicalize(model.train(), arguments)
    assert result.model.training
    assert result.report.verification.verdict == "proved"
    assert any("training mode" in pin.reason for pin in result.report.pins)


def test_objective_in_the_report_is_that_of_the_emitted_model() -> None:
    model, example = small_cnn()
    result = graphnorm.canonicalize(model, example)
    again = build_problem(graphnorm.trace(result.model, example))
    assert objective(again, np.zeros(again.count)) == pytest.approx(
        result.report.objective["after"], rel=1e-6
    )
    total = sum(after for _, after in result.report.energy.values())
    assert total == pytest.approx(result.report.objective["after"], rel=1e-6)


def test_a_wrong_coefficient_is_caught_and_nothing_is_emitted(monkeypatch: pytest.MonkeyPatch) -> None:
    model, example = small_cnn()
    before = copy.deepcopy(model.state_dict())
    honest = rescale

    def planted(*arguments: Any, **options: Any) -> coefficients.Rescaled:
        found = honest(*arguments, **options)
        weight = found.weights["2.weight"].copy()
        weight[7, 1, 1, 1] *= np.float32(1.01)
        return coefficients.Rescaled(
            {**found.weights, "2.weight": weight}, found.coefficients, found.lost, found.involved
        )

    monkeypatch.setattr("graphnorm.weights.fitting.rescale", planted)
    with pytest.raises(
        graphnorm.NotEquivalentError, match=r"weight '2\.weight' is .* half ulps off"
    ) as error:
        graphnorm.canonicalize(model, example, inplace=True)
    assert "the first layer that differs is" in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_without_verification_the_verdict_says_so() -> None:
    model, example = small_cnn()
    assert graphnorm.canonicalize(model, example, verify=False).report.verification.verdict == "not verified"


BAD_OPTIONS = [
    ({"p": 0.0}, "p must be"), ({"p": float("nan")}, "p must be"), ({"c": -1.0}, "c must be"),
    ({"mode": "fast"}, "mode must be one of optimal, exact"), ({"tol": 0.0}, "tol must be"),
    ({"method": "magic"}, "method must be one of auto, "), ({"gap": 0.0}, "gap must be"),
    ({"memory": -1}, "memory must be"), ({"gap": 1e-9, "p": float("inf")}, "gap needs a finite p"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    model, example = small_cnn()
    with pytest.raises(graphnorm.InputError, match=message):
        graphnorm.canonicalize(model, example, **options)


def test_bad_models() -> None:
    model, example = small_cnn()
    with pytest.raises(graphnorm.InputError, match="cannot take a model of type dict"):
        graphnorm.canonicalize({})
    with pytest.raises(graphnorm.ModelFileError, match=r"nowhere\.onnx: no such file"):
        graphnorm.canonicalize("nowhere.onnx")
    with pytest.raises(graphnorm.InputError, match="example"):
        graphnorm.canonicalize(model)
    with pytest.raises(graphnorm.InputError, match="inplace=True is for torch"):
        graphnorm.canonicalize(exported(model, example), inplace=True)
    with pytest.raises(graphnorm.InputError, match="2 example inputs given"):
        graphnorm.canonicalize(exported(model, example), [example.numpy()] * 2)
    with pytest.raises(graphnorm.InputError, match="no input is named 'other'"):
        graphnorm.canonicalize(exported(model, example), {"other": example.numpy()})
    with pytest.raises(graphnorm.InputError, match="no CUDA device"):
        graphnorm.canonicalize(model, example, device="cuda:7")


def test_exported_program_in_and_out(tmp_path: Any) -> None:
    model, example = small_cnn()
    program = torch.export.export(model, (example,))
    result = graphnorm.canonicalize(program)
    assert isinstance(result.model, torch.export.ExportedProgram)
    result.source.save(result.model, tmp_path / "out.pt2", force=False)
    assert graphnorm.check(program, str(tmp_path / "out.pt2")).verdict == "proved"


def test_round_once_is_correctly_rounded() -> None:
    import ml_dtypes

    kind = np.dtype(ml_dtypes.bfloat16)
    rng = np.random.default_rng(0)
    halfway = 1.0 + 2.0**-8  # between two neighbours, ties to even: down to 1
    values = np.concatenate(
        [rng.normal(size=10_000), [halfway, halfway + 2.0**-40, halfway - 2.0**-40, -halfway - 2.0**-40]]
    )
    got = round_once(values, kind).astype(np.float64)
    step = np.exp2(np.floor(np.log2(np.abs(values))) - 7)
    assert (got == np.rint(values / step) * step).all()
    assert got[-4:].tolist() == [1.0, 1.0 + 2.0**-7, 1.0, -1.0 - 2.0**-7]


def test_report_is_plain_data() -> None:
    import json

    model, example = small_cnn()
    buffer = io.StringIO()
    json.dump(graphnorm.canonicalize(model, example).report.to_dict(), buffer)
    found = json.loads(buffer.getvalue())
    assert {
        "dimension",
        "objective",
        "solver",
        "pins",
        "degenerate",
        "verification",
        "seconds",
    } <= found.keys()
    assert set(found["seconds"]) == {"trace", "solve", "apply", "verify"}


def test_exact_mode_keeps_activations_out_of_the_subnormal_range() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).half()
    with torch.no_grad():
        model[0].weight.mul_(2.0**-6)  # activations near 6e-5, where float16 becomes subnormal
        model[0].bias.zero_()
        model[2].weight.mul_(2.0**6)
    result = graphnorm.canonicalize(model, 2.0**-6 * torch.randn(16, 4).half(), mode="exact")
    measurement = result.report.verification.measurement
    assert measurement is not None
    assert measurement.bit_identical
    assert result.report.solver["limited_channels"] > 0
