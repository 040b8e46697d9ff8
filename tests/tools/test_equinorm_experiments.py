"""The experiments around EquiNorm: networks, data, resuming, summaries."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from graphnorm.errors import InputError
from graphnorm.nn import EquiNormLayer
from tools.experiments.equinorm import data, results
from tools.experiments.equinorm.__main__ import app
from tools.experiments.equinorm.networks import NETWORKS, NORMS, Mix, unit_gain, wide_resnet20
from tools.experiments.equinorm.recipes import RECIPES, Recipe, mixing, schedule
from tools.experiments.equinorm.training import Run, train

TINY = Recipe("small_resnet", 4, 3, samples=32, batch=16, mixing="manifold")


def idx(array: np.ndarray[Any, Any]) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fashion-MNIST of noise."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 64), ("t10k", 32)):
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(rng.integers(0, 256, (count, 28, 28))))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(rng.integers(0, 10, count)))
    return tmp_path


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_train_and_mix(name: str, norm: str) -> None:
    model = NETWORKS[name](norm, 4, channels=3, classes=5)
    mix = Mix(2, 0.3, torch.tensor([1, 0, 2, 3]))
    out: Any = model.mixed(torch.randn(4, 3, 16, 16), mix)
    assert out.shape == (4, 5)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    normalised = sum(isinstance(m, EquiNormLayer) for m in model.modules())
    plain = sum(type(m) is nn.Conv2d for m in model.modules())
    assert (normalised > 0, plain > 0) == (norm.startswith("equinorm"), not norm.startswith("equinorm"))


def test_the_wide_network_has_its_size() -> None:
    model = wide_resnet20("equinorm", channels=3, classes=10)
    layers: list[Any] = [m for m in model.modules() if isinstance(m, EquiNormLayer)]
    assert sum(layer.kernel_size == (3, 3) for layer in layers) == 19
    assert [layers[k].out_channels for k in (0, 8, -1)] == [96, 192, 384]
    assert layers[0].options.signed_inputs


def test_unit_gain_gives_variance_one() -> None:
    torch.manual_seed(0)
    inputs, n = torch.randn(4000, 200).relu(), 200
    weight = torch.rand(500, n) - 0.5
    v = inputs.mean(0)
    weight -= (weight @ v / v.sum())[:, None]
    weight /= weight.clamp_min(0) @ v[:, None]
    variance = (unit_gain(n) * inputs @ weight.T).var(0).mean()
    assert float(variance) == pytest.approx(1, rel=0.05)


def test_mixing_and_schedules() -> None:
    rng = np.random.default_rng(0)
    assert mixing(replace(TINY, mixing="none"), rng, 4)(8) is None
    images = mixing(replace(TINY, mixing="mixup"), rng, 4)
    assert all((mix := images(8)) is not None and mix.stage == 0 and 0 <= mix.lam <= 1 for _ in range(9))
    hidden = mixing(TINY, rng, 4)
    assert {mix.stage for _ in range(40) if (mix := hidden(8)) is not None} == {0, 1, 2, 3}
    parameter = nn.Parameter(torch.zeros(1))
    for recipe, expected in ((RECIPES["small"], [0.1, 0.01, 0.001]), (RECIPES["small-one-cycle"], None)):
        optimizer = torch.optim.SGD([parameter], recipe.rate)
        plan, rates = schedule(recipe, optimizer, 100), []
        for _ in range(100):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            plan.step()
        if expected:
            assert [rates[k] for k in (49, 50, 75)] == pytest.approx(expected)
        else:
            assert max(rates) == pytest.approx(recipe.rate)
            assert rates[0] < 0.01 > rates[-1]


def test_images_are_read_and_standardised(folder: Path) -> None:
    first, last = data.read(folder)
    assert first.images.shape == (64, 1, 28, 28)
    assert len(last.labels) == 32
    assert float(first.images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(first.images.std()) == pytest.approx(1, abs=1e-5)
    cropped = data.augmented(first.images, torch.Generator().manual_seed(0))
    assert cropped.shape == first.images.shape
    centre = first.images[0, 0, 10:18, 10:18]
    windows = cropped[0, 0].unfold(0, 8, 1).unfold(1, 8, 1)
    assert any((windows == c).all((2, 3)).any() for c in (centre, centre.flip(1)))


def test_cifar_files_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in (*data.TRAIN_FILES, "test_batch.bin"):
        rows = rng.integers(0, 256, (4, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        (tmp_path / name).write_bytes(rows.tobytes())
    first, last = data.read(tmp_path)
    assert (first.images.shape, last.images.shape) == ((20, 3, 32, 32), (4, 3, 32, 32))
    assert torch.equal(last.labels, torch.from_numpy(rows[:, 0].astype(np.int64)))


def test_a_damaged_or_missing_data_set(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"expected train-images-idx3-ubyte.gz and its three companions"):
        data.read(empty)
    cut = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())[:-5]
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(cut))
    with pytest.raises(InputError, match=r"holds 50171 bytes, its header says \(64, 28, 28\)"):
        data.read(folder)


def test_a_run_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    images = data.read(folder)
    whole = train(TINY, "equinorm", 1, images, tmp_path / "run-a.json", "cpu", lambda: None)
    steps = 0

    def stop_in_the_second_epoch() -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt

    file = tmp_path / "run-b.json"
    with pytest.raises(KeyboardInterrupt):
        train(TINY, "equinorm", 1, images, file, "cpu", stop_in_the_second_epoch)
    assert len(results.read(file)["curves"]["loss"]) == 1
    assert results.complete(tmp_path) == [results.read(tmp_path / "run-a.json")]
    resumed = train(TINY, "equinorm", 1, images, file, "cpu", lambda: None)
    for name in ("loss", "test_error"):
        assert resumed["curves"][name] == whole["curves"][name]
    assert sorted(path.name for path in tmp_path.glob("run-*")) == ["run-a.json", "run-b.json"]


def test_seeds_differ_and_repeat(folder: Path) -> None:
    images = data.read(folder)
    losses = [Run(TINY, "batch", seed, images[0], "cpu").epoch(lambda: None)["loss"] for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_commands(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "tiny", TINY)
    out, runner = tmp_path / "out", CliRunner()
    options = [
        "--data",
        str(folder),
        "--out",
        str(out),
        "--norm",
        "batch",
        "--norm",
        "equinorm",
        "--seeds",
        "2",
    ]
    result = runner.invoke(app, ["train", "--recipe", "tiny", *options])
    assert result.exit_code == 0, result.output
    summary = json.loads((out / "summary.json").read_text())
    assert {norm: found["seeds"] for norm, found in summary["norms"].items()} == {"batch": 2, "equinorm": 2}
    losses = [results.read(out / f"run-tiny-batch-{seed}.json")["curves"]["loss"][0] for seed in (0, 1)]
    assert summary["norms"]["batch"]["loss"][0][1] == pytest.approx(np.mean(losses))
    before = {path: path.stat().st_mtime_ns for path in out.glob("run-*")}
    assert runner.invoke(app, ["train", "--recipe", "tiny", *options]).exit_code == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("run-*")}
    assert runner.invoke(app, ["draw", "--out", str(out)]).exit_code == 0
    assert (out / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert runner.invoke(app, ["train", "--recipe", "none", *options]).exit_code == 2
    assert runner.invoke(app, ["train", "--data", str(out), "--out", str(out)]).exit_code == 2
    assert runner.invoke(app, ["draw", "--out", str(folder)]).exit_code == 2


def test_cost_command(tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    options = ["--network", "small_resnet", "--planes", "4", "--batch", "2", "--size", "8", "--repeats", "2"]
    result = CliRunner().invoke(app, ["cost", "--out", str(file), *options])
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())["milliseconds"]
    assert all(
        len(found[norm][part]) == 3 for norm in ("batch", "equinorm") for part in ("forward", "backward")
    )
