"""Clips with bounds that are weights: the same bits, more freedom, nothing else touched, defects found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch.fx import GraphModule, symbolic_trace
from torch.fx.passes.infra.pass_manager import PassManager
from typer.testing import CliRunner

import graphnorm
from graphnorm import ir
from graphnorm.api.records import ClipRun
from graphnorm.cli.commands import app
from graphnorm.cli.models.zoo import build_module
from graphnorm.errors import InputError, NotEquivalentError
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.frontends.torch.read import read_torch
from graphnorm.passes import fx
from graphnorm.passes import onnx as onnx_passes
from graphnorm.passes.fx import clip_calls as fx_clip_calls
from graphnorm.passes.fx.clip import rewrite_clips
from graphnorm.passes.onnx import clip as onnx_clip
from graphnorm.rescaling import clips
from graphnorm.verification.rewriting import first_departure
from tests.support.oracle import nullity

SPECIAL = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, 0.0, 6.0, 1e-40])
Activation = Callable[[Tensor], Tensor]


class Net(nn.Module):
    """Two hidden layers of 4 and 6 channels; `rank` spatial axes, 0 for matrices."""

    def __init__(self, rank: int, first: Activation, second: Activation) -> None:
        super().__init__()
        torch.manual_seed(rank)
        conv: Any = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
        kernel = (1,) if rank else ()
        self.a, self.b, self.c = conv(3, 4, *kernel), conv(4, 6, *kernel), conv(6, 2, *kernel)
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(self.second(self.b(self.first(self.a(x)))))
        return out


def sample(rank: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Inputs on both sides of all bounds."""
    generator = torch.Generator().manual_seed(1)
    return (8 * torch.randn(5, 3, *[4] * rank, generator=generator)).to(dtype)


def outputs(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = (model.module() if isinstance(model, torch.export.ExportedProgram) else model)(x)
    return out


def assert_same_bits(one: Any, other: Any, x: Tensor) -> None:
    """Also for inputs that are no finite numbers: NaN stays NaN."""
    odd = x.clone()
    odd.view(-1)[: len(SPECIAL)] = SPECIAL.to(x.dtype)
    for inputs in (x, odd):
        before, after = outputs(one, inputs), outputs(other, inputs)
        assert before.dtype == after.dtype
        assert torch.equal(before.isnan(), after.isnan())
        assert torch.equal(torch.signbit(before), torch.signbit(after)) or before.isnan().any()
        assert torch.equal(before[~before.isnan()], after[~after.isnan()])


def rewrite(model: Any, x: Tensor) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    rewriting = fx.RewriteClipsPass((x,))
    result = rewriting(model)
    assert result is not None
    assert result.modified is (len(rewriting.rewritten) > 0)
    return result.graph_module, rewriting.rewritten, rewriting.skipped


# Modules


MODULES = [
    nn.ReLU6,
    nn.Hardtanh,
    lambda: nn.Hardtanh(-2, 0.5),
    lambda: nn.Hardtanh(-1.0, 0.0),
    lambda: nn.Hardtanh(0.5, 3),
]


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
@pytest.mark.parametrize("make", MODULES, ids=["relu6", "hardtanh", "asymmetric", "zero_above", "positive"])
def test_modules_gain_the_freedom_of_relu(make: Callable[[], nn.Module], rank: int) -> None:
    model, x = Net(rank, make(), make()), sample(rank)
    rewritten, names, skipped = rewrite(model, x)
    assert type(rewritten) is Net
    assert (names, skipped) == (("first", "second"), ())
    assert_same_bits(model, rewritten, x)
    assert graphnorm.trace(model, x).dimension == 0
    assert graphnorm.trace(rewritten, x).dimension == graphnorm.trace(Net(rank, F.relu, F.relu), x).dimension
    shapes = {tuple(buffer.shape) for name, buffer in rewritten.named_buffers() if name.startswith("second")}
    assert shapes == {(6, *[1] * rank)}
    assert rewrite(rewritten, x) == (rewritten, (), ())
    assert not dict(model.named_buffers())


def test_linear_layers_of_sequences_have_their_channels_last() -> None:
    model, x = Net(0, nn.ReLU6(), nn.ReLU6()), torch.randn(2, 5, 3)
    rewritten = rewrite(model, x)[0]
    assert rewritten.second.max.shape == (6,)
    assert_same_bits(model, rewritten, torch.randn(3, 7, 3))


def test_every_entry_after_a_flatten_follows_its_channel() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.ReLU6(), nn.Linear(4 * 9, 2))
    x = torch.randn(2, 3, 3, 3)
    rewritten = rewrite(model, x)[0]
    assert rewritten[2].max.shape == (36,)
    result = graphnorm.canonicalize(model, x, rewrite_clips=True)
    assert result.report.verification.verdict == "proved"
    assert result.report.dimension == 4


