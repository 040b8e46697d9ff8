"""A short run of tools/fuzz: 0, 1 and 2 are the only exit codes; and the tool sees what is wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import onnx
import onnxruntime
import pytest

from tests.support.paths import ROOT
from tools.fuzz import structure
from tools.fuzz.forked import Outcome, call
from tools.fuzz.run import Finding, Limits, mutants
from tools.fuzz.seeds import seeds

MODELS = {name: model.SerializeToString() for name, model in seeds().items()}
LIMITS = Limits()


@pytest.mark.parametrize("name", MODELS)
def test_seeds_are_models(name: str) -> None:
    onnxruntime.InferenceSession(MODELS[name], providers=["CPUExecutionProvider"])


def test_mutants_differ_and_can_be_made_again() -> None:
    found = list(mutants(MODELS, 40, seed=1))
    assert found == list(mutants(MODELS, 40, seed=1))
    assert found[5:7] == list(mutants(MODELS, 2, seed=1, start=5))
    assert found != list(mutants(MODELS, 40, seed=2))
    assert len({data for _, _, data in found}) > 35


def test_structural_damage_leaves_the_model_alone() -> None:
    model = onnx.ModelProto.FromString(MODELS["attention"])
    for number in range(50):
        structure.damage(model, Random(number))
    assert model.SerializeToString() == MODELS["attention"]


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the one of the tests has threads, which a fork would wait for."""
    command = [sys.executable, "-m", "tools.fuzz", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_damaged_files_end_with_a_sentence() -> None:
    found = fuzz("--count", "60", "--seed", "20")
    assert found.returncode == 0, found.stdout + found.stderr
    counted = re.search(r"60 mutants; exit codes \{'0': (\d+).*'2': (\d+).*\}; faults \{\}", found.stdout)
    assert counted is not None
    assert all(int(count) > 0 for count in counted.groups())


def outcome(code: int = 0, text: str = "", megabytes: float = 100.0, late: bool = False) -> Outcome:
    return Outcome(code, 1.0, megabytes, text, late)


@pytest.mark.parametrize(
    ("ended", "fault"),
    [
        (outcome(), ""),
        (outcome(2, "error: m.onnx: is empty"), ""),
        (outcome(2, "nothing that says why"), "no sentence"),
        (outcome(2, "Traceback (most recent call last)\nerror: no"), "traceback"),
        (outcome(3, "error: this is a defect"), "exit 3"),
        (outcome(-9), "signal 9"),
        (outcome(-9, late=True), "hang"),
        (outcome(0, megabytes=1200.0), "memory"),
    ],
)
def test_what_counts_as_a_fault(ended: Outcome, fault: str) -> None:
    assert Finding(0, "seed", "canonicalize", ended).fault(LIMITS) == fault


def stuck() -> None:
    time.sleep(60)


def greedy() -> None:
    held = bytearray(300_000_000)
    held[::4096] = b"x" * len(held[::4096])


def ended() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def told() -> int:
    os.write(1, b"said")
    return 2


def test_calls_in_forks(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert call(stuck, log, 0.2, 100.0).late
    assert call(greedy, log, 30.0, 100.0).megabytes > 300
    assert call(ended, log, 30.0, 100.0).code == -signal.SIGSEGV
    found = call(told, log, 30.0, 100.0)
    assert (found.code, found.output, found.late) == (2, "said", False)


def test_the_command_line(tmp_path: Path) -> None:
    seed = tmp_path / "s.onnx"
    seed.write_bytes(MODELS["perceptron"])
    found = fuzz(str(seed), "--count", "3", "--megabytes", "1", "--keep", str(tmp_path / "kept"))
    assert found.returncode == 1
    assert "faults {'memory': 3}" in found.stdout
    assert "3 mutants; exit codes" in found.stdout
    assert len(list((tmp_path / "kept").glob("*.onnx"))) == 3
