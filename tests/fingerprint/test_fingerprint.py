"""Fingerprints: path-norms against sums over all paths, invariance, what they tell apart."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typer.testing import CliRunner

from graphnorm.api.check import check
from graphnorm.api.sources import open_model
from graphnorm.cli.commands import app
from graphnorm.emission.torch_module import rescale_torch
from graphnorm.fingerprint.compare import compare, differences
from graphnorm.fingerprint.compute import Fingerprint, fingerprint_of, form_of
from graphnorm.fingerprint.paths import RULES
from graphnorm.proof.pairing import pair_normal
from graphnorm.proof.prove import prove
from graphnorm.rescaling.graph import build
from tests.api.test_canonicalize import exported, network, small_cnn
from tests.api.test_check_differences import tied
from tests.support.equivalents import equivalent_weights
from tests.support.networks import NETWORKS
from tests.support.planting import plant


def brute_force(layers: list[tuple[Tensor, Tensor]], p: float) -> float:
    """l_p norm over all paths of an MLP: from each input and each bias to each output."""
    total = 0.0
    for first in range(len(layers)):
        sizes = [layer[0].shape[0] for layer in layers[first:]]
        starts: list[tuple[Tensor, int]] = [(layers[first][1], 1)]
        if first == 0:
            starts += [(layers[0][0][:, i], 1) for i in range(layers[0][0].shape[1])]
        for vector, _ in starts:
            for path in itertools.product(*(range(n) for n in sizes)):
                value = float(vector[path[0]])
                for depth, (i, j) in enumerate(itertools.pairwise(path)):
                    value *= float(layers[first + depth + 1][0][j, i])
                total += abs(value) ** p
    return float(total ** (1 / p))


@pytest.mark.parametrize("p", [1, 2, 4])
def test_path_norm_of_an_mlp_is_the_sum_over_all_paths(p: int) -> None:
    torch.manual_seed(0)
    linear = [nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(3, 2)]
    model = nn.Sequential(linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2]).double()
    found = fingerprint_of(model, torch.randn(1, 3, dtype=torch.float64)).path_norms[f"l{p}"]
    expected = brute_force([(layer.weight.detach(), layer.bias.detach()) for layer in linear], p)
    assert found == pytest.approx(expected, rel=1e-10)


class Skipped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(3, 3, bias=False), nn.Linear(3, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + F.relu(self.inner(x)))


def test_skip_connections_are_paths() -> None:
    model = Skipped()
    inner, out = (layer.weight.detach().double().abs() for layer in (model.inner, model.out))
    found = fingerprint_of(model, torch.randn(1, 3)).path_norms["l1"]
    assert found == pytest.approx(float((out @ (torch.eye(3) + inner) @ torch.ones(3, 1).double()).sum()))


def test_max_pool_adds_and_mean_divides() -> None:
    model: Any = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.MaxPool2d(2), nn.AvgPool2d(2))
    with torch.no_grad():
        model[0].weight.fill_(-3.0)
    found = fingerprint_of(model, torch.randn(1, 1, 4, 4)).path_norms
    # 16 entries, each one path: of |w| / 4 and of |w|^2 / 16.
    assert found["l1"] == pytest.approx(16 * 3 / 4)
    assert found["l2"] == pytest.approx(math.sqrt(16 * 9 / 16))


def test_frozen_batch_norm_is_folded() -> None:
    model: Any = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, eps=0.0)).eval()
    with torch.no_grad():
        model[1].running_var.fill_(4.0)
        model[0].bias.zero_()
    found = fingerprint_of(model, torch.randn(1, 1, 2, 2)).path_norms["l1"]
    assert found == pytest.approx(float(4 * model[0].weight.detach().abs().sum() / 2), rel=1e-6)


COMMON = (
    "mlp", "residual_projection", "densenet", "transformer", "batch_norm_eval", "unet", "grouped",
    "rnn_relu_deep", "index_select", "masked_fill_zero", "weight_norm", "batch_norm_no_statistics",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if name in COMMON else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_equivalent_copies_have_the_same(name: str) -> None:
    model, arguments = network(name)
    weights = equivalent_weights(open_model(model.eval(), arguments).network, 3, 2.0)
    one, two = (fingerprint_of(m, arguments) for m in (model, rescale_torch(model, weights)))
    assert differences(one, two) == []
    assert one.id == two.id


def test_torch_and_onnx_have_the_same() -> None:
    model, example = tied()
    one, two = fingerprint_of(model, example), fingerprint_of(exported(model, example))
    assert differences(one, two) == []
    assert one.id == two.id


class Recurrent(nn.Module):
    """Convolutions on the frames of a film, a convolutional LSTM over time, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1), nn.ReLU()
        )
        self.gates = nn.Conv2d(4 + 5, 4 * 5, 3, padding=1)
        self.head = nn.Sequential(nn.Conv2d(5, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _, height, width = x.shape
        frames = self.encoder(x.flatten(0, 1)).reshape(batch, time, -1, height, width)
        hidden = cell = torch.zeros(batch, 5, height, width)
        for step in range(time):
            read, forget, write, new = self.gates(torch.cat([frames[:, step], hidden], 1)).chunk(4, 1)
            cell = forget.sigmoid() * cell + read.sigmoid() * new.tanh()
            hidden = write.sigmoid() * cell.tanh()
        found: Tensor = self.head(hidden)
        return found


def normalised_cnn() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.LeakyReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    for norm in model:
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.data.uniform_(0.5, 2)
            norm.bias.data.normal_()
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return model


REAL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 3)),
        (2, 4),
    ),
    "recurrent": (Recurrent, (2, 3, 2, 6, 6)),
    "cnn": (normalised_cnn, (2, 3, 8, 8)),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), (2, 5, 8)),
}