def test_one_channel_is_a_weight_too() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU6(), nn.Conv2d(1, 2, 1)), torch.randn(1, 3, 4, 4)
    assert rewrite(model, x)[0][1].max.shape == (1,)
    for source in (model, exported(model, x)):
        assert (
            graphnorm.canonicalize(
                source, x if source is model else None, rewrite_clips=True
            ).report.dimension
            == 1
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_bounds_have_the_type_of_their_input(dtype: torch.dtype) -> None:
    model, x = Net(2, nn.Hardtanh(-0.1, 0.3), nn.ReLU6()).to(dtype), sample(2, dtype)
    rewritten = rewrite(model, x)[0]
    assert {buffer.dtype for buffer in rewritten.buffers()} == {dtype}
    assert_same_bits(model, rewritten, x)
    assert graphnorm.canonicalize(model, x, rewrite_clips=True).report.verification.verdict == "proved"


def test_padding_is_clipped_with_its_channel() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ZeroPad2d(1), nn.Hardtanh(0.5, 3), nn.Conv2d(4, 2, 3))
    result = graphnorm.canonicalize(model, sample(2), rewrite_clips=True)
    assert result.report.dimension == 4
    assert result.report.verification.verdict == "proved"
    assert result.model[2].min.shape == (4, 1, 1)


def test_under_autocast_the_type_stays() -> None:
    model, x = Net(2, nn.ReLU6(), nn.ReLU6()), sample(2)
    rewritten = rewrite(model, x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert_same_bits(model, rewritten, x)


def test_the_dimension_is_that_of_the_numeric_oracle() -> None:
    model = Net(0, nn.ReLU6(), nn.Hardtanh()).double()
    rewritten = rewrite(model, sample(0).double())[0]
    assert nullity(rewritten, lambda generator: (torch.randn(4, 3, generator=generator),)) == 10
    assert graphnorm.trace(rewritten, sample(0).double()).dimension == 10


# Places


class AfterInplace(nn.Module):
    """What an activation in place leaves behind is read again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Conv2d(3, 4, 1), nn.ReLU6(inplace=True), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        out: Tensor = self.b(self.act(x) + x)
        return out


@pytest.mark.parametrize("form", ["module", "graph", "program"])
def test_in_place_stays_in_place(form: str) -> None:
    model, x = AfterInplace(), sample(2)
    source: Any = {"module": model, "graph": symbolic_trace(model)}.get(form) or torch.export.export(
        model, (x,)
    )
    found = rewrite_clips(source, (x,), {})
    assert found.rewritten == ("act",)
    assert_same_bits(model, found.model, x)


FUNCTIONS: dict[str, Activation] = {
    "relu6": F.relu6,
    "relu6_in_place": lambda x: F.relu6(x, inplace=True),
    "hardtanh": F.hardtanh,
    "hardtanh_keywords": lambda x: F.hardtanh(input=x, min_val=-2.0, max_val=3.0),
    "clamp": lambda x: torch.clamp(x, -1, 2),
    "clamp_max": lambda x: x.clamp(max=2.5),
    "clamp_min": lambda x: torch.clamp_min(x, -0.5),
    "clamp_in_place": lambda x: x.clamp_(-1.0, 1.0),
    "half_open": lambda x: torch.clamp(x, float("-inf"), 3.0),
}


@pytest.mark.parametrize("form", ["module", "program"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_methods(name: str, form: str) -> None:
    model, x = Net(2, FUNCTIONS[name], FUNCTIONS[name]), sample(2)
    source: Any = model if form == "module" else torch.export.export(model, (x,), strict=False)
    found = rewrite_clips(source, (x,), {})
    assert isinstance(found.model, GraphModule if form == "module" else torch.export.ExportedProgram)
    assert len(found.rewritten) == 2
    assert found.left == ()
    assert_same_bits(model, found.model, x)
    assert graphnorm.trace(found.model, x).dimension == 10


def test_clamped_integers_stay_integers() -> None:
    class Indexed(Net):
        def forward(self, x: Tensor) -> Tensor:
            picked = x[:, torch.arange(3).clamp(0, 1)]
            return super().forward(picked)

    model, x = Indexed(2, F.relu6, nn.ReLU6()), sample(2)
    rewritten, names, _ = rewrite(model, x)
    assert len(names) == 2
    assert_same_bits(model, rewritten, x)


class Shared(Net):
    """One activation for both layers, called twice."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(self.first(self.b(self.first(self.a(x)))))
        return out


def test_a_shared_activation_is_separated_call_by_call() -> None:
    act = nn.ReLU6()
    model, x = Shared(2, act, act), sample(2)
    rewritten, names, _ = rewrite(model, x)
    assert isinstance(rewritten, GraphModule)
    assert names == ("first_1", "first_2")
    assert [len(buffer) for buffer in rewritten.buffers()] == [4, 6]
    assert_same_bits(model, rewritten, x)
    assert rewritten.state_dict().keys() > model.state_dict().keys()


def test_a_block_that_is_used_twice_is_opened() -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.ReLU6())
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), block, block, nn.Linear(4, 2)), sample(0)
    rewritten, names, _ = rewrite(model, x)
    assert names == ("2.1_1", "2.1_2")
    assert_same_bits(model, rewritten, x)
    assert graphnorm.trace(rewritten, x).dimension > graphnorm.trace(model, x).dimension == 0


