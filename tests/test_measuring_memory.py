"""Large models are measured without copies: the same numbers, and nothing of the caller's state changes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import graphnorm
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.verification.onnx.runner import OnnxRunner
from graphnorm.verification.torch.runner import TorchRunner
from graphnorm.verification.torch.sharing import WriteGuard


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphnorm.verification.torch.sharing._COPIED", 0)
    monkeypatch.setattr("graphnorm.verification.onnx.runner._COPIED", 0)
    monkeypatch.setattr("graphnorm.verification.onnx.slim._LEAST", 16)


class Writing(nn.Module):
    """Counts its calls in a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.calls = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x: Any) -> Any:
        self.calls.add_(1)
        return self.layer(x) + self.calls


class Reaching(nn.Module):
    """Reads the weight of another part."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Any) -> Any:
        return nn.functional.linear(self.layer(x), self.layer.weight)


def _convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 3, 1))


MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3)), (2, 3)),
    "convolutional": (_convolutional, (2, 3, 7)),
    "reaching": (Reaching, (2, 3)),
    "writing": (Writing, (2, 3)),
    "attention": (lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (2, 5, 4)),
    "recurrent": (lambda: nn.LSTM(3, 4, batch_first=True), (2, 5, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_shared_parameters_give_the_same_numbers_and_stay(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    built, shape = MODELS[name]
    model = built().eval()
    before = {key: (tensor.clone(), id(tensor)) for key, tensor in model.named_parameters()}
    call: tuple[Any, Any] = ((torch.randn(shape),), {})
    arrays = [call[0][0].numpy()]
    for double in (False, True):
        found = TorchRunner(model, call, "cpu", double).run(arrays)
        again = TorchRunner(model, call, "cpu", double, own=True).run(arrays)
        for one, two in zip(found, again, strict=True):
            assert one.dtype == two.dtype == (np.float64 if double else np.float32)
            np.testing.assert_array_equal(one, two)
    for key, tensor in model.named_parameters():
        assert id(tensor) == before[key][1]
        assert torch.equal(tensor, before[key][0])
    TorchRunner(model, call, "cpu").nearby(0, 0.05)
    assert all(torch.equal(tensor, before[key][0]) for key, tensor in model.named_parameters())


def test_parameters_are_float64_only_while_they_are_read() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3)).eval()
    runner = TorchRunner(model, ((torch.randn(2, 3),), {}), "cpu", double=True)
    assert {p.dtype for p in runner._module.parameters()} == {torch.float32}
    assert [id(p) for p in runner._module.parameters()] == [id(p) for p in model.parameters()]
    runner.run([np.ones((2, 3), np.float32)])
    assert {p.dtype for p in runner._module.parameters()} == {torch.float32}


def test_writing_to_a_parameter_is_refused() -> None:
    model = Writing()
    with pytest.raises(graphnorm.RunError, match="writes to a parameter"), torch.no_grad(), WriteGuard(model):
        model(torch.zeros(1, 3))
    assert not model.calls.any()


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_verdicts_on_large_models(factor: float) -> None:
    torch.manual_seed(0)
    a, b = _convolutional().eval(), _convolutional().eval()
    b.load_state_dict(a.state_dict())
    with torch.no_grad():
        b[3].weight[1] *= factor  # type: ignore[index]
    report = graphnorm.check(a, b, torch.randn(2, 3, 7), seconds=0.5)
    assert report.verdict == ("identical" if factor == 1.0 else "differs")


def _onnx(constants: bool, factor: float = 1.0) -> Any:
    generator = np.random.default_rng(0)
    held = {f"w{i}": generator.standard_normal((6, 6)).astype(np.float32) for i in range(3)}
    held["w2"] *= np.float32(factor)
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["c"]),
        helper.make_node("Add", ["c", "w2"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
    if constants:
        nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in tensors] + nodes
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [6, 6]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [] if constants else tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("constants", [False, True])
def test_weights_that_are_fed_give_the_same_numbers(constants: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = onnx_ir.from_proto(_onnx(constants))
    x = np.random.default_rng(1).standard_normal((6, 6)).astype(np.float32)
    monkeypatch.setattr("graphnorm.verification.onnx.runner._size", lambda model: 1)
    fed = OnnxRunner(loaded, read_onnx(loaded), "cpu")
    assert len(fed._held) == 3
    monkeypatch.setattr("graphnorm.verification.onnx.runner._size", lambda model: 0)
    kept = OnnxRunner(loaded, read_onnx(loaded), "cpu")
    assert not kept._held
    np.testing.assert_allclose(fed.run([x])[0], kept.run([x])[0], rtol=1e-5)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "identical"), (1.01, "differs")])
def test_verdicts_on_large_onnx_models(factor: float, verdict: str) -> None:
    assert graphnorm.check(_onnx(False), _onnx(False, factor), seconds=0.5).verdict == verdict
    assert graphnorm.canonicalize(_onnx(False)).report.verification.verdict == "proved"


def test_the_float64_run_of_a_large_convolution_is_small() -> None:
    """192 x 192 maps of 64 channels: all patches at once would be 170 MB for each image."""
    script = """
import resource, sys
import numpy as np, onnx_ir
from onnx import TensorProto, helper, numpy_helper
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.verification.onnx.float64 import Float64Runner
w = numpy_helper.from_array(np.ones((8, 64, 3, 3), np.float32), "w")
sizes = {"x": [1, 64, 192, 192], "y": [1, 8, 192, 192]}
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()]
node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)
model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [w]),
                          opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
loaded = onnx_ir.from_proto(model)
runner = Float64Runner(loaded, read_onnx(loaded))
x = np.ones((1, 64, 192, 192), np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert runner.run([x])[0][0, 0, 5, 5] == 576
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    entries = 64 * 192 * 192
    assert int(ran.stdout) * 1024 < 5 * 8 * entries  # the input widened, padded, and a chunk
