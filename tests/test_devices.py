"""Where models are measured, and in which precision; stand-ins for devices that are not here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import graphnorm
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.verification.onnx.providers import device_name, full_precision, pick_provider, provider_options
from graphnorm.verification.onnx.runner import OnnxRunner
from graphnorm.verification.torch import places as torch_places
from graphnorm.verification.torch.places import Place, placed, places
from graphnorm.verification.torch.precision import measuring
from graphnorm.verification.torch.runner import TorchRunner

FLAGS: dict[str, Callable[[], Any]] = {
    "cuDNN": lambda: torch.backends.cudnn.allow_tf32,
    "products": lambda: torch.backends.cuda.matmul.allow_tf32,
    "precision": torch.get_float32_matmul_precision,
    "benchmark": lambda: torch.backends.cudnn.benchmark,
    "deterministic": lambda: torch.backends.cudnn.deterministic,
    "algorithms": torch.are_deterministic_algorithms_enabled,
    "autocast": lambda: torch.is_autocast_enabled("cpu"),
}
INSIDE = {
    "cuDNN": False, "products": False, "precision": "highest", "benchmark": False, "deterministic": True,
    "algorithms": True, "autocast": False,
}  # fmt: skip


@pytest.fixture(params=["default", "medium", "older"])
def flags(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A caller's flags, put back after the test."""
    precision, tf32, benchmark = (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
    )
    if request.param == "medium":
        torch.set_float32_matmul_precision("medium")
    if request.param == "older":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    yield {name: read() for name, read in FLAGS.items()}
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = tf32, benchmark