def test_one_activation_in_two_places_of_a_module_is_doubled() -> None:
    act = nn.ReLU6()
    model, x = nn.Sequential(nn.Linear(3, 4), act, nn.Linear(4, 6), act, nn.Linear(6, 2)), sample(0)
    rewritten, names, _ = rewrite(model, x)
    assert type(rewritten) is nn.Sequential
    assert names == ("1", "3")
    assert_same_bits(model, rewritten, x)


class Branching(Shared):
    """Exported for one size, but no symbolic trace."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.shape[0] > 1 else -x)


def test_what_has_no_place_is_left_with_a_reason() -> None:
    model, x = Branching(2, nn.ReLU6(), nn.ReLU6()), sample(2)
    rewritten, names, skipped = rewrite(model, x)
    assert rewritten is model
    assert names == ()
    assert len(skipped) == 2
    assert "not an activation module that is called once" in skipped[0]
    assert "torch.fx cannot trace Branching" in skipped[0]
    hooked = Shared(2, nn.ReLU6(), nn.ReLU6())
    hooked.register_forward_hook(lambda module, args, out: out.sin())
    assert "torch.fx traces something else: which values are the outputs" in rewrite(hooked, x)[2][0]
    # an exported program has a place for every call
    assert len(rewrite_clips(torch.export.export(model, (x,)), (x,), {}).rewritten) == 2


def test_only_clips_with_movable_channels_are_rewritten() -> None:
    model = nn.Sequential(
        nn.ReLU6(),
        nn.Linear(3, 4),
        nn.ReLU6(),
        nn.Linear(4, 2),
        nn.Softplus(),
        nn.Hardtanh(),
        nn.Linear(2, 2),
        nn.ReLU6(),
    )
    rewritten, names, skipped = rewrite(model, sample(0))
    assert names == ("2",)
    assert [line.split(":")[0] for line in skipped] == ["0", "5", "7"]
    assert all(clips.PINNED_ANYWAY in line for line in skipped)
    assert [type(rewritten[i]) for i in (0, 2, 5, 7)] == [nn.ReLU6, fx.ChannelClip, nn.Hardtanh, nn.ReLU6]
    at_the_end = nn.Sequential(nn.Linear(3, 4), nn.ReLU6())
    assert rewrite(at_the_end, sample(0))[0] is at_the_end


def test_some_channels_may_be_pinned() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.act, self.b = nn.Linear(3, 6), nn.ReLU6(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.act(self.a(x))
            return self.b(x[:, :4]), x[:, 4:]

    model, x = Half(), sample(0)
    result = graphnorm.canonicalize(model, x, rewrite_clips=True)
    assert result.report.dimension == 4
    assert result.report.verification.verdict == "proved"
    assert result.model.act.max[4:].tolist() == [6.0, 6.0]
    assert (result.model.act.max[:4] != 6).all()


def test_subclasses_and_hooks_are_left() -> None:
    class Own(nn.ReLU6):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    hooked = nn.ReLU6()
    hooked.register_forward_hook(lambda module, args, out: out + 1)
    for act in (Own(), hooked):
        model = nn.Sequential(nn.Linear(3, 4), act, nn.Linear(4, 2))
        rewritten, names, skipped = rewrite(model, sample(0))
        assert names == () or isinstance(rewritten, GraphModule)
        assert_same_bits(model, rewritten, sample(0))
        assert len(names) + len(skipped) == 1


def test_passes_compose() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU6(), nn.Conv2d(4, 2, 1)).eval()
    x = sample(2)
    steps: list[Any] = [fx.FoldBatchNormPass(), fx.RewriteClipsPass((x,)), fx.CanonicalizePass((x,))]
    result = PassManager(steps)(symbolic_trace(model))
    assert torch.allclose(outputs(result.graph_module, x), outputs(model, x), rtol=1e-4, atol=1e-5)
    assert isinstance(result.graph_module.get_submodule("2"), fx.ChannelClip)
    with pytest.raises(InputError, match="takes a torch module, got str"):
        fx.RewriteClipsPass((x,))("model")  # type: ignore[arg-type]


def test_channel_clip_says_what_it_is() -> None:
    assert repr(fx.ChannelClip(0.0, torch.ones(3, 1, 1))) == "ChannelClip(min=0.0, max=(3, 1, 1))"
    assert repr(fx.ChannelClip(max=1.0, inplace=True)) == "ChannelClip(max=1.0, inplace=True)"
    x = torch.tensor([-3.0, 7.0])
    assert fx.ChannelClip(0.0, torch.tensor([6.0]), inplace=True)(x) is x
    assert x.tolist() == [0.0, 6.0]


# Exported programs


def test_programs_keep_their_sizes_and_files(tmp_path: Path) -> None:
    model, x = Net(2, nn.ReLU6(), F.hardtanh), sample(2)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},), strict=False)
    torch.export.save(program, tmp_path / "a.pt2")
    result = graphnorm.canonicalize(tmp_path / "a.pt2", rewrite_clips=True)
    assert result.report.verification.verdict == "proved"
    assert result.report.clips == ClipRun(("first", "hardtanh_1"), ())
    torch.export.save(result.model, tmp_path / "b.pt2")
    loaded = torch.export.load(tmp_path / "b.pt2")
    assert {"first.max", "hardtanh_1.min", "hardtanh_1.max"} <= loaded.state_dict.keys()
    more = torch.randn(9, 3, 4, 4)
    assert torch.allclose(outputs(loaded, more), outputs(model, more), rtol=1e-4, atol=1e-5)
    assert program.state_dict.keys() == model.state_dict().keys()


def test_clips_in_inner_graphs_of_a_program_are_left() -> None:
    class Inner(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.first(self.a(x))
            return self.c(self.second(self.b(x)))

    model, x = Inner(2, nn.ReLU6(), nn.ReLU6()), sample(2)
    found = rewrite_clips(torch.export.export(model, (x,)), (x,), {})
    assert found.rewritten == ("second",)
    assert "export it again" in found.left[0]
    assert_same_bits(model, found.model, x)


# ONNX


def exported(model: nn.Module, x: Tensor) -> onnx.ModelProto:
    program = torch.onnx.export(model.eval(), (x,), dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto


CLIPS = ["both", "relu6", "low", "high", "below_zero", "min_max"]
LIMITS = {"both": (-1, 2), "relu6": (0, 6), "low": (-1, None), "high": (None, 2), "below_zero": (-3, 0)}


def clip_onnx(kind: str, opset: int = 18, dtype: Any = np.float32, channels: int = 4) -> onnx.ModelProto:
    """Gemm, a clip, Gemm."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((3, channels)).astype(dtype),
        "v": random.standard_normal((channels, 2)).astype(dtype),
    }
    if kind == "min_max":
        weights |= {"val_0": np.array([-1], dtype), "val_1": np.array(2, dtype)}
        nodes = [
            helper.make_node("Max", ["h", "val_0"], ["m"]),
            helper.make_node("Min", ["val_1", "m"], ["r"], "act"),
        ]
    else:
        pairs = zip(("lo", "hi"), LIMITS[kind], strict=True)
        given = {name: value for name, value in pairs if value is not None}
        if opset < 11:
            attributes: dict[str, Any] = {
                {"lo": "min", "hi": "max"}[name]: float(value) for name, value in given.items()
            }
            nodes = [helper.make_node("Clip", ["h"], ["r"], "act", **attributes)]
        else:
            weights |= {name: np.array(value, dtype) for name, value in given.items()}
            names = [name if name in given else "" for name in ("lo", "hi")]
            nodes = [helper.make_node("Clip", ["h", *names], ["r"], "act")]
    kind_of = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            *nodes,
            helper.make_node("MatMul", ["r", "v"], ["y"]),
        ],
        "clipped",
        [helper.make_tensor_value_info("x", kind_of, ["N", 3])],
        [helper.make_tensor_value_info("y", kind_of, ["N", 2])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run_onnx(model: onnx.ModelProto, x: ir.Array) -> list[ir.Array]:
    """Results with and without optimisations."""
    found = []
    for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        found += session.run(None, {"x": x})
    return found


def run_reference(model: onnx.ModelProto, x: ir.Array) -> list[ir.Array]:
    """Results of ONNX's reference implementation."""
    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(model).run(None, {"x": x}))


