"""Rescalings of small language models with experts, counted by hand: `pytest -m slow`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphnorm.cli.models.zoo import _declare_torchvision_operators
from graphnorm.frontends.torch.read import read_torch
from graphnorm.rescaling.graph import build
from tests.frontends.routing.test_routing import change

LAYERS, HIDDEN, EXPERT, MLP, KV = 2, 32, 16, 64, 16
TINY = {
    "vocab_size": 99, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": MLP, "max_position_embeddings": 64, "use_cache": False,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_experts_per_tok": 2,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 2, "topk_group": 1,
    "first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip
NORMS = (2 * LAYERS + 1) * HIDDEN  # gains before attention, experts and the head
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    # values, rotated pairs of queries and keys per head, the up half of 4 experts (SiLU fixes the gate)
    "Mixtral": ({"num_local_experts": 4}, NORMS + LAYERS * (KV + 2 * 4 + 4 * MLP)),
    # the gains of queries and keys are shared by all heads
    "Qwen3Moe": (
        {"head_dim": 8, "num_experts": 4, "moe_intermediate_size": EXPERT},
        NORMS + LAYERS * (KV + 4 + 4 * EXPERT),
    ),
    # latent queries, latent keys, heads without rotation, shared rotated pairs, values; a layer with one
    # MLP, a layer with 4 experts and one that all tokens visit
    "DeepseekV3": (
        {**LATENT, "moe_intermediate_size": EXPERT},
        NORMS + LAYERS * (8 + 8 + 4 * 8 + 4 + 4 * 8) + MLP + (4 + 1) * EXPERT,
    ),
}


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.model(ids).logits
        return logits


def language_model(name: str) -> Logits:
    _declare_torchvision_operators()
    library = pytest.importorskip("transformers", exc_type=ImportError)
    options, _ = MODELS[name]
    torch.manual_seed(0)
    config = getattr(library, f"{name}Config")(**{**TINY, **options})
    model = getattr(library, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.2)
    return Logits(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_language_model(name: str) -> None:
    model, ids = language_model(name), torch.randint(3, 99, (2, 16))
    graph = build(read_torch(model, ids))
    assert not any("grouped_mm" in operator for operator in graph.scales.unknown)
    assert graph.dimension == MODELS[name][1]
    assert change(model, graph, (ids,)) < 1e-5  # float32
