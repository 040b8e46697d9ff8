"""The coverage tool: what it compares, how it reports failures, and that none costs another result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from graphnorm.ir import Node
from graphnorm.scales.context import Context
from graphnorm.scales.registry import Registry, Rule
from graphnorm.scales.rules.table import default_registry
from tests.support.paths import ROOT
from tools.coverage import (
    check_onnx,
    check_torch,
    float64,
    timm_models,
    torchvision_models,
    transformers_models,
)
from tools.coverage.document import markdown
from tools.coverage.records import Record, append, read, to_dict, write
from tools.coverage.rescaling import difference
from tools.coverage.workers import Limits, Task, run_all


class Branches(nn.Module):
    """A branch that an untrained network switches off, and a cast to float32."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.gate = nn.Linear(4, 8)
        self.last = nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.full((8,), 1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.first(x)))
        return self.last(hidden + self.scale * nn.functional.silu(self.gate(x)).float())


def branches() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    return Branches(), (torch.randn(5, 4),), {}


def passes_on(ctx: Context, node: Node) -> None:
    """The rule of a homogeneous operator, which a saturating one is not."""
    ctx.set(node.outputs[0], ctx.labels(node.inputs[0]))


def planted(*operators: str) -> Registry:
    return default_registry().replaced(Rule("x -> x", passes_on, "planted"), *operators)


def without(operator: str) -> Registry:
    return default_registry().without(operator)


def filled(fill: Callable[[Record], Iterator[Record]], family: str = "timm") -> Record:
    *_, last = fill(Record(family, "model"))
    return last


# Torch models.


def test_a_model_is_preserved_and_described() -> None:
    record = filled(partial(check_torch.check, make=branches))
    assert record.outcome == "preserved"
    assert record.difference is not None
    assert record.difference < 1e-14  # the cast to float32 was widened too
    assert record.dimension > 0
    assert (record.probed, record.felt) == (3, 3)
    assert 0 < record.moved_tensors < record.tensors
    assert 0 < record.moved_entries < record.entries
    assert not record.unknown


def test_a_wrong_rule_is_reported() -> None:
    record = filled(partial(check_torch.check, make=branches, registry=planted("Swish")))
    assert record.outcome == "not preserved"
    assert record.difference is not None
    assert record.difference > 1e-3


def test_without_new_values_the_wrong_rule_would_hardly_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_torch, "randomise", lambda module: None)
    record = filled(partial(check_torch.check, make=branches, registry=planted("Swish")))
    assert record.difference is not None
    assert record.difference < 1e-5


def test_an_operator_without_a_rule_is_counted() -> None:
    record = filled(partial(check_torch.check, make=branches, registry=without("Swish")))
    assert record.outcome == "unknown operators"
    assert record.unknown == {"Swish": 1}