def rewritten_onnx(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx_passes.RewriteClipsPass]:
    rewriting = onnx_passes.RewriteClipsPass()
    result = rewriting(onnx_ir.from_proto(model))
    assert result.modified is (len(rewriting.rewritten) > 0)
    proto = onnx_ir.to_proto(result.model)
    onnx.checker.check_model(proto, full_check=True)
    return proto, rewriting


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("opset", [8, 10, 11, 13, 22])
@pytest.mark.parametrize("kind", CLIPS)
def test_onnx_clips(kind: str, opset: int, dtype: Any) -> None:
    model = clip_onnx(kind, opset, dtype)
    proto, rewriting = rewritten_onnx(model)
    assert rewriting.skipped == ()
    x = (4 * np.random.default_rng(1).standard_normal((16, 3))).astype(dtype)
    x[0, 0], x[1, 1], x[2, 2] = np.nan, np.inf, -np.inf
    run_in = (
        run_reference if dtype == np.float16 else run_onnx
    )  # onnxruntime widens what it has no kernel for
    for before, after in zip(run_in(model, x), run_in(proto, x), strict=True):
        assert np.array_equal(before, after, equal_nan=True)
    assert graphnorm.trace(model).dimension == 0
    assert graphnorm.trace(proto).dimension == 4
    assert first_departure(read_onnx(model), read_onnx(proto)) == ""
    assert rewritten_onnx(proto)[1].rewritten == ()
    names = {initializer.name for initializer in proto.graph.initializer}
    assert not names & {"val_0", "val_1"}, "numbers that nobody reads any more"


