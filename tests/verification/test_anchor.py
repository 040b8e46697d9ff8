"""What counts as exact, which runs show something, and the operators of the float64 run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from typer.testing import CliRunner

import graphnorm
from graphnorm import ir
from graphnorm.cli.commands import app
from graphnorm.errors import RunError
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.verification.anchor import Truth
from graphnorm.verification.measure import measure
from graphnorm.verification.movement import Movement
from graphnorm.verification.norms import distance, root_mean_square
from graphnorm.verification.onnx.float64 import Float64Runner
from graphnorm.verification.onnx.kernels import BatchNormalization
from graphnorm.verification.onnx.runner import OnnxRunner
from graphnorm.verification.runner import Reference
from graphnorm.verification.torch.runner import TorchRunner

Function = Callable[[ir.Array], ir.Array]


@dataclasses.dataclass
class Plain:
    """A function run in float32, with a float64 run that may compute another one."""

    function: Function
    finer: Function
    device: str = "cpu"
    runtime: str = "numpy"
    tiny: float = 2.0
    remarks: tuple[str, ...] = ()

    def run(self, inputs: Sequence[ir.Array]) -> list[ir.Array]:
        return [np.asarray(self.function(inputs[0])).astype(np.float32)]

    def reference(self) -> Reference:
        return Reference(Finer(self.finer), "float64")

    def nearby(self, seed: int, size: float | None) -> Plain:
        return self


@dataclasses.dataclass
class Finer:
    function: Function

    def run(self, inputs: Sequence[ir.Array]) -> list[ir.Array]:
        return [self.function(inputs[0].astype(np.float64))]

    def shaken(self, inputs: Sequence[ir.Array], unit: float, seed: int) -> list[ir.Array]:
        generator = np.random.default_rng(seed)
        return [self.function(inputs[0] * (1 + unit * generator.uniform(-1, 1, inputs[0].shape)))]


def _inputs(*sizes: float) -> list[tuple[str, Sequence[ir.Array]]]:
    entries = np.random.default_rng(0).standard_normal(1000)
    return [("given", [(size * entries).astype(np.float32)]) for size in sizes]


def _wrong_where_large(x: ir.Array) -> ir.Array:
    return np.asarray(np.tanh(x) * (1.1 if np.abs(x).max() > 50 else 1.0))


class TestBelief:
    def test_an_anchor_that_errs_on_a_later_input_is_dropped_there(self) -> None:
        inputs = _inputs(1.0, 2.0, 100.0)
        original = Plain(np.tanh, _wrong_where_large)
        found = measure(
            original, Plain(lambda x: np.tanh(x) * (1 + 1e-3 * (np.abs(x) > 50)), np.tanh), inputs
        )
        assert not found.agrees
        assert found.parted == 2
        assert found.anchor.startswith("float64; on 1 of 3 inputs the original's own run")

    @pytest.mark.parametrize("error", [3e-4, 3e-5, 3e-6])
    def test_an_error_below_the_root_of_epsilon_is_seen_too(self, error: float) -> None:
        original = Plain(np.tanh, lambda x: np.tanh(x) * (1 + error))
        assert measure(original, Plain(lambda x: np.tanh(x) * (1 + error), np.tanh), _inputs(1.0)).parted == 0

    def test_an_anchor_that_loses_entries_is_not_believed(self) -> None:
        original = Plain(np.cos, lambda x: np.where(x > 1, np.nan, np.cos(x)))
        other = Plain(lambda x: np.where(x > 1, 2 * np.cos(x), np.cos(x)), np.cos)
        assert not measure(original, other, _inputs(1.0)).agrees

    def test_cancellation_inside_is_the_originals_own_error(self) -> None:
        large = np.float32(1e5)
        truth = Truth(Plain(lambda x: (x + large) - large, lambda x: x))
        arrays = _inputs(1.0)[0][1]
        inside = Plain(lambda x: (x + large) - large, lambda x: x)
        _, believed = truth(arrays, [inside.run(arrays)])
        assert not believed  # nothing that the two runs know of moves by so much
        noisy = Finer(lambda x: x)
        noisy.shaken = lambda inputs, unit, seed: [  # type: ignore[method-assign]
            inputs[0] + 1e5 * unit * np.random.default_rng(seed).uniform(-1, 1, inputs[0].shape)
        ]
        truth.reference = Reference(noisy, "float64")
        assert truth(arrays, [inside.run(arrays)])[1]

    def test_a_module_that_does_something_else_in_float64_hides_nothing(self) -> None:
        class Branching(nn.Module):
            def __init__(self, factor: float) -> None:
                super().__init__()
                self.layer, self.factor = nn.Linear(4, 4), factor

            def forward(self, x: Any) -> Any:
                found = self.layer(x)
                return found * (1.1 if found.dtype == torch.float64 else self.factor)

        torch.manual_seed(0)
        a, b = Branching(1.0), Branching(1.05)
        b.load_state_dict(a.state_dict())
        assert graphnorm.check(a.eval(), b.eval(), torch.randn(2, 4), seconds=0.5).verdict == "differs"

    def test_torch_knows_its_own_error_inside(self) -> None:
        class Cancelling(nn.Module):
            def forward(self, x: Any) -> Any:
                return (x + 1e5) - 1e5

        example = torch.randn(3, 50)
        runner = TorchRunner(Cancelling(), ((example,), {}), "cpu")
        arrays = [example.numpy()]
        assert Truth(runner)(arrays, [runner.run(arrays)])[1]


class TestShowing:
    @pytest.mark.parametrize(
        ("function", "still"),
        [
            (np.tanh, False),
            (lambda x: np.zeros_like(x), True),
            (lambda x: np.full_like(x, np.nan), True),
            (lambda x: np.full_like(x, 3.0), True),
            (lambda x: 1000 + 1e-6 * x, True),
            (lambda x: np.where(x > 0, np.inf, -np.inf), True),
            (lambda x: np.where(x > 0, np.inf, x), False),
            (lambda x: x > 0.5, False),
            (lambda x: x > 1e9, True),
        ],
    )
    def test_outputs_that_never_move(self, function: Function, still: bool) -> None:
        watch = Movement()
        for _, arrays in _inputs(1.0, 2.0, 3.0):
            watch.see(arrays, [np.tanh(arrays[0]), function(arrays[0])])
        assert watch.still == ((1,) if still else ())

    def test_one_input_shows_what_is_finite(self) -> None:
        watch = Movement()
        for _ in range(2):  # the same input a second time shows nothing more
            watch.see([np.ones(3)], [np.ones(3), np.zeros(3), np.full(3, np.nan)])
        assert watch.still == (1, 2)

    @pytest.mark.parametrize("dead", ["hard", "root", "overflow"])
    def test_one_dead_output_of_two_is_no_agreement(self, dead: str) -> None:
        class Two(nn.Module):
            def __init__(self, factor: float) -> None:
                super().__init__()
                self.layer, self.factor = nn.Linear(4, 4), factor

            def forward(self, x: Any) -> Any:
                h = self.layer(x)
                blind = {
                    "hard": torch.relu(h - 1e4),
                    "root": (h - 1e4).sqrt(),
                    "overflow": (h * 0 + 1e3).exp(),
                }
                return h, self.factor * blind[dead]

        torch.manual_seed(0)
        a, b = Two(1.0), Two(2.0)
        b.load_state_dict(a.state_dict())
        report = graphnorm.check(a.eval(), b.eval(), torch.randn(2, 4), seconds=0.5)
        assert report.verdict == "not exercised"
        assert not report.equivalent
        assert "the runs show nothing about what is computed there" in " ".join(report.remarks)

    def test_an_output_without_inputs_counts_as_shown(self) -> None:
        class Grid(nn.Module):
            def __init__(self, short: bool) -> None:
                super().__init__()
                self.layer, self.short = nn.Linear(4, 4), short

            def forward(self, x: Any) -> Any:
                h = self.layer(x)
                return torch.sinh(h) if self.short else (h.exp() - (-h).exp()) / 2, torch.arange(3.0) + 1

        torch.manual_seed(0)
        a, b = Grid(False), Grid(True)
        b.load_state_dict(a.state_dict())
        assert graphnorm.check(a.eval(), b.eval(), torch.randn(2, 4), seconds=0.5).verdict == "agrees"


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1.0, 1e155, 1e200, 1.7e308])
def test_root_mean_squares_neither_overflow_nor_vanish(size: float) -> None:
    assert root_mean_square(np.array([size, -size, size])) == pytest.approx(size, rel=1e-3)
    assert distance(np.array([size, size]), np.array([-size, -size])) == pytest.approx(2 * size, rel=1e-3)
    assert root_mean_square(np.array([size, np.inf])) == np.inf
    assert np.isnan(root_mean_square(np.array([size, np.nan])))


def _node_model(op: str, shape: Sequence[int], operands: Sequence[Sequence[int]], **attributes: Any) -> Any:
    generator = np.random.default_rng(0)
    held = [
        numpy_helper.from_array(generator.uniform(0.5, 1.5, item).astype(np.float32), f"w{i}")
        for i, item in enumerate(operands)
    ]
    outputs = attributes.pop("outputs", 1)
    node = helper.make_node(
        op, ["x", *(t.name for t in held)], [f"y{i}" for i in range(outputs)], **attributes
    )
    results = [helper.make_tensor_value_info("y0", TensorProto.FLOAT, None)]
    results += [helper.make_tensor_value_info("y1", TensorProto.INT64, None)] * (outputs - 1)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    graph = helper.make_graph([node], "g", [x], results, held)
    opset = attributes.get("opset", 17)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


CASES: list[tuple[str, Sequence[int], list[Sequence[int]], dict[str, Any]]] = [
    ("Conv", (2, 6, 9, 8), [(8, 6, 3, 3), (8,)], {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("Conv", (2, 6, 9, 8), [(8, 6, 3, 2)], {"dilations": [2, 3], "auto_pad": "VALID"}),
    ("Conv", (1, 6, 9, 8), [(12, 3, 3, 3), (12,)], {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", (1, 32, 6, 6), [(32, 16, 3, 3)], {"group": 2, "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("Conv", (2, 6, 9, 8), [(12, 1, 3, 3)], {"group": 6, "pads": [1, 1, 1, 1]}),
    ("Conv", (2, 6, 17), [(8, 6, 5)], {"pads": [2, 2]}),
    ("Conv", (1, 3, 5, 6, 7), [(8, 3, 2, 3, 2)], {"strides": [1, 2, 1]}),
    ("ConvTranspose", (2, 4, 5, 6), [(4, 3, 3, 3), (3,)], {"strides": [2, 2], "output_padding": [1, 1]}),
    ("ConvTranspose", (1, 4, 5, 6), [(4, 3, 3, 2)], {"group": 2, "pads": [1, 0, 1, 1], "dilations": [2, 1]}),
    ("ConvTranspose", (1, 4, 5, 6), [(4, 3, 3, 3)], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", (1, 4, 5, 6), [(4, 3, 3, 3)], {"strides": [2, 2], "output_shape": [10, 12]}),
    ("ConvTranspose", (1, 4, 9), [(4, 3, 4)], {"strides": [4], "pads": [1, 1]}),
    ("MaxPool", (2, 3, 9, 8), [], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 0]}),
    ("MaxPool", (2, 3, 9, 8), [], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", (2, 3, 9, 8), [], {"kernel_shape": [2, 2], "dilations": [2, 3], "auto_pad": "VALID"}),
    ("MaxPool", (2, 3, 9, 8), [], {"kernel_shape": [3, 3], "strides": [3, 2], "outputs": 2, "pads": [1] * 4}),
    ("AveragePool", (2, 3, 9, 8), [], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 0]}),
    ("AveragePool", (2, 3, 9, 8), [], {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}),
    ("AveragePool", (2, 3, 9, 8), [], {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("LRN", (2, 7, 4, 5), [], {"size": 3, "alpha": 0.1}),
    ("LRN", (3, 5, 4, 5), [], {"size": 5, "alpha": 0.3, "beta": 0.6, "bias": 2.0}),
    ("BatchNormalization", (2, 3, 4), [(3,), (3,), (3,), (3,)], {}),
]


@pytest.mark.parametrize(("op", "shape", "operands", "attributes"), CASES)
def test_operators_in_float64(op: str, shape: Any, operands: Any, attributes: dict[str, Any]) -> None:
    proto = _node_model(op, shape, operands, **attributes)
    loaded = onnx_ir.from_proto(proto)
    x = np.random.default_rng(1).uniform(-30, 30, shape).astype(np.float32)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})
    found = Float64Runner(loaded, read_onnx(loaded)).run([x])
    assert len(found) == len(expected)
    for one, two in zip(found, expected, strict=True):
        assert one.shape == two.shape
        np.testing.assert_allclose(one, two, rtol=2e-5, atol=2e-5 * np.abs(two).max())
    assert found[0].dtype == np.float64


def test_large_convolutions_are_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = _node_model("Conv", (2, 6, 9, 8), [(8, 6, 3, 3)], strides=[1, 2])
    loaded = onnx_ir.from_proto(proto)
    runner = Float64Runner(loaded, read_onnx(loaded))
    x = np.random.default_rng(1).standard_normal((2, 6, 9, 8))
    whole = runner.run([x])[0]
    for entries in (1, 100, 700):
        monkeypatch.setattr("graphnorm.verification.onnx.kernels._CHUNK", entries)
        np.testing.assert_allclose(runner.run([x])[0], whole, rtol=1e-12)


def test_what_the_float64_run_lacks_is_said() -> None:
    attributes: dict[str, Any] = {"kernel_shape": [2, 2], "outputs": 2, "storage_order": 1}
    loaded = onnx_ir.from_proto(_node_model("MaxPool", (1, 3, 4, 4), [], **attributes))
    with pytest.raises(RunError, match="the run of ONNX's reference implementation fails on x float32"):
        Float64Runner(loaded, read_onnx(loaded)).run([np.ones((1, 3, 4, 4), np.float32)])


def test_an_unknown_operator_has_no_float64_run() -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=opsets, ir_version=9)
    loaded = onnx_ir.from_proto(proto)
    with pytest.raises(RunError, match="reference implementation cannot run the model"):
        Float64Runner(loaded, read_onnx(loaded))
    runner = OnnxRunner(loaded, read_onnx(loaded), "cpu")
    assert runner.reference().anchor is None


def test_bodies_read_weights_of_the_main_graph() -> None:
    """Large weights are taken out of the evaluator's model: bodies must still find them."""
    weight = numpy_helper.from_array(np.random.default_rng(0).random((32, 32), np.float32) - 0.5, "w")
    branches = [
        helper.make_graph([helper.make_node(op, ["x", "w"], [name])], op, [], [_typed(name, None)])
        for op, name in (("MatMul", "m"), ("Add", "a"))
    ]
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    zero = numpy_helper.from_array(np.zeros((), np.float32), "zero")
    graph = helper.make_graph(nodes, "g", [_typed("x", [32, 32])], [_typed("y", [32, 32])], [weight, zero])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(proto)
    loaded = onnx_ir.from_proto(proto)
    runner = Float64Runner(loaded, read_onnx(loaded))
    w = numpy_helper.to_array(weight).astype(np.float64)
    for x in (np.ones((32, 32), np.float32), -np.ones((32, 32), np.float32)):
        expected = x @ w if x.sum() > 0 else x + w
        np.testing.assert_allclose(runner.run([x])[0], expected, rtol=1e-12)
        moved = runner.shaken([x], 1e-6, 0)[0]
        assert 0 < np.abs(moved - expected).max() < 1e-3


def _typed(name: str, shape: Any) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--require-proof"], 1)])
def test_what_was_not_exercised_ends_as_asked(tmp_path: Path, options: list[str], code: int) -> None:
    for name, factor in (("a", 1.0), ("b", 2.0)):
        nodes = [
            helper.make_node("Sub", ["x", "far"], ["s"]),
            helper.make_node("Relu", ["s"], ["r"]),
            helper.make_node("Mul", ["r", "k"], ["y"]),
        ]
        held = [
            numpy_helper.from_array(np.asarray([v], np.float32), n) for n, v in (("far", 1e6), ("k", factor))
        ]
        graph = helper.make_graph(nodes, "g", [_typed("x", [2, 3])], [_typed("y", [2, 3])], held)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(proto, tmp_path / f"{name}.onnx")
    line = ["check", str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), "--seconds", "0.5", *options]
    found = CliRunner().invoke(app, line)
    assert found.exit_code == code, found.output
    assert "not exercised" in found.output


def test_batch_statistics_have_no_float64_run() -> None:
    x, one = np.ones((2, 3, 4)), np.ones(3)
    kernel: Any = BatchNormalization
    with pytest.raises(NotImplementedError, match="in training mode"):
        kernel._run(None, x, one, one, one, one, training_mode=1)
