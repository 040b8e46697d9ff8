"""Equalities that are proved: rescaled, permuted, exported, simplified, folded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from torch import nn

import graphnorm
from graphnorm.api.sources import open_model
from graphnorm.cli.models.demo import resnet18c
from graphnorm.cli.models.zoo import build_module
from graphnorm.emission.onnx_file import rescale_onnx
from graphnorm.emission.torch_module import rescale_torch
from graphnorm.passes.fx import FoldBatchNormPass
from graphnorm.proof.prove import attempt
from tests.api.test_canonicalize import exported, network, small_cnn
from tests.api.test_check_differences import tied
from tests.api.test_real_models import ONNX, real_file
from tests.scales.test_hand_counts import library
from tests.support.equivalents import equivalent_weights

THOUSAND = float(np.log(1e3))


def normed() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    for buffer in (norm.running_mean, norm.running_var):
        assert buffer is not None
        buffer.uniform_(0.5, 2)
    layers = [nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.Conv2d(6, 4, 3, bias=False), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 5)).eval(), torch.randn(1, 3, 8, 8)


@pytest.mark.parametrize("permute", [False, True])
def test_large_random_coefficients(permute: bool) -> None:
    model, example = tied()
    traced = open_model(model, example).network
    other = rescale_torch(model, equivalent_weights(traced, 7, THOUSAND, permute))
    report = graphnorm.check(model, other, example)
    assert report.verdict == "proved", report.note
    assert bool(report.permuted) == permute
    assert report.certain


def test_torch_against_its_onnx_export() -> None:
    model, example = tied()
    report = graphnorm.check(model, exported(model, example), example)
    assert report.verdict == "proved", report.note
    assert report.structure is not None
    assert report.structure.form == "normal form"
    assert report.structure.departure
    runtimes = report.verification.measurement.runtimes  # type: ignore[union-attr]
    assert runtimes[0].startswith("torch ")
    assert runtimes[1].startswith("onnxruntime ")


def test_torch_against_a_rescaled_and_permuted_export() -> None:
    model, example = tied()
    loaded = onnx_ir.from_proto(exported(model, example))
    weights = equivalent_weights(open_model(loaded).network, 11)
    report = graphnorm.check(model, rescale_onnx(loaded, weights), example)
    assert report.verdict == "proved", report.note
    assert report.permuted


def test_archive_against_onnx(tmp_path: Path) -> None:
    model, example = small_cnn()
    path = tmp_path / "a.pt2"
    torch.export.save(torch.export.export(model, (example,)), path)
    onnx.save(exported(model, example), tmp_path / "b.onnx")
    assert graphnorm.check(path, tmp_path / "b.onnx").verdict == "proved"


def test_both_exporters_agree(tmp_path: Path) -> None:
    model, example = tied()
    torch.onnx.export(model, (example,), tmp_path / "old.onnx", dynamo=False, opset_version=17)
    new: Any = torch.onnx.export(model, (example,), dynamo=True, verbose=False)
    report = graphnorm.check(tmp_path / "old.onnx", new.model_proto)
    assert report.verdict == "proved", report.note


def simplify(folder: Path) -> None:
    """plain.onnx after onnxruntime's basic optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "simple.onnx")
    onnxruntime.InferenceSession(folder / "plain.onnx", options, providers=["CPUExecutionProvider"])


def test_simplified_onnx(tmp_path: Path) -> None:
    """What onnxruntime writes after its basic optimisations: constants folded, BatchNorm and Add fused."""
    model, example = normed()
    torch.onnx.export(
        model, (example,), tmp_path / "plain.onnx", dynamo=False, opset_version=17, do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
    )  # fmt: skip
    simplify(tmp_path)
    plain = onnx.load(tmp_path / "plain.onnx")
    simple = onnx.load(tmp_path / "simple.onnx")
    assert len(simple.graph.node) < len(plain.graph.node)
    assert graphnorm.check(plain, simple).verdict == "proved"


def test_folded_batch_norm() -> None:
    model, example = normed()
    result = FoldBatchNormPass()(torch.fx.symbolic_trace(copy.deepcopy(model)))
    assert result is not None
    folded = result.graph_module
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    report = graphnorm.check(model, folded, example)
    assert report.verdict == "proved", report.note


