"""The experiments around ENorm: data, every method of figure 4, resuming, counts of table 1."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.experiments import data, enorm_elements, enorm_energy, enorm_training
from tools.experiments.results import Results


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fashion-MNIST of noise, one half packed."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 64), ("t10k", 32)):
        images = idx(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(rng.integers(0, 10, count, dtype=np.uint8)))
    return tmp_path


def test_every_method_runs_once_and_the_command_resumes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "runs.json"
    command = [
        "enorm_training", "--layers", "1", "--epochs", "1", "--batch", "32", "--seeds", "0", "1",
        "--lr", "0.01", "--data", str(folder), "--out", str(out), "--device", "cpu", "--methods",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [*command, "baseline"])
    enorm_training.main()
    first = json.loads(out.read_text())["runs"]
    monkeypatch.setattr(sys, "argv", [*command, *enorm_training.METHODS])
    enorm_training.main()
    found = json.loads(out.read_text())["runs"]
    assert found[:2] == first  # not run again
    assert len(found) == 2 * len(enorm_training.METHODS)
    assert all(np.isfinite(run["losses"]).all() and 0 <= run["accuracy"] <= 100 for run in found)
    assert "±" in capsys.readouterr().out


def test_the_table_is_that_of_its_runs(tmp_path: Path) -> None:
    results = Results(tmp_path / "runs.json")
    for seed, value in enumerate((1.0, 3.0)):
        results.add({"seed": seed, "method": "a"}, {"accuracy": value})
    again = Results(tmp_path / "runs.json")
    ((key, (mean, deviation, count)),) = again.table(("method", "init"), "accuracy").items()
    assert (key, mean, count) == (("a", ""), 2.0, 2)
    assert deviation == pytest.approx(2**0.5)
    assert again.find({"seed": 1, "method": "a"}) is not None
    assert again.find({"seed": 2, "method": "a"}) is None


def test_images_are_standardised_and_missing_files_named(folder: Path) -> None:
    images = data.load("fashion-mnist", folder)
    assert images.train[0].shape == (64, 1, 28, 28)
    assert float(images.train[0].mean()) == pytest.approx(0, abs=1e-5)
    with pytest.raises(FileNotFoundError, match="give --data"):
        data.load("cifar10")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte"):
        data.load("fashion-mnist", folder)


def test_table_1_of_the_paper() -> None:
    """Elements accessed for ResNet-18: 12, 636 and 40 millions."""
    assert [round(value) for value in enorm_elements.count("ResNet-18")] == [12, 636, 40]


def test_energies_fall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.progress import Progress

    with Progress(disable=True) as progress:
        found = enorm_energy.trajectory("fc20", 1.2, 2, progress, progress.add_task(""))
    first, second, third = found["objective"]
    assert first > second > third
    assert len(found["layers"][0]) == len(found["layers"][2]) == 20
