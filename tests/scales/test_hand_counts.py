"""The dimension of well-known architectures, counted by hand.

Each count is a formula over widths and blocks, one comment a term.  It is compared with what `graphnorm`
finds and, on a tiny model made of the same classes, with the numeric oracle.  Terms that are 0 are named too:
a scale that enters a normalisation with eps > 0, a gelu, a silu, a tanh or a softmax is fixed at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.cli.models.zoo import _declare_torchvision_operators, build_module
from tests.support.networks.common import Inputs, normal, tokens
from tests.support.oracle import nullity

EPS = 0.5  # so that the oracle doesn't take a nearly invariant normalisation for an invariant one


def resnet(stem: int, planes: Sequence[int], blocks: Sequence[int], expansion: int = 4) -> int:
    """Bottleneck ResNet with BatchNorm in eval mode, convolutions without bias.

    A BatchNorm has gamma ~ out - in, running mean ~ in, beta ~ out: both sides are free, channel by channel.
    """
    stages = list(zip(planes, blocks, strict=True))
    before = stem  # between the stem's convolution and its BatchNorm
    after = stem  # what the stem's BatchNorm gives: read by the first block's two branches
    for width, count in stages:
        before += count * (2 * width + expansion * width)  # the three convolutions of each block
        before += expansion * width  # the convolution of the first block's skip
        after += count * 2 * width  # after the first and the second BatchNorm of each block
        after += expansion * width  # the trunk: identity skips tie the last BatchNorms of a stage
    return before + after  # the classifier reads the last trunk; its outputs are fixed


def convnext(widths: Sequence[int], depths: Sequence[int]) -> int:
    """ConvNeXt: the trunk is fixed, for each stage ends in a LayerNorm."""
    total = 0  # stem: convolution -> LayerNorm (fixed) -> trunk (fixed)
    for width, depth in zip(widths, depths, strict=True):
        # depth-wise convolution -> LayerNorm: 0
        total += depth * width  # LayerNorm -> first linear layer; its output enters a gelu: 0
        total += depth * width  # second linear layer -> LayerScale -> trunk
    total += sum(widths[:-1])  # LayerNorm -> convolution between two stages
    return total + widths[-1]  # LayerNorm -> classifier


def transformer_block(width: int) -> int:
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)) with a gelu."""
    total = width  # first LayerNorm -> queries, keys and values
    total += width  # a query's channel against the key's: their product enters a softmax
    total += width  # values -> output projection -> trunk (fixed)
    return total + width  # second LayerNorm -> first linear layer; gelu: 0; second linear layer -> trunk


def vit(width: int, depth: int) -> int:
    """ViT: patches, class token and positions are summed into a trunk that LayerNorms fix."""
    return depth * transformer_block(width) + width  # last LayerNorm -> classifier


def swin(widths: Sequence[int], depths: Sequence[int]) -> int:
    """Swin: a bias that is read from a table is added to the scores, which are fixed anyway."""
    total = 0  # patches: convolution -> LayerNorm (fixed) -> trunk (fixed)
    for width, depth in zip(widths, depths, strict=True):
        total += depth * transformer_block(width)
    total += sum(4 * width for width in widths[:-1])  # LayerNorm of four merged patches -> reduction -> trunk
    return total + widths[-1]  # last LayerNorm -> mean -> classifier


def llama(width: int, inner: int, depth: int, groups: int, head: int, tied: bool) -> int:
    """Llama: RMSNorm, rotary embedding, `groups` key-value heads of size `head`, SwiGLU; no biases."""
    block = width  # first RMSNorm -> queries, keys and values
    block += groups * head // 2  # keys against all queries of their group; rotation ties the two of a pair
    block += groups * head  # values, shared by the heads of a group -> output projection -> trunk (fixed)
    block += width  # second RMSNorm -> gate and up
    block += inner  # up -> down; the gate enters a silu: 0
    # Last RMSNorm -> head.  A tied head is the embedding, which gives the fixed trunk.
    return depth * block + (0 if tied else width)