def test_onnx_relu6_becomes_relu_and_min() -> None:
    proto, rewriting = rewritten_onnx(clip_onnx("relu6"))
    assert rewriting.rewritten == ("act",)
    assert [node.op_type for node in proto.graph.node] == ["MatMul", "Relu", "Min", "MatMul"]
    bounds = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    assert bounds["clip_max"].tolist() == [6.0] * 4
    assert proto.graph.node[2].output[0] == "r"


def test_onnx_of_one_channel() -> None:
    result = graphnorm.canonicalize(clip_onnx("both", channels=1), rewrite_clips=True)
    assert result.report.dimension == 1
    assert result.report.verification.verdict == "proved"


def test_onnx_clips_that_are_left() -> None:
    assert "convert the model to a newer one" in rewritten_onnx(clip_onnx("relu6", opset=7))[1].skipped[0]
    overridable = clip_onnx("relu6")
    overridable.graph.input.append(helper.make_tensor_value_info("hi", TensorProto.FLOAT, []))
    assert "caller may override" in rewritten_onnx(overridable)[1].skipped[0]
    at_the_end = clip_onnx("relu6")
    del at_the_end.graph.node[2], at_the_end.graph.output[:]
    at_the_end.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N", 4]))
    assert rewritten_onnx(at_the_end)[1].skipped == (f"act: {clips.PINNED_ANYWAY}",)


