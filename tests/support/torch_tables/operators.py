"""Calls of single ATen operators that no public function spells out, with their inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.support import torchvision_operators
from tests.support.torch_functions import image, rand, x23, x234

torchvision_operators.load()

aten, vision = torch.ops.aten, torch.ops.torchvision
QUERY, KEY = rand(2, 4, 5, 3), rand(2, 4, 6, 3)
WEIGHT, BIAS = rand(24, 8), rand(24)
SIZES = (WEIGHT, BIAS, rand(8, 8), rand(8))
ZERO_POINTS = torch.zeros(3, dtype=torch.int32)
BOXES = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3.5], [2, 1, 5, 5]])
ROIS = torch.tensor([[0.0, 0, 0, 4, 4], [1, 1, 0.5, 5, 3.5]])

OPERATORS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "flash_on_cpu": (
        lambda q, k: aten._scaled_dot_product_flash_attention_for_cpu(q, k, k, 0.0, True)[0],
        (QUERY, QUERY),
    ),
    "attention_math": (lambda q, k: aten._scaled_dot_product_attention_math(q, k, k)[0], (QUERY, KEY)),
    "native_layer_norm": (lambda x, w: aten.native_layer_norm(x, [4], w, w, 1e-3)[0], (x234, rand(4))),
    "native_group_norm": (
        lambda x, w: aten.native_group_norm(x, w, w, 2, 4, 36, 2, 1e-3)[0],
        (image, rand(4)),
    ),
    "native_batch_norm": (
        lambda x, w: aten._native_batch_norm_legit_no_training(x, w, w, w, w * w, 0.1, 1e-3)[0],
        (image, rand(4)),
    ),
    "batch_norm_without_stats": (
        lambda x, w: aten._native_batch_norm_legit.no_stats(x, w, w, True, 0.1, 1e-3)[0],
        (image, rand(4)),
    ),
    "fused_rms_norm": (lambda x, w: aten._fused_rms_norm(x, [4], w, 1e-3)[0], (x234, rand(4))),
    "native_dropout": (lambda x: aten.native_dropout(x, 0.5, False)[0], (x23,)),
    "convolution": (
        lambda x, w: aten.convolution(x, w, None, [1, 1], [1, 0], [1, 1], False, [0, 0], 2),
        (image, rand(6, 2, 3, 3)),
    ),
    "convolution_transposed": (
        lambda x, w: aten.convolution(x, w, None, [2, 2], [1, 0], [1, 1], True, [1, 0], 2),
        (image, rand(4, 3, 3, 3)),
    ),
    "conv_tbc": (lambda x, w, b: torch.conv_tbc(x, w, b, 1), (rand(5, 2, 3), rand(3, 3, 4), rand(4))),
    "weight_norm": (lambda v, g: torch._weight_norm(v, g, 0), (rand(4, 3), rand(4, 1))),
    "self_attention": (
        lambda x, *w: aten._native_multi_head_attention(x, x, x, 8, 2, *w, need_weights=False)[0],
        (rand(2, 5, 8), *SIZES),
    ),
    "encoder_layer": (
        lambda x, a, b, c, d, n, w1, b1, w2: aten._transformer_encoder_layer_fwd(
            x, 8, 2, a, b, c, d, True, False, 1e-3, n, n, n, n, w1, b1, w2, n
        ),
        (rand(2, 5, 8), *SIZES, rand(8), rand(16, 8), rand(16), rand(8, 16)),
    ),
    "encoder_layer_norm_first": (
        lambda x, a, b, c, d, n, w1, b1, w2: aten._transformer_encoder_layer_fwd(
            x, 8, 2, a, b, c, d, False, True, 1e-3, n, n, n, n, w1, b1, w2, n
        ),
        (rand(2, 5, 8), *SIZES, rand(8), rand(16, 8), rand(16), rand(8, 16)),
    ),
    "fake_quantize": (
        lambda x: (
            torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 255),
            torch.fake_quantize_per_tensor_affine(x, 0.1, 3, -8, 7),
        ),
        (x234,),
    ),
    "fake_quantize_channels": (
        lambda x, s: torch.fake_quantize_per_channel_affine(x, s, ZERO_POINTS, 1, -128, 127),
        (x234, torch.tensor([0.1, 0.2, 0.05])),
    ),
    "fake_quantize_tensors": (
        lambda x, s, z: torch.fake_quantize_per_tensor_affine(x, s, z, -128, 127),
        (x234, torch.tensor([0.1]), torch.tensor([2], dtype=torch.int32)),
    ),
    "random": (
        lambda x: (
            torch.rand_like(x) * 0,
            torch.randn_like(x) * 0,
            torch.bernoulli(x * 0),
            torch.normal(x, 0.0 * x),
            torch.rand(2, 3) * 0 + x,
            torch.randn(2, 3) * 0,
            torch.randint(3, 4, (2,)),
            torch.randint_like(x, 2, 3),
            torch.empty_like(x).uniform_(2, 2),
            torch.empty_like(x).normal_(1, 0),
            torch.zeros_like(x).bernoulli_(1.0),
            torch.zeros_like(x).exponential_() * 0,
            torch.zeros_like(x).log_normal_() * 0,
        ),
        (x23,),
    ),
    "dropout_everything": (
        lambda x: (
            torch.dropout(0 * x, 0.5, True),
            torch.feature_dropout(0 * x, 0.5, True),
            torch.native_dropout(x, 0.0, True),
        ),
        (image,),
    ),
    "rrelu_in_training": (lambda x: torch.rrelu(x, 0.25, 0.25, True), (x23,)),
    "multinomial": (lambda x: torch.multinomial(x.softmax(1) * 0 + torch.eye(3)[:2], 1), (x23,)),
    "nms": (lambda scores: vision.nms(BOXES, scores, 0.5), (torch.tensor([0.5, 0.9, 0.7]),)),
    "roi_align": (
        lambda x: (
            vision.roi_align(x, ROIS, 1.0, 3, 3, 2, True),
            vision.roi_align(x, ROIS, 0.5, 2, 3, 2, False),
        ),
        (image,),
    ),
    "deform_conv": (
        lambda x, w, o, b: vision.deform_conv2d(x, w, o, o[:0], b, 2, 2, 1, 1, 1, 1, 1, 1, False),
        (image, rand(6, 4, 3, 3), rand(2, 18, 3, 3), rand(6)),
    ),
    "deform_conv_masked": (
        lambda x, w, o, m, b: vision.deform_conv2d(x, w, o, m, b, 1, 1, 0, 0, 1, 1, 2, 2, True),
        (image, rand(6, 2, 3, 3), rand(2, 36, 4, 4), rand(2, 18, 4, 4), rand(6)),
    ),
    "unsafe_index": (lambda x: aten._unsafe_index(x, [torch.tensor([1, 0])]), (x23,)),
    "trace": (torch.trace, (x23,)),
}