@pytest.mark.parametrize(
    "name", ["rezero", "low_rank", "weight_elementwise", "experts_soft", "prelu", "unet"]
)
def test_exports_of_other_networks(name: str) -> None:
    model, arguments = network(name)
    report = graphnorm.check(model.eval(), exported(model, *arguments), arguments, seconds=2)
    assert report.verdict in {"identical", "proved", "agrees"}
    assert report.certain or report.note


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18c", "resnet50", "mobilenet_v2", "densenet121", "vit_tiny_patch16_224", "bert"]
)
def test_wide(name: str) -> None:
    model, example = wide_model(name)
    traced = open_model(model, example).network
    weights = equivalent_weights(traced, 2, THOUSAND)
    report = graphnorm.check(model, rescale_torch(model, weights), example)
    assert report.verdict == "proved", report.note
    assert report.permuted
    crossed = graphnorm.check(model, exported(model, *example), example)
    assert crossed.verdict == "proved", crossed.note


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "densenet121"])
def test_wide_folded(name: str) -> None:
    model, example = wide_model(name)
    result = FoldBatchNormPass()(torch.fx.symbolic_trace(copy.deepcopy(model)))
    assert result is not None
    report = graphnorm.check(model, result.graph_module, example)
    assert report.verdict == "proved", report.note


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18c", "resnet50", "mobilenet_v2", "densenet121"])
def test_wide_simplified(name: str, tmp_path: Path) -> None:
    model, example = wide_model(name)
    torch.onnx.export(
        model, example, tmp_path / "plain.onnx", dynamo=False, opset_version=17, do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
    )  # fmt: skip
    simplify(tmp_path)
    plain, simple = onnx.load(tmp_path / "plain.onnx"), onnx.load(tmp_path / "simple.onnx")
    assert len(simple.graph.node) < len(plain.graph.node)
    assert graphnorm.check(plain, simple).verdict == "proved"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "exporter"),
    [("bert", "new"), ("vit_tiny_patch16_224", "new"), ("vit_tiny_patch16_224", "old")],
)
def test_wide_simplified_transformers(name: str, exporter: str, tmp_path: Path) -> None:
    """In the ViT onnxruntime moves transposes through the Split of queries, keys and values."""
    model, example = wide_model(name)
    if exporter == "new":
        onnx.save(exported(model, *example), tmp_path / "plain.onnx")
    else:
        torch.onnx.export(model, example, tmp_path / "plain.onnx", dynamo=False, opset_version=17)
    simplify(tmp_path)
    report = graphnorm.check(tmp_path / "plain.onnx", tmp_path / "simple.onnx")
    assert report.verdict == "proved", report.note


def wide_model(name: str) -> tuple[Any, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    if name == "resnet18c":
        return resnet18c().eval(), (torch.randn(1, 3, 32, 32),)
    if name == "bert":
        transformers = library("transformers")
        config = transformers.BertConfig(
            vocab_size=99, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128,
            max_position_embeddings=40,
        )  # fmt: skip
        return transformers.BertModel(config).eval(), (torch.randint(0, 99, (1, 12)),)
    home = "timm" if "vit" in name else "torchvision"
    model: Any = build_module(home, name, seed=0).module.eval()
    with torch.no_grad():
        for key, buffer in model.named_buffers():
            if "running_mean" in key:
                buffer.normal_(0, 0.1)
            if "running_var" in key:
                buffer.uniform_(0.5, 2)
    return model, (torch.randn(1, 3, 224, 224),)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ONNX, "silero_vad_16k_op15.onnx", "silero_vad.onnx"])
def test_real_onnx_models(name: str) -> None:
    path = real_file(name)
    first = open_model(path).network.inputs[0]
    sizes = {first: ONNX[name]} if name in ONNX else None
    source = open_model(path, input_shapes=sizes)
    weights = equivalent_weights(source.network, 4, float(np.log(10)))
    other = rescale_onnx(source.model, weights)
    again = open_model(other, input_shapes=sizes)
    found = attempt(source.network, again.network)
    assert found.proof is not None, found.note
    assert found.proof.permutation