def opened(name: str) -> tuple[nn.Module, Tensor, onnx.ModelProto]:
    """A module, its input, and its export with an open batch."""
    torch.manual_seed(0)
    build_module, shape = REAL[name]
    model, example = build_module().eval(), torch.randn(shape)
    dims = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(model, (example,), dynamo=True, verbose=False, dynamic_shapes=dims)
    assert program is not None
    return model, example, program.model_proto


@pytest.mark.parametrize("name", REAL)
def test_all_freedom_is_where_invariants_are_taken(name: str) -> None:
    """Every rescaling of the network as written, sizes open or not, is one of the form."""
    model, example, export = opened(name)
    for written in (open_model(model, example).network, open_model(export).network):
        moved = replace(written, weights=equivalent_weights(written, 3, 2.0, permute=False))
        for one, two in ((written, moved), (written.closed(), moved.closed())):
            pair, _ = pair_normal(one, two)
            assert pair is not None
            proof, failure = prove(pair, False, {})
            assert proof is not None, failure
        if not {"BatchNormalization", "LayerNormalization"} & {node.op for node in written.nodes}:
            assert build(form_of(written)).dimension >= build(written).dimension


@pytest.mark.parametrize("name", REAL)
def test_the_same_functions_have_the_same(name: str) -> None:
    """Rescaled and permuted copies, exports with open and fixed sizes, copies of these."""
    model, example, export = opened(name)
    weights = equivalent_weights(open_model(model, example).network, 5, 2.0)
    source = open_model(export)
    moved = source.emit(equivalent_weights(source.network, 7, 2.0))
    for other in (rescale_torch(model, weights), exported(model, example), export, moved):
        assert compare(model, other, example).differences == ()


def test_folded_batch_norm_has_the_same() -> None:
    model, example, _ = opened("cnn")
    folded: Any = copy.deepcopy(model)
    for at in (0, 4):
        folded[at] = torch.nn.utils.fuse_conv_bn_eval(folded[at], folded[at + 1])
        folded[at + 1] = nn.Identity()
    assert check(model, folded, example).verdict == "proved"
    assert compare(model, folded, example).differences == ()


