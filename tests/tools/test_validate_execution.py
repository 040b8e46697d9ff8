"""What graphnorm computes itself, against the framework, operator by operator; planted errors are caught."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from graphnorm.fingerprint import paths
from graphnorm.frontends.onnx import compute
from graphnorm.verification.inputs import entry_rules
from graphnorm.verification.onnx import functions, kernels, windows
from tests.support.planting import plant
from tests.support.validating import quiet
from tools.validation.execution import main, validate
from tools.validation.execution_onnx import apart
from tools.validation.families import GENERATORS

Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def numbers() -> Iterator[None]:
    with quiet():
        yield


def test_what_is_computed_is_what_the_framework_computes() -> None:
    verdicts = [validate(op, 0, index) for op in sorted(GENERATORS) for index in range(3)]
    findings = [verdict.text for verdict in verdicts if verdict.is_finding]
    assert not findings, "\n".join(findings)


def run(kernel: Any, wrong: Callable[..., Any]) -> Plant:
    """Plant `wrong(right result, ...)` in a kernel."""

    def planted(patch: pytest.MonkeyPatch) -> None:
        right = kernel._run

        def changed(self: Any, *given: Any, **named: Any) -> Any:
            return wrong(right(self, *given, **named), *given, **named)

        changed.__signature__ = inspect.signature(right)  # type: ignore[attr-defined]
        patch.setattr(kernel, "_run", changed)

    return planted


def item(table: Any, name: str, wrong: Callable[..., Any]) -> Plant:
    right = table[name]
    return lambda patch: plant(patch, table, name, lambda *given: wrong(right, *given))


def attribute(owner: Any, name: str, wrong: Callable[..., Any]) -> Plant:
    def planted(patch: pytest.MonkeyPatch) -> None:
        right = getattr(owner, name)
        patch.setattr(owner, name, lambda *given, **named: wrong(right, *given, **named))

    return planted


def reference(patch: pytest.MonkeyPatch) -> None:
    """What ONNX's reference implementation computes, wrong as it is."""
    patch.setattr(compute, "_MISCOMPUTED", frozenset())


PLANTED: dict[str, tuple[str, Plant]] = {
    "anchor: Erf in float32": ("Erf", run(functions.Erf, lambda y, x: (
        y[0].astype(np.float32).astype(x.dtype),))),
    "anchor: a constant of GELU": ("Gelu", run(functions.Gelu, lambda y, x, *_, **__: (y[0] * (1 + 1e-8),))),
    "anchor: a sixth": ("HardSwish", run(functions.HardSwish, lambda y, x: (y[0] + 1e-8,))),
    "anchor: convolutions without groups": ("Conv", attribute(
        kernels, "_by_offset", lambda right, x, w, groups, *rest: right(x, w, groups, *rest) * (groups < 2))),
    "anchor: windows one place on": ("MaxPool", run(
        kernels.MaxPool, lambda y, x, *_, **__: tuple(np.roll(part, 1, -1) for part in y))),
    "anchor: padding of SAME": ("Conv", attribute(windows.Windows, "of", lambda right, *given, **named: right(
        *given[:5], "SAME_LOWER" if given[5] == "SAME_UPPER" else given[5], *given[6:], **named))),
    "anchor: padding counted": ("AveragePool", attribute(
        windows.Windows, "counted", lambda right, self, padding: np.ones_like(right(self, padding)))),
    "anchor: absolute values": ("LpNormalization", run(
        functions.LpNormalization, lambda y, x, *_, **__: (np.abs(y[0]),))),
    "anchor: momentum for epsilon": ("BatchNormalization", run(
        kernels.BatchNormalization, lambda y, x, *_, **__: (y[0] * 1.001,))),
    "constants: norms": ("LpNormalization", reference),
    "constants: neighbours": ("LRN", reference),
    "constants: a factor": ("Exp", attribute(compute, "run_step", lambda right, step, arrays: {
        name: array * (1 + (step.node.op_type == "Exp")) for name, array in right(step, arrays).items()})),
    "paths: a mean's count": ("ReduceMean", item(
        paths.RULES, "ReduceMean", lambda right, *given: right(*given) * 1.01)),
    "paths: a mean's padding": ("AveragePool", attribute(
        paths, "window_count", lambda right, size, at, shape: float(np.prod(at["kernel_shape"])))),
    "paths: a padding's number": ("Pad", item(paths.RULES, "Pad", lambda right, walk, node, shape: np.pad(
        walk.values[node.inputs[0]], [(1, 0)] + [(0, 0)] * (len(shape) - 1)))),
    "paths: without bias": ("Conv", item(paths.RULES, "Conv", lambda right, walk, node, shape: (
        right(walk, node, shape) * 2))),
    "entries: axes": ("Transpose", item(entry_rules.RULES, "Transpose", lambda right, walk, node: [
        walk.reading(node.inputs[0]).mapped(lambda array: array.reshape(walk.shape(node.outputs[0])))])),
    "entries: a sign": ("Sub", item(entry_rules.RULES, "Sub", lambda right, walk, node: (
        entry_rules.RULES["Add"](walk, node)))),
    "entries: a bound": ("Clip", item(entry_rules.RULES, "Clip", lambda right, walk, node: [
        reading.clipped(-1.0, 1.0) for reading in right(walk, node)])),
    "entries: a remainder's reach": ("Mod", item(entry_rules.RULES, "Mod", lambda right, walk, node: [
        reading.clipped(0.0, 1.0) for reading in right(walk, node)])),
    "entries: a position": ("ArgMax", item(entry_rules.RULES, "ArgMax", lambda right, walk, node: [
        reading.clipped(0.0, 0.0) for reading in right(walk, node)])),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_computation_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, spoil = PLANTED[name]
    spoil(monkeypatch)
    texts = [verdict.text for index in range(40) if (verdict := validate(op, 0, index)).is_finding]
    assert any(f": {name.partition(':')[0]}: " in text for text in texts), texts


def test_differences_are_measured_by_the_largest_entry_and_by_noise() -> None:
    one = np.array([1.0, 1000.0])
    off = one + np.array([1e-4, 0.0])
    assert not apart([one], [off], 1e-6)
    assert "is 1.0001 at [0]" in apart([one], [off], 1e-8)
    assert not apart([one], [off], 1e-8, [np.full(2, 1e-5)])
    assert "at [0]" in apart([np.array([1, 2])], [np.array([2, 2])], 1.0)
    assert not apart([np.array([1, 2])], [np.array([2, 2])], 0.0, [np.array([1, 0])])
    assert "shape" in apart([one], [one[:1]], 1.0)
    assert apart([np.array([np.nan])], [np.array([0.0])], 1.0)


def test_the_command_line_says_what_is_covered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--op", "Conv", "graphnorm::Choice", "--cases", "2"]) == 0
    said = capsys.readouterr().out
    assert "anchor: 1 operators" in said
    assert "1 operators are computed by none: graphnorm::Choice" in said
