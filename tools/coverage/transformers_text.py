"""Language models: encoders, decoders, state-space models, encoder-decoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.coverage.architecture import (
    ENCODER,
    SPECIAL,
    VOCABULARY,
    Architecture,
    Config,
    Make,
    ones,
    tokens,
)  # fmt: skip

TEXT = {"input_ids": tokens()}
MASKED = {**TEXT, "attention_mask": ones()}
PAIR = {**TEXT, "decoder_input_ids": tokens()}
DECODER = {
    **ENCODER, **SPECIAL, "num_key_value_heads": 2, "max_position_embeddings": 64, "use_cache": False,
}  # fmt: skip
GPT2 = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
STATE_SPACE = {
    **SPECIAL, "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8,
    "use_cache": False,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip
T5 = {
    "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
    "use_cache": False,
}  # fmt: skip
BART = {
    **SPECIAL, "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "use_cache": False, "max_position_embeddings": 64,
}  # fmt: skip


def _text(
    config: str, head: str, values: Mapping[str, Any], inputs: Mapping[str, Make] = TEXT, attention: str = ""
) -> Architecture:
    """An architecture whose classes are ``{config}Config`` and ``{config}{head}``."""
    return Architecture(f"{config}{head}", Config(f"{config}Config", values), inputs, attention)


ENCODERS = {
    "albert": _text("Albert", "Model", {**ENCODER, "embedding_size": 16}),
    "bert": _text("Bert", "ForSequenceClassification", ENCODER, MASKED),
    "bert_mlm": _text("Bert", "ForMaskedLM", ENCODER),
    "bert_eager": _text("Bert", "Model", ENCODER, MASKED, attention="eager"),
    "debertav2": _text(
        "DebertaV2",
        "Model",
        {**ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    ),
    "distilbert": _text(
        "DistilBert",
        "Model",
        {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    ),
    "electra": _text("Electra", "Model", {**ENCODER, "embedding_size": 16}),
    "modernbert": _text("ModernBert", "Model", {**ENCODER, **SPECIAL, "cls_token_id": 1, "sep_token_id": 2}),
    "roberta": _text("Roberta", "Model", ENCODER),
    "t5_encoder": Architecture(
        "T5EncoderModel", Config("T5Config", {**T5, "feed_forward_proj": "gated-gelu"}), TEXT
    ),
    "xlnet": _text(
        "XLNet",
        "Model",
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "n_layer": 2,
            "n_head": 4,
            "d_inner": 64,
            "use_mems_eval": False,
        },
    ),
}

DECODERS = {
    "bloom": _text(
        "Bloom",
        "ForCausalLM",
        {
            **SPECIAL,
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "n_layer": 2,
            "n_head": 4,
            "use_cache": False,
        },
    ),
    "cohere": _text("Cohere", "ForCausalLM", DECODER),
    "deepseek_v3": _text(
        "DeepseekV3",
        "ForCausalLM",
        {
            **DECODER,
            **EXPERTS,
            **LATENT,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
    "falcon": _text(
        "Falcon",
        "ForCausalLM",
        {
            **SPECIAL,
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "use_cache": False,
        },
    ),
    "gemma": _text("Gemma", "ForCausalLM", {**DECODER, "head_dim": 8}),
    "gemma2": _text("Gemma2", "ForCausalLM", {**DECODER, "head_dim": 8, "sliding_window": 8}),
    "gemma3_text": Architecture(
        "Gemma3ForCausalLM", Config("Gemma3TextConfig", {**DECODER, "head_dim": 8, "sliding_window": 8}), TEXT
    ),
    "gpt2": _text("GPT2", "LMHeadModel", {**GPT2, "use_cache": False}),
    "gpt2_cache": _text("GPT2", "LMHeadModel", GPT2),
    "gpt_neox": _text(
        "GPTNeoX", "ForCausalLM", {**ENCODER, "use_cache": False, "bos_token_id": 1, "eos_token_id": 2}
    ),
    "llama": _text("Llama", "ForCausalLM", DECODER),
    "llama_cache": _text("Llama", "ForCausalLM", {**DECODER, "use_cache": True}),
    "llama_eager": _text("Llama", "ForCausalLM", DECODER, attention="eager"),
    "mamba": _text("Mamba", "ForCausalLM", STATE_SPACE),
    "mamba2": _text(
        "Mamba2",
        "ForCausalLM",
        {**STATE_SPACE, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8},
    ),
    "mistral": _text("Mistral", "ForCausalLM", {**DECODER, "sliding_window": 8}),
    "mixtral": _text("Mixtral", "ForCausalLM", {**DECODER, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "olmo2": _text("Olmo2", "ForCausalLM", DECODER),
    "opt": _text(
        "OPT",
        "ForCausalLM",
        {
            **SPECIAL,
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 64,
            "word_embed_proj_dim": 32,
            "use_cache": False,
        },
    ),
    "phi": _text("Phi", "ForCausalLM", DECODER),
    "phi3": _text("Phi3", "ForCausalLM", DECODER),
    "qwen2": _text("Qwen2", "ForCausalLM", DECODER),
    "qwen3": _text("Qwen3", "ForCausalLM", {**DECODER, "head_dim": 8}),
    "qwen3_moe": _text("Qwen3Moe", "ForCausalLM", {**DECODER, **EXPERTS, "head_dim": 8, "num_experts": 4}),
    "rwkv": _text(
        "Rwkv",
        "ForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "attention_hidden_size": 32,
            "intermediate_size": 64,
            "use_cache": False,
            "context_length": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
}

ENCODER_DECODERS = {
    "bart": _text("Bart", "ForConditionalGeneration", BART, PAIR),
    "marian": Architecture(
        "MarianMTModel", Config("MarianConfig", {**BART, "decoder_start_token_id": 0}), PAIR
    ),
    "t5": _text(
        "T5",
        "ForConditionalGeneration",
        {**T5, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
        PAIR,
    ),
}

TEXT_MODELS = {**ENCODERS, **DECODERS, **ENCODER_DECODERS}