def test_a_model_that_cannot_be_exported_stops_there() -> None:
    class Decides(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    record = Record("timm", "model")
    with pytest.raises(Exception, match="data-dependent") as raised:
        list(check_torch.check(record, lambda: (Decides(), (torch.randn(3),), {})))
    assert record.stage == "export"
    assert not record.traced
    record.error = str(raised.value)
    assert record.outcome == "export failed"


def test_new_values_let_every_weight_show_and_keep_signs() -> None:
    module, _, _ = branches()
    usual, faint = module.get_parameter("gate.weight").clone(), module.get_parameter("first.weight").clone()
    module.get_parameter("first.weight").detach().mul_(1e-10)
    module.get_parameter("gate.weight").detach().mul_(10)
    float64.randomise(module)
    assert torch.equal(module.get_parameter("gate.weight"), 10 * usual)
    assert module.get_parameter("first.weight").square().mean().sqrt().item() == pytest.approx(0.5)
    assert torch.allclose(module.get_parameter("first.weight").sign(), faint.sign())
    assert (module.get_buffer("norm.running_var") > 0.2).all()
    assert (module.get_parameter("scale") > 0.2).all()
    assert module.get_buffer("norm.running_mean").std() > 0.05


def test_a_comparison_that_cannot_fail_is_a_failure() -> None:
    class Silent(Branches):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(super().forward(x).abs() + 1e6)

    record = filled(partial(check_torch.check, make=lambda: (Silent(), (torch.randn(5, 4),), {})))
    assert record.preserved
    assert record.outcome == "outputs don't react"
    assert "none of 3 weights changes the outputs" in markdown([record])


def test_grouped_matrix_products_run_in_float64() -> None:
    rows, matrices = torch.randn(6, 8), torch.randn(3, 8, 16)
    ends = torch.tensor([2, 2, 6], dtype=torch.int32)

    class Grouped(nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return nn.functional.grouped_mm(rows, matrices.to(rows.dtype), offs=ends)

    (wide,) = float64.run(Grouped(), (rows,), {})
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide, Grouped()(rows).numpy(), rtol=1e-4, atol=1e-5)


def test_what_a_module_caches_of_its_weights_is_computed_anew() -> None:
    class Caches(nn.Linear):
        kept: torch.Tensor | None = None

        def train(self, mode: bool = True) -> Caches:
            self.kept = None if mode else self.kept
            return super().train(mode)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.kept is None:
                self.kept = 2 * self.weight
            return x @ self.kept.T

    module, x = Caches(4, 3).double(), torch.randn(2, 4)
    before = float64.run(module, (x,), {})
    module.weight.detach().mul_(2)
    np.testing.assert_array_equal(float64.run(module, (x,), {})[0], 2 * before[0])


def test_difference_sees_what_a_norm_would_miss() -> None:
    one = np.array([1.0, 2.0])
    assert difference([one], [one]) == 0.0
    assert difference([one], [one * 1.5]) == pytest.approx(0.5)
    assert difference([one], [np.array([1.0, np.nan])]) == np.inf
    assert difference([np.array([1.0, np.inf])], [np.array([1.0, -np.inf])]) == np.inf
    assert difference([np.array([np.nan])], [np.array([np.nan])]) == np.inf
    assert difference([np.array([1, 2])], [np.array([1, 3])]) == np.inf
    assert difference([], []) == np.inf


# ONNX files.


def onnx_file(path: Path, activation: str, domain: str = "") -> Path:
    generator = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node(activation, ["h"], ["a"], domain=domain),
        helper.make_node("Mul", ["a", "g"], ["s"]),
        helper.make_node("MatMul", ["s", "v"], ["y"]),
    ]
    weights = {"w": (4, 8), "g": (8,), "v": (8, 3)}
    tensors = [
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    shapes = {"x": (2, 4), "a": (2, 8), "y": (2, 3)}
    x, a, y = (helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items())
    graph = helper.make_graph(nodes, "small", [x], [y], tensors, value_info=[a])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def test_an_onnx_file_is_compared_in_float64(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "relu.onnx", "Relu")
    record = filled(partial(check_onnx.check, path=path), "onnx")
    assert record.outcome == "preserved"
    assert (record.criterion, record.difference) == ("float64", 0.0)
    assert record.dimension == 16
    assert (record.probed, record.felt) == (3, 3)


def test_an_onnx_file_under_a_wrong_rule_is_reported(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "tanh.onnx", "Tanh")
    assert filled(partial(check_onnx.check, path=path), "onnx").outcome == "preserved"
    record = filled(partial(check_onnx.check, path=path, registry=planted("Tanh")), "onnx")
    assert record.outcome == "not preserved"


def test_an_onnx_file_without_a_reference_run_is_measured_in_float32(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "gelu.onnx", "Gelu", "com.microsoft")
    record = filled(partial(check_onnx.check, path=path), "onnx")
    assert record.criterion.startswith("onnxruntime")
    assert record.preserved
    registry = planted("Gelu", "com.microsoft::Gelu")
    wrong = filled(partial(check_onnx.check, path=path, registry=registry), "onnx")
    assert wrong.outcome == "not preserved"


# Processes.


def finishes(record: Record) -> Iterator[Record]:
    record.stage, record.preserved = "done", True
    yield record


def raises(record: Record) -> Iterator[Record]:
    record.stage = "trace"
    yield record
    raise ValueError("a message\nof two lines")


def hangs(record: Record) -> Iterator[Record]:
    record.stage = "export"
    yield record
    time.sleep(60)


def crashes(record: Record) -> Iterator[Record]:
    record.stage, record.dimension = "compare", 7
    yield record
    os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory runs out


def devours(record: Record) -> Iterator[Record]:
    yield record
    given = bytearray(64 << 30)
    record.error = f"{len(given)} bytes were given"
    yield record


def test_no_failure_costs_another_models_result() -> None:
    fills = [finishes, raises, hangs, crashes, devours]
    tasks: list[Task] = [(Record("timm", fill.__name__), fill) for fill in fills]
    tasks.append((Record("timm", "last"), finishes))
    found = {record.name: record for record in run_all(tasks, Limits(2, seconds=5, gigabytes=16))}
    assert len(found) == len(tasks)
    assert found["finishes"].outcome == found["last"].outcome == "preserved"
    assert found["raises"].outcome == "trace failed"
    assert found["raises"].error == "ValueError: a message"
    assert "ValueError: a message" in "\n".join(found["raises"].traceback)
    assert found["hangs"].outcome == "timed out"
    assert found["hangs"].error == "timed out during export"
    assert found["crashes"].outcome == "compare failed"
    assert found["crashes"].error == "the process ended with exit code -9"
    assert found["crashes"].dimension == 7
    assert found["devours"].error == "MemoryError: no message"


def test_an_abandoned_run_leaves_no_process() -> None:
    running = run_all([(Record("timm", "a"), finishes), (Record("timm", "b"), hangs)], Limits())
    assert next(running).name == "a"
    start = time.monotonic()
    running.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 5


def test_output_of_models_goes_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def speaks(record: Record) -> Iterator[Record]:
        os.write(1, b"much ado")
        yield from finishes(record)

    list(run_all([(Record("timm", "loud"), speaks)], Limits(log=tmp_path / "log")))
    assert (tmp_path / "log").read_bytes() == b"much ado"
    assert capfd.readouterr().out == ""


# Files and the command.


def test_lines_survive_a_crash_while_one_is_written(tmp_path: Path) -> None:
    path = tmp_path / "coverage.jsonl"
    append(path, Record("timm", "b", dimension=1))
    append(path, Record("onnx", "a"))
    append(path, Record("timm", "b", dimension=2))
    path.write_text(path.read_text() + '{"family": "timm", "na')
    records = read(path)
    assert [(record.family, record.name, record.dimension) for record in records] == [
        ("timm", "b", 2),
        ("onnx", "a", 0),
    ]
    write(path, records)
    append(path, Record("timm", "c"))
    assert len(read(path)) == 3


def test_the_json_document_holds_no_infinity() -> None:
    document = to_dict([Record("timm", "a", stage="done", difference=np.inf, preserved=False)])
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text)["models"][0]["difference"] is None
    assert json.loads(text)["models"][0]["outcome"] == "not preserved"
    assert json.loads(text)["versions"]["torch"]