def test_onnx_clips_in_functions_are_left() -> None:
    model = clip_onnx("relu6")
    body = [helper.make_node("Clip", ["h", "lo", "hi"], ["r"], "inner")]
    imports = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("own", "F", ["h", "lo", "hi"], ["r"], body, imports))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[1].CopyFrom(helper.make_node("F", ["h", "lo", "hi"], ["r"], "call", domain="own"))
    rewriting = onnx_passes.RewriteClipsPass()
    assert not rewriting(onnx_ir.from_proto(model)).modified
    assert "InlinePass" in rewriting.skipped[0]


@pytest.mark.parametrize("first", [nn.ReLU6(), nn.Hardtanh()], ids=["relu6", "hardtanh"])
def test_exports_gain_as_much_as_modules(first: nn.Module) -> None:
    model, x = Net(2, first, nn.ReLU6()), sample(2)
    proto = exported(model, x)
    result = graphnorm.canonicalize(proto, x.numpy(), rewrite_clips=True)
    assert result.report.verification.verdict == "proved"
    assert result.report.clips == ClipRun(("first", "second"), ())
    assert result.report.dimension == graphnorm.trace(rewrite(model, x)[0], x).dimension == 10
    assert result.report.objective["after"] < result.report.objective["before"]


# canonicalize


def test_canonicalize_rewrites_only_when_asked() -> None:
    model, x = Net(2, nn.ReLU6(), nn.ReLU6()), sample(2)
    plain = graphnorm.canonicalize(model, x)
    assert plain.report.dimension == 0
    assert plain.report.clips is None
    result = graphnorm.canonicalize(model, x, rewrite_clips=True)
    report = json.loads(json.dumps(result.report.to_dict()))
    assert report["clips"] == {"rewritten": ["first", "second"], "left": []}
    assert report["verification"]["verdict"] == "proved"
    assert report["objective"]["after"] < report["objective"]["before"]
    assert not {"first.max", "second.max"} & report["energy"].keys()
    assert isinstance(result.model.first, fx.ChannelClip)
    assert isinstance(model.first, nn.ReLU6)
    assert np.allclose(result.model.second.max.ravel(), 6 * result.coefficients["second.max"].ravel())
    with pytest.raises(InputError, match="leave out inplace=True"):
        graphnorm.canonicalize(model, x, rewrite_clips=True, inplace=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_exact_mode_keeps_the_bits_of_the_original(dtype: torch.dtype) -> None:
    model, x = Net(2, nn.ReLU6(), F.hardtanh), sample(2)
    with torch.no_grad():
        model.a.weight.mul_(64.0)
    model = model.to(dtype)
    result = graphnorm.canonicalize(model, x.to(dtype), rewrite_clips=True, mode="exact")
    measurement = result.report.verification.measurement
    assert measurement is not None
    assert measurement.bit_identical
    assert any((factor != 1).any() for factor in result.coefficients.values())
    assert torch.equal(outputs(result.model, x.to(dtype)), outputs(model, x.to(dtype)))


def test_a_second_run_finds_nothing_left() -> None:
    model, x = Net(2, nn.ReLU6(), nn.ReLU6()).double(), sample(2, torch.float64)
    first = graphnorm.canonicalize(model, x, rewrite_clips=True, tol=1e-11)
    second = graphnorm.canonicalize(first.model, x, rewrite_clips=True, tol=1e-11)
    assert second.report.clips == ClipRun((), ())
    assert all(np.abs(factor - 1).max() < 1e-8 for factor in second.coefficients.values())


def test_a_wrong_bound_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = fx_clip_calls.Clip.bounds

    def wrong(self: Any, *arguments: Any) -> Any:
        low, high = bounds(self, *arguments)
        assert isinstance(high, Tensor)
        high.view(-1)[-1] = 5.99
        return low, high

    model, x = Net(2, nn.ReLU6(), F.relu6), sample(2)
    monkeypatch.setattr(fx_clip_calls.Clip, "bounds", wrong)
    with pytest.raises(NotEquivalentError, match=r"rewriting clips changed Min first.*; output 0"):
        graphnorm.canonicalize(model, x, rewrite_clips=True)
    with pytest.raises(NotEquivalentError, match="rewriting clips changed Min"):
        graphnorm.canonicalize(torch.export.export(model, (x,)), rewrite_clips=True)


def test_a_wrong_bound_in_onnx_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_clip, "limits", lambda network, node: (0.0, 5.99))
    x = np.full((2, 3), 50.0, np.float32)
    with pytest.raises(NotEquivalentError, match=r"rewriting clips changed Min .*; output 0"):
        graphnorm.canonicalize(clip_onnx("relu6"), x, rewrite_clips=True)


