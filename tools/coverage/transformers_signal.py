"""Speech, audio and time-series models."""

from __future__ import annotations

from tools.coverage.architecture import SPECIAL, VOCABULARY, Architecture, Config, noise, tokens

WHISPER = Config(
    "WhisperConfig",
    {
        **SPECIAL,
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "num_mel_bins": 16,
        "max_source_positions": 50,
        "max_target_positions": 32,
        "use_cache": False,
        "decoder_start_token_id": 1,
        "begin_suppress_tokens": None,
        "suppress_tokens": None,
    },
)
WAV2VEC2 = {
    "vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "conv_dim": (16, 16), "conv_stride": (5, 2), "conv_kernel": (10, 3),
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "num_feat_extract_layers": 2,
}  # fmt: skip
SOUND = {"input_values": noise(2, 1000)}
MEL = {"input_features": noise(2, 16, 100)}

SIGNAL_MODELS = {
    "ast": Architecture(
        "ASTForAudioClassification",
        Config(
            "ASTConfig",
            {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 64,
                "max_length": 64,
                "num_mel_bins": 32,
            },
        ),
        {"input_values": noise(2, 64, 32)},
    ),
    "encodec": Architecture("EncodecModel", Config("EncodecConfig", {}), {"input_values": noise(1, 1, 2400)}),
    "hubert": Architecture("HubertModel", Config("HubertConfig", WAV2VEC2), SOUND),
    "patchtst": Architecture(
        "PatchTSTForPrediction",
        Config(
            "PatchTSTConfig",
            {
                "num_input_channels": 3,
                "context_length": 32,
                "patch_length": 8,
                "patch_stride": 8,
                "d_model": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "ffn_dim": 32,
                "prediction_length": 8,
            },
        ),
        {"past_values": noise(2, 32, 3)},
    ),
    "vits": Architecture(
        "VitsModel",
        Config(
            "VitsConfig",
            {
                "vocab_size": 38,
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "ffn_dim": 32,
                "flow_size": 16,
                "spectrogram_bins": 17,
                "upsample_rates": [4, 4],
                "upsample_kernel_sizes": [8, 8],
                "upsample_initial_channel": 32,
                "resblock_kernel_sizes": [3],
                "resblock_dilation_sizes": [[1, 3]],
                "prior_encoder_num_flows": 2,
                "posterior_encoder_num_wavenet_layers": 2,
                "prior_encoder_num_wavenet_layers": 2,
                "speaking_rate": 1e6,  # one frame for each token, however long random weights want them
            },
        ),
        {"input_ids": tokens(38)},
    ),
    "wav2vec2": Architecture("Wav2Vec2ForCTC", Config("Wav2Vec2Config", WAV2VEC2), SOUND),
    "wavlm": Architecture("WavLMModel", Config("WavLMConfig", WAV2VEC2), SOUND),
    "whisper": Architecture(
        "WhisperForConditionalGeneration", WHISPER, {**MEL, "decoder_input_ids": tokens()}
    ),
    "whisper_encoder": Architecture(
        "transformers.models.whisper.modeling_whisper:WhisperEncoder", WHISPER, MEL
    ),
}