def test_inputs_are_matched_by_name() -> None:
    def model(order: str) -> onnx.ModelProto:
        text = f"<ir_version: 8, opset_import: ['' : 17]> m (float[2, 3] {order[0]}, float[2, 3] {order[1]})"
        return onnx.parser.parse_model(
            text.replace("'", '"') + " => (float[2, 3] y) { t = Mul(a, a)\n y = Add(t, b) }"
        )

    assert compare(model("ab"), model("ba")).differences == ()
    assert fingerprint_of(model("ab")).graph != fingerprint_of(model("ba")).graph


def test_open_sizes_are_taken_from_the_other_model() -> None:
    model, example, export = opened("cnn")
    assert compare(export, model, example).differences == ()


class Slope(nn.Module):
    """Numbers of operators: an attribute, a tensor of exponents, a bound."""

    def __init__(self, slope: float = 0.1, exponent: float = 2.0, bound: float = 6.0) -> None:
        super().__init__()
        self.slope, self.exponents, self.bound = slope, [1.0, exponent, 3.0], bound

    def forward(self, x: Tensor) -> Tensor:
        leaky = F.leaky_relu(x, self.slope).clamp(max=self.bound)
        return leaky.abs() ** torch.tensor(self.exponents)


@pytest.mark.parametrize("other", [Slope(slope=0.2), Slope(exponent=2.5), Slope(bound=5.0)])
def test_numbers_of_operators_are_told_apart(other: nn.Module) -> None:
    assert compare(Slope(), Slope(), torch.randn(2, 3)).differences == ()
    assert compare(Slope(), other, torch.randn(2, 3)).differences


def test_paths_must_follow_the_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, RULES, "Conv", lambda walk, node, shape: np.ones(shape))
    model, example = small_cnn()
    found = fingerprint_of(model, example)
    assert all("do not scale with it" in reason for reason in found.missing.values())
    assert len(found.missing) == 3


def changed(change: Any) -> list[str]:
    model, example = small_cnn()
    other: Any = copy.deepcopy(model)
    with torch.no_grad():
        change(other)
    return differences(fingerprint_of(model, example), fingerprint_of(other, example))


def test_another_weight_is_told_apart() -> None:
    def change(model: Any) -> None:
        flat = model[8].weight.view(-1)
        flat[flat.abs().argmax()] *= 1.01

    assert any("balanced mass" in line for line in changed(change))


def test_another_graph_is_told_apart() -> None:
    assert "the graphs differ" in changed(lambda model: setattr(model, "1", nn.GELU()))


def test_sizes_are_told_apart() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    found = [fingerprint_of(model, torch.randn(1, 1, n, n)) for n in (4, 5)]
    assert any("input sizes" in line for line in differences(*found))


def test_differences_name_numbers() -> None:
    one = Fingerprint("i", "g", {"l1": 1.0, "l2": None}, (2.0, 1.0), ((1,),))
    two = Fingerprint("i", "g", {"l1": 1.1, "l2": 3.0}, (2.0,), ((1,),))
    assert len(differences(one, two)) == 3
    assert differences(one, one) == []


def test_command_line(tmp_path: Path) -> None:
    model, example = small_cnn()
    onnx.save(exported(model, example), tmp_path / "a.onnx")
    with torch.no_grad():
        model[0].bias[0] += 1
    onnx.save(exported(model, example), tmp_path / "b.onnx")
    one, two = str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")
    runner = CliRunner()
    assert runner.invoke(app, ["fingerprint", one, "--compare", one]).exit_code == 0
    found = runner.invoke(app, ["fingerprint", one, "--compare", two, "--json", str(tmp_path / "r.json")])
    assert found.exit_code == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["differences"]
    assert [item["model"] for item in report["fingerprints"]] == [one, two]
    assert np.isfinite(report["fingerprints"][0]["path_norms"]["l1"])


def test_a_missing_path_norm_has_its_reason() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.last(self.first(x).relu().sqrt())
            return found

    found = fingerprint_of(Root(), torch.randn(1, 3))
    assert set(found.path_norms.values()) == {None}
    assert all(reason.startswith("Sqrt ") for reason in found.missing.values())
    assert found.missing.keys() == found.path_norms.keys()