def bert(width: int, depth: int) -> int:
    """BERT with pooler and classifier.  Each LayerNorm feeds a skip that ends in the next one: fixed."""
    block = width  # a query's channel against the key's
    block += width  # values -> output projection -> LayerNorm (fixed)
    # linear layer -> gelu -> linear layer -> LayerNorm: 0
    return depth * block + width  # the last LayerNorm -> pooler, which enters a tanh: 0


def masked_bert(width: int, depth: int, tied: bool) -> int:
    """BERT that predicts words: last LayerNorm -> linear layer -> gelu -> LayerNorm -> decoder."""
    # The decoder could take the scale of its LayerNorm, unless it is the embedding (fixed by a LayerNorm).
    return bert(width, depth) + (0 if tied else width)


def library(name: str) -> Any:
    """A package that is no dependency; the test is skipped without it."""
    _declare_torchvision_operators()  # timm and transformers import torchvision too
    return pytest.importorskip(name, exc_type=ImportError)


class Logits(nn.Module):
    """A model of transformers as a function of its tokens."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(ids).logits


def tiny_resnet() -> nn.Module:
    norm = partial(nn.BatchNorm2d, eps=EPS)
    block = partial(library("torchvision.models.resnet").Bottleneck, norm_layer=norm)
    skip = nn.Sequential(nn.Conv2d(3, 4, 1, stride=2, bias=False), norm(4))
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), norm(3), nn.ReLU(), nn.MaxPool2d(2),
        block(3, 1, stride=2, downsample=skip), block(4, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def tiny_convnext() -> Any:
    module = library("torchvision.models.convnext")
    return module.ConvNeXt(
        [module.CNBlockConfig(3, 4, 1), module.CNBlockConfig(4, None, 1)],
        num_classes=6,
        block=partial(module.CNBlock, norm_layer=partial(nn.LayerNorm, eps=EPS)),
        norm_layer=partial(module.LayerNorm2d, eps=EPS),
    )


def tiny_vit() -> Any:
    return library("torchvision.models").VisionTransformer(
        image_size=4, patch_size=2, num_layers=2, num_heads=2, hidden_dim=4, mlp_dim=5, num_classes=6,
        norm_layer=partial(nn.LayerNorm, eps=EPS),
    )  # fmt: skip


def tiny_swin() -> Any:
    return library("torchvision.models").SwinTransformer(
        patch_size=[2, 2], embed_dim=4, depths=[2, 1], num_heads=[2, 2], window_size=[2, 2], mlp_ratio=1.0,
        num_classes=6, norm_layer=partial(nn.LayerNorm, eps=EPS),
    )  # fmt: skip


def make_llama(
    width: int, inner: int, depth: int, heads: int, groups: int, head: int, words: int, tied: bool, eps: float
) -> nn.Module:
    transformers = library("transformers")
    config = transformers.LlamaConfig(
        vocab_size=words, hidden_size=width, intermediate_size=inner, num_hidden_layers=depth,
        num_attention_heads=heads, num_key_value_heads=groups, head_dim=head, rms_norm_eps=eps,
        tie_word_embeddings=tied, max_position_embeddings=32, use_cache=False,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return Logits(transformers.LlamaForCausalLM(config))


def make_bert(
    head: str, width: int, inner: int, depth: int, heads: int, words: int, tied: bool, eps: float
) -> nn.Module:
    transformers = library("transformers")
    config = transformers.BertConfig(
        vocab_size=words, hidden_size=width, intermediate_size=inner, num_hidden_layers=depth,
        num_attention_heads=heads, layer_norm_eps=eps, tie_word_embeddings=tied, max_position_embeddings=8,
        pad_token_id=None, num_labels=3,
    )  # fmt: skip
    return Logits(getattr(transformers, f"BertFor{head}")(config))


@dataclass(frozen=True)
class Case:
    """A model, its inputs, and its dimension counted by hand."""

    make: Callable[[], nn.Module]
    inputs: Inputs
    count: int


def small_llama(tied: bool) -> Case:
    make = partial(make_llama, 4, 3, 1, heads=2, groups=1, head=4, words=5, tied=tied, eps=EPS)
    return Case(make, tokens(5, 2, 4), llama(4, 3, 1, groups=1, head=4, tied=tied))


def wide_llama(tied: bool) -> Case:
    make = partial(make_llama, 96, 160, 3, heads=6, groups=2, head=16, words=50, tied=tied, eps=1e-6)
    return Case(make, tokens(50, 1, 8), llama(96, 160, 3, groups=2, head=16, tied=tied))


def small_bert(head: str, count: int, tied: bool = True) -> Case:
    make = partial(make_bert, head, 4, 3, 1, heads=2, words=5, tied=tied, eps=EPS)
    return Case(make, tokens(5, 3, 4), count)


TINY = {
    "resnet": lambda: Case(tiny_resnet, normal(4, 2, 18, 18), resnet(3, [1], [2])),
    "convnext": lambda: Case(tiny_convnext, normal(8, 3, 16, 16), convnext([3, 4], [1, 1])),
    "vit": lambda: Case(tiny_vit, normal(8, 3, 4, 4), vit(4, 2)),
    "swin": lambda: Case(tiny_swin, normal(8, 3, 8, 8), swin([4, 8], [2, 1])),
    "llama": lambda: small_llama(tied=False),
    "llama_tied": lambda: small_llama(tied=True),
    "bert": lambda: small_bert("SequenceClassification", bert(4, 1)),
    "bert_words": lambda: small_bert("MaskedLM", masked_bert(4, 1, tied=False), tied=False),
    "bert_words_tied": lambda: small_bert("MaskedLM", masked_bert(4, 1, tied=True)),
}
SMALL = {
    "llama": lambda: wide_llama(tied=False),
    "llama_tied": lambda: wide_llama(tied=True),
    "bert": lambda: Case(
        partial(make_bert, "SequenceClassification", 96, 160, 3, heads=4, words=50, tied=True, eps=1e-12),
        tokens(50, 1, 8),
        bert(96, 3),
    ),
}
LARGE = {
    "torchvision:resnet50": resnet(64, [64, 128, 256, 512], [3, 4, 6, 3]),
    "torchvision:convnext_tiny": convnext([96, 192, 384, 768], [3, 3, 9, 3]),
    "timm:convnext_atto": convnext([40, 80, 160, 320], [2, 2, 6, 2]),
    "torchvision:swin_t": swin([96, 192, 384, 768], [2, 2, 6, 2]),
    "timm:swin_tiny_patch4_window7_224": swin([96, 192, 384, 768], [2, 2, 6, 2]),
    "torchvision:vit_b_16": vit(768, 12),
    "timm:vit_tiny_patch16_224": vit(192, 12),
}
SLOW = ("torchvision:resnet50", "torchvision:swin_t", "torchvision:vit_b_16")


def dimension(case: Case) -> tuple[int, nn.Module]:
    torch.manual_seed(0)
    model = case.make().eval().double()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in case.inputs(torch.Generator()))
    graph = graphnorm.trace(model, inputs)
    assert not graph.scales.unknown
    return graph.dimension, model


@pytest.mark.parametrize("name", TINY)
def test_the_oracle_agrees_with_the_count(name: str) -> None:
    """And both with the dimension that is found."""
    case = TINY[name]()
    found, model = dimension(case)
    assert found == case.count
    assert nullity(model, case.inputs) == case.count


@pytest.mark.parametrize("name", SMALL)
def test_counts_of_transformers(name: str) -> None:
    case = SMALL[name]()
    assert dimension(case)[0] == case.count


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in LARGE]
)
def test_counts_of_models_of_full_size(name: str) -> None:
    home, _, model = name.partition(":")
    library(home)
    built = build_module(home, model, seed=0)
    graph = graphnorm.trace(built.module.eval(), torch.randn(*built.example.shapes[0].sizes))
    assert not graph.scales.unknown
    assert graph.dimension == LARGE[name]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("llama", llama(4, 3, 1, groups=2, head=4, tied=False)),  # keys and values of each head on their own
        ("bert_words_tied", masked_bert(4, 1, tied=False)),
        ("vit", vit(4, 2) - 4),  # without the last LayerNorm
    ],
)
def test_a_wrong_count_is_noticed(name: str, wrong: int) -> None:
    case = TINY[name]()
    torch.manual_seed(0)
    assert nullity(case.make().eval(), case.inputs) != wrong