def test_document_names_every_failure_and_its_reason() -> None:
    traced = partial(Record, stage="done", nodes=10, tensors=4, moved_tensors=2, entries=10, moved_entries=4)
    records = [
        traced("timm", "good", dimension=6, preserved=True, difference=1e-16, criterion="float64"),
        traced("timm", "changed", preserved=False, difference=0.5, criterion="float64"),
        traced("timm", "strange", preserved=True, unknown={"Fancy": 3}),
        Record("timm", "dynamic", stage="export", error="ExportError: torch.export cannot | trace it"),
        Record("onnx", "slow", stage="trace", error="timed out during trace"),
    ]
    text = markdown(records)
    _, families, failures, refused, models = text.split("\n## ")
    assert "| timm | 4 | 1 | 3 | 1 | 2 | 10 | 0 | 50% | 40% | 0 of 0 |" in families
    assert "| all | 5 | 1 | 3 | 1 | 3 |" in families
    assert "| timm:changed | not preserved | the outputs changed: 5e-01 |" in failures
    assert "| timm:strange | unknown operators | operators without a rule: Fancy (3) |" in failures
    assert "| onnx:slow | timed out | timed out during trace |" in failures
    assert "dynamic" not in failures
    assert "| timm:dynamic | export failed | ExportError: torch.export cannot \\| trace it |" in refused
    assert len([line for line in models.splitlines() if line.startswith(("| timm:", "| onnx:"))]) == 5


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tools.coverage", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_command_runs_resumes_and_writes_the_documents(tmp_path: Path) -> None:
    good = onnx_file(tmp_path / "good.onnx", "Relu")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    lines = tmp_path / "lines.jsonl"
    first = command("--onnx", good, "--lines", lines)
    assert (first.returncode, first.stderr) == (0, "")
    good.unlink()  # a resumed run doesn't look at it again
    second = command("--onnx", good, bad, "--lines", lines, "--resume", "--json", tmp_path / "all.json")
    assert second.returncode == 1
    assert "onnx:bad.onnx: trace failed: ModelFileError" in second.stdout
    rows = json.loads((tmp_path / "all.json").read_text())["models"]
    assert [(row["name"], row["outcome"]) for row in rows] == [
        ("bad.onnx", "trace failed"),
        ("good.onnx", "preserved"),
    ]
    assert command("--write-docs", "--lines", lines, "--docs", tmp_path).returncode == 1
    assert "| onnx:good.onnx |" in (tmp_path / "coverage.md").read_text()
    assert json.loads((tmp_path / "coverage.json").read_text())["models"] == rows


def test_model_lists_are_wide_and_name_no_model_twice() -> None:
    for names, least in (
        (timm_models.NAMES, 180),
        (torchvision_models.NAMES, 50),
        (transformers_models.NAMES, 88),
    ):
        assert len(names) >= least
        assert len(set(names)) == len(names)


@pytest.mark.slow
def test_command_takes_one_model_of_each_library(tmp_path: Path) -> None:
    pattern = "^(timm:test_vit|torchvision:squeezenet1_1|transformers:bert|transformers:gpt2_cache)$"
    result = command("--only", pattern, "--lines", tmp_path / "lines.jsonl")
    assert result.returncode == 0, result.stdout + result.stderr
    records = read(tmp_path / "lines.jsonl")
    assert [record.outcome for record in records] == ["preserved", "preserved", "preserved", "export failed"]
    assert all(record.felt for record in records if record.outcome == "preserved")