class Imitation(nn.Module):
    """A layer that rounds its operands to 10 bits where torch would let a GPU do so."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 4, bias=False)

    def forward(self, x: Any) -> Any:
        if torch.compiler.is_compiling() or not torch.backends.cudnn.allow_tf32:
            return self.layer(x)
        return self.layer((x * 2**10).round() / 2**10 * 1.03)


class TestPrecision:
    def test_flags_while_measuring_and_after(self, flags: dict[str, Any]) -> None:
        with torch.autocast("cpu"), measuring("cpu"):
            assert {name: read() for name, read in FLAGS.items()} == INSIDE
        assert {name: read() for name, read in FLAGS.items()} == flags

    def test_flags_are_put_back_after_a_failure(self, flags: dict[str, Any]) -> None:
        with pytest.raises(ZeroDivisionError), measuring("cpu"):
            _ = 1 / 0
        assert {name: read() for name, read in FLAGS.items()} == flags

    def test_both_interfaces_of_torch_at_once(self) -> None:
        cudnn: Any = torch.backends.cudnn
        if not hasattr(cudnn, "conv"):
            pytest.skip("this torch has one interface")
        before = cudnn.allow_tf32
        cudnn.conv.fp32_precision = "ieee"  # beside the older flags: nothing can be read any more
        try:
            with measuring("cpu"):
                assert (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == ("ieee", "ieee")
            assert (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == ("ieee", "tf32")
        finally:
            cudnn.allow_tf32 = before

    def test_a_channel_that_is_one_percent_off_is_not_lost_in_tf32(self) -> None:
        torch.manual_seed(0)
        a, b = Imitation().eval(), Imitation().eval()
        b.load_state_dict(a.state_dict())
        with torch.no_grad():
            b.layer.weight[2] *= 1.01
        report = graphnorm.check(a, b, torch.randn(2, 16), seconds=0.5)
        assert report.verdict == "differs"
        measured = report.verification.measurement
        assert measured is not None
        assert "TF32 and autocast off" in measured.runtimes[0]


class TestPlaces:
    def test_auto_is_where_the_model_lies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        assert places(nn.Linear(2, 2), "auto") == [Place("cpu", False)]
        assert places(nn.Linear(2, 2, device="meta"), "auto")[0].device == "cpu"
        assert places(nn.ReLU(), "auto") == [Place("cpu", False)]

    def test_devices_of_torch_are_taken(self) -> None:
        model, example = nn.Linear(3, 3).eval(), torch.randn(2, 3)
        report = graphnorm.check(model, model, example, device=torch.device("cpu"), seconds=0.5)  # type: ignore[arg-type]
        assert report.verification.measurement is not None
        assert report.verification.measurement.device == "cpu"
        done = graphnorm.canonicalize(model, example, device=torch.device("cpu"))  # type: ignore[arg-type]
        assert done.report.verification.verdict == "proved"

    def test_what_cannot_run_elsewhere_is_measured_at_home(self) -> None:
        """The meta device takes a model, and gives no numbers."""
        model, example = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3)).eval(), torch.randn(2, 3)
        report = graphnorm.canonicalize(model, example, device="meta").report
        assert report.verification.verdict == "proved"
        assert report.verification.measurement is not None
        assert report.verification.measurement.device == "cpu"
        assert any("cannot be run on meta: measured on cpu" in text for text in report.remarks)

    @pytest.mark.parametrize("error", [RuntimeError("out of memory"), TypeError("no such type there")])
    def test_what_does_not_fit_is_measured_at_home(
        self, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def refusing(model: Any, place: Place, double: bool, share: bool) -> Any:
            if place.moves:
                raise error
            return placed(model, place, double, share)

        monkeypatch.setattr("graphnorm.verification.torch.runner.placed", refusing)
        runner = TorchRunner(nn.Linear(3, 3), ((torch.randn(2, 3),), {}), "meta")
        assert runner.device == "cpu"
        assert runner.remarks == (f"the model cannot be run on meta: measured on cpu ({error})",)

    def test_an_error_of_the_model_is_no_question_of_the_place(self) -> None:
        runner = TorchRunner(nn.Linear(3, 3), ((torch.randn(2, 3),), {}), "meta")
        with pytest.raises(graphnorm.RunError, match="torch's run of Linear fails on input 0"):
            runner.run([np.ones((2, 5), np.float32)])
        assert runner.device == "meta"
        assert not runner.remarks

    def test_models_on_several_devices_are_never_moved(self) -> None:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, device="meta"))
        (place,) = places(model, "cpu")
        assert not place.moves
        assert place.remark == "the model lies on cpu, meta: measured there"
        copied = placed(model, place, double=True)
        assert [str(p.device) for p in copied.parameters()] == ["cpu", "cpu", "meta", "meta"]
        sharded: Any = nn.Linear(3, 3)
        sharded.hf_device_map = {"": "cpu"}
        assert [place.moves for place in places(sharded, "meta")] == [False]

    def test_a_device_without_float64_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refusing(model: Any, place: Place, double: bool, share: bool) -> Any:
            if double and place.device == "meta":
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
            return placed(model, place, double, share)

        monkeypatch.setattr("graphnorm.verification.torch.runner.placed", refusing)
        runner = TorchRunner(nn.Linear(3, 3), ((torch.randn(2, 3),), {}), "meta")
        reference = runner.reference()
        assert reference.name == "float64 on the CPU"
        assert "no float64 run of the model on meta (Cannot convert" in reference.remark
        assert reference.anchor is not None
        assert reference.anchor.run([np.ones((2, 3), np.float32)])[0].dtype == np.float64

    def test_without_float64_anywhere_the_own_run_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refusing(model: Any, place: Place, double: bool, share: bool) -> Any:
            if double:
                raise RuntimeError("not enough memory")
            return placed(model, place, double, share)

        monkeypatch.setattr("graphnorm.verification.torch.runner.placed", refusing)
        model, example = nn.Linear(3, 3).eval(), torch.randn(2, 3)
        report = graphnorm.check(model, model, example, seconds=0.5)
        assert report.verdict == "identical"
        assert any(
            "no float64 run of the model on cpu (not enough memory)" in text for text in report.remarks
        )

    def test_exported_programs_take_their_literals_along(self) -> None:
        class Made(nn.Module):
            def forward(self, x: Any) -> Any:
                return x + torch.arange(3.0, device=x.device)

        program = torch.export.export(Made(), (torch.randn(2, 3),))
        moved: Any = placed(program, Place("meta", True), double=False)
        literals = [node.kwargs["device"] for node in moved.graph.nodes if "device" in node.kwargs]
        assert literals
        assert all(str(device) == "meta" for device in literals)
        kept = [node.kwargs["device"] for node in program.graph.nodes if "device" in node.kwargs]
        assert all(str(device) == "cpu" for device in kept)

    def test_the_callers_model_stays_as_it_is(self) -> None:
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for place in (Place("cpu", False), Place("meta", True)):
            for double in (False, True):
                placed(model, place, double)
        runner = TorchRunner(model, ((torch.randn(4, 3),), {}), "cpu")
        runner.run([np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)])
        runner.nearby(0, 0.05)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        assert all(tensor.dtype == before[name].dtype for name, tensor in model.state_dict().items())

    def test_torch_names_what_it_lacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        with pytest.raises(graphnorm.InputError, match="no CUDA device"):
            torch_places.pick_device("cuda:1")


class TestProviders:
    OFFERED = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")

    @pytest.fixture(autouse=True)
    def offered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("onnxruntime.get_available_providers", lambda: list(self.OFFERED))

    def test_options_turn_tf32_off_and_name_the_device(self) -> None:
        assert pick_provider("cuda:1") == "CUDAExecutionProvider"
        options = provider_options("CUDAExecutionProvider", "cuda:1")
        assert (options["use_tf32"], options["device_id"]) == ("0", "1")
        assert options["cudnn_conv_algo_search"] == "DEFAULT"
        assert provider_options("TensorrtExecutionProvider", "tensorrt:2")["device_id"] == "2"
        assert provider_options("TensorrtExecutionProvider", "tensorrt")["trt_fp16_enable"] == "0"
        assert provider_options("CPUExecutionProvider", "cpu") == {}
        assert device_name("CUDAExecutionProvider", "cuda:1") == "cuda:1"
        assert device_name("CUDAExecutionProvider", "auto") == "cuda"

    @pytest.mark.parametrize("device", ["cpu:1", "cuda:x"])
    def test_numbers_that_name_nothing(self, device: str) -> None:
        with pytest.raises(graphnorm.InputError, match="has no device"):
            pick_provider(device)

    @pytest.mark.parametrize("before", [None, "1"])
    def test_the_environment_is_put_back(self, monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
        monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
        if before is not None:
            monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", before)
        with full_precision("TensorrtExecutionProvider"):
            assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
        assert os.environ.get("NVIDIA_TF32_OVERRIDE") == before
        with full_precision("CPUExecutionProvider"):
            assert os.environ.get("NVIDIA_TF32_OVERRIDE") == before

    def test_a_session_is_made_with_these_options(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[Any] = []
        real = onnxruntime.InferenceSession

        class Standing:
            """A session on the CPU that says it is on CUDA."""

            def __init__(self, model: Any, options: Any, providers: Any) -> None:
                made.append(
                    (providers, options.use_deterministic_compute, os.environ["NVIDIA_TF32_OVERRIDE"])
                )
                self._real = real(model, options, providers=["CPUExecutionProvider"])

            def get_providers(self) -> list[str]:
                return ["CUDAExecutionProvider"]

            def __getattr__(self, name: str) -> Any:
                return getattr(self._real, name)

        monkeypatch.setattr("onnxruntime.InferenceSession", Standing)
        w = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy")
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [w])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        report = graphnorm.check(proto, proto, device=torch.device("cuda", 1), seconds=0.5)  # type: ignore[arg-type]
        for providers, deterministic, variable in made:
            assert providers == [("CUDAExecutionProvider", provider_options(*_cuda(1)))]
            assert deterministic
            assert variable == "0"
        assert len(made) >= 2
        assert report.remarks == ("measured on cuda:1 with TF32 off, deterministic",)
        loaded = onnx_ir.from_proto(proto)
        assert OnnxRunner(loaded, read_onnx(loaded), "cuda:1").device == "cuda:1"


def _cuda(index: int) -> tuple[str, str]:
    return "CUDAExecutionProvider", f"cuda:{index}"