@pytest.mark.parametrize(
    ("change", "departs"),
    [
        (lambda net: None, ""),
        (lambda net: setattr(net, "first", fx.ChannelClip(0.0, torch.full((4, 1, 1), 6.0))), ""),
        (lambda net: setattr(net, "first", fx.ChannelClip(0.0, torch.full((4, 1, 1), 6.1))), "Min first"),
        (lambda net: setattr(net, "first", fx.ChannelClip(-0.1, torch.full((4, 1, 1), 6.0))), "Clip first"),
        (lambda net: setattr(net, "first", nn.ReLU()), "Conv b"),
        (lambda net: setattr(net, "first", nn.SiLU()), "Swish first"),
        (lambda net: net.b.weight.data.add_(1), "weight 'b.weight'"),
    ],
)
def test_departures_from_the_original(change: Callable[[Any], object], departs: str) -> None:
    model, x = Net(2, nn.ReLU6(), nn.ReLU6()), sample(2)
    other = copy.deepcopy(model)
    change(other)
    found = first_departure(read_torch(model, x), read_torch(other, x))
    assert found.startswith(departs)
    assert bool(found) is bool(departs)


def test_reordered_outputs_depart() -> None:
    class Two(nn.Module):
        def __init__(self, swap: bool) -> None:
            super().__init__()
            self.swap = swap

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            one, two = x.sin(), x.cos()
            return (two, one) if self.swap else (one, two)

    networks = [read_torch(Two(swap), torch.ones(2)) for swap in (False, True)]
    assert first_departure(*networks) == "which values are the outputs"


def test_command_line(tmp_path: Path) -> None:
    model, x = Net(0, nn.ReLU6(), nn.ReLU6()), sample(0)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "a.pt2")
    arguments = ["canonicalize", str(tmp_path / "a.pt2"), "--rewrite-clips", "-o"]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "b.safetensors")])
    assert result.exit_code == 2
    assert "weights alone don't hold rewritten clips; write a .pt2 file" in result.output
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "b.pt2")])
    assert result.exit_code == 0
    assert "2: first, second" in result.output
    assert torch.allclose(outputs(torch.export.load(tmp_path / "b.pt2"), x), outputs(model, x), rtol=1e-4)


# Wide


@pytest.mark.slow
def test_mobilenet_v2_is_as_free_as_with_relu() -> None:
    model: Any = build_module("torchvision", "mobilenet_v2", seed=0).module
    for key, buffer in model.named_buffers():
        if "running_mean" in key:
            buffer.normal_(0, 0.1)
        if "running_var" in key:
            buffer.uniform_(0.5, 1.5)
    model = model.eval()
    with_relu = copy.deepcopy(model)
    for module in with_relu.modules():
        module._modules.update({n: nn.ReLU() for n, m in module._modules.items() if type(m) is nn.ReLU6})
    x = torch.randn(1, 3, 224, 224)
    assert_same_bits(model, rewrite(model, x)[0], x)
    for form in (lambda module: (module, x), lambda module: (exported(module, x), x.numpy())):
        result = graphnorm.canonicalize(*form(model), rewrite_clips=True)
        assert result.report.dimension == graphnorm.trace(*form(with_relu)).dimension
        assert result.report.verification.verdict == "proved"
        assert result.report.clips is not None
        assert result.report.clips["left"] == ()
        assert result.report.solver["imbalance"] <= 1e-8
    proto = exported(model, x)
    rewritten = onnx_passes.RewriteClipsPass()(onnx_ir.from_proto(proto)).model
    assert all(
        np.array_equal(*pair)
        for pair in zip(
            run_onnx(proto, x.numpy()), run_onnx(onnx_ir.to_proto(rewritten), x.numpy()), strict=True
        )
    )
