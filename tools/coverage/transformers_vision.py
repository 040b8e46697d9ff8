"""Image models: classification, dense prediction, detection, image and text."""

from __future__ import annotations

from typing import Any

from tools.coverage.architecture import ENCODER, SPECIAL, VISION, Architecture, Config, image, tokens


def _vision(config: str, head: str, side: int, values: dict[str, Any], attention: str = "") -> Architecture:
    """An architecture whose classes are ``{config}Config`` and ``{config}{head}``."""
    inputs = {"pixel_values": image(side)}
    return Architecture(f"{config}{head}", Config(f"{config}Config", values), inputs, attention)


CLASSIFY = "ForImageClassification"
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
SHALLOW = {**STAGES, "depths": [1, 1, 1, 1]}
SWIN = {
    "image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
    "window_size": 4,
}  # fmt: skip
SEGFORMER = {
    **SHALLOW, "num_encoder_blocks": 4, "sr_ratios": [8, 4, 2, 1], "num_attention_heads": [1, 2, 2, 4],
    "decoder_hidden_size": 16,
}  # fmt: skip
RESNET = {**STAGES, "embedding_size": 8, "layer_type": "bottleneck"}
TEXT = {**ENCODER, **SPECIAL, "max_position_embeddings": 32}

CLASSIFICATION = {
    "beit": _vision("Beit", CLASSIFY, 32, {**VISION, "use_relative_position_bias": True}),
    "convnext": _vision("ConvNext", CLASSIFY, 64, STAGES),
    "convnextv2": _vision("ConvNextV2", CLASSIFY, 64, STAGES),
    "cvt": _vision("Cvt", CLASSIFY, 64, {}),
    "deit": _vision("DeiT", f"{CLASSIFY}WithTeacher", 32, VISION),
    "dinov2": _vision("Dinov2", "Model", 28, {**VISION, "image_size": 28, "patch_size": 7}),
    "dinov3_vit": _vision("DINOv3ViT", "Model", 32, VISION),
    "efficientnet": _vision(
        "EfficientNet",
        CLASSIFY,
        64,
        {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320, "image_size": 64},
    ),
    "focalnet": _vision(
        "FocalNet",
        CLASSIFY,
        64,
        {
            "image_size": 64,
            "embed_dim": 16,
            "depths": [1, 1],
            "hidden_sizes": [16, 32],
            "focal_levels": [2, 2],
            "focal_windows": [3, 3],
        },
    ),
    "hiera": _vision(
        "Hiera",
        "Model",
        64,
        {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
    ),
    "levit": _vision(
        "Levit",
        CLASSIFY,
        64,
        {
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "num_attention_heads": [2, 3, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
    ),
    "mobilenet_v1": _vision("MobileNetV1", CLASSIFY, 64, {"depth_multiplier": 0.25, "image_size": 64}),
    "mobilenet_v2": _vision("MobileNetV2", CLASSIFY, 64, {"depth_multiplier": 0.35, "image_size": 64}),
    "mobilevit": _vision(
        "MobileViT",
        CLASSIFY,
        64,
        {
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 16, 16, 24, 24, 32, 64],
        },
    ),
    "poolformer": _vision("PoolFormer", CLASSIFY, 64, SHALLOW),
    "pvt_v2": _vision(
        "PvtV2", CLASSIFY, 64, {**SHALLOW, "num_attention_heads": [1, 2, 2, 4], "image_size": 64}
    ),
    "regnet": _vision(
        "RegNet", CLASSIFY, 64, {**STAGES, "embedding_size": 8, "groups_width": 8, "layer_type": "y"}
    ),
    "resnet": _vision("ResNet", CLASSIFY, 64, RESNET),
    "swin": _vision("Swin", CLASSIFY, 64, SWIN),
    "swinv2": _vision("Swinv2", CLASSIFY, 64, SWIN),
    "vit": _vision("ViT", CLASSIFY, 32, VISION),
    "vit_eager": _vision("ViT", "Model", 32, VISION, attention="eager"),
    "vit_mae": _vision("ViTMAE", "Model", 32, VISION),
}

DENSE = {
    "depth_anything": _vision(
        "DepthAnything",
        "ForDepthEstimation",
        56,
        {
            "backbone_config": Config(
                "Dinov2Config",
                {
                    "image_size": 56,
                    "patch_size": 14,
                    "hidden_size": 32,
                    "num_hidden_layers": 4,
                    "num_attention_heads": 4,
                    "out_indices": [1, 2, 3, 4],
                    "apply_layernorm": True,
                    "reshape_hidden_states": False,
                },
            ),
            "reassemble_hidden_size": 32,
            "neck_hidden_sizes": [8, 8, 16, 16],
            "fusion_hidden_size": 16,
            "patch_size": 14,
        },
    ),
    "dpt": _vision(
        "DPT",
        "ForDepthEstimation",
        64,
        {
            **VISION,
            "image_size": 64,
            "patch_size": 16,
            "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 8, 16, 16],
            "fusion_hidden_size": 16,
            "is_hybrid": False,
        },
    ),
    "glpn": _vision("GLPN", "ForDepthEstimation", 64, SEGFORMER),
    "mask2former": _vision(
        "Mask2Former",
        "ForUniversalSegmentation",
        64,
        {
            "backbone_config": Config(
                "SwinConfig",
                {
                    **SWIN,
                    "depths": [1, 1, 1, 1],
                    "num_heads": [2, 2, 2, 2],
                    "out_features": ["stage1", "stage2", "stage3", "stage4"],
                },
            ),
            "feature_size": 32,
            "mask_feature_size": 32,
            "hidden_dim": 32,
            "encoder_feedforward_dim": 64,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "num_attention_heads": 4,
            "dim_feedforward": 64,
            "num_queries": 5,
        },
    ),
    "sam_vision": _vision(
        "SamVision",
        "Model",
        64,
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 64,
            "patch_size": 8,
            "window_size": 4,
            "output_channels": 16,
            "mlp_dim": 64,
            "global_attn_indexes": [1],
        },
    ),
    "segformer": _vision("Segformer", "ForSemanticSegmentation", 64, SEGFORMER),
    "swin2sr": _vision(
        "Swin2SR",
        "ForImageSuperResolution",
        32,
        {**SWIN, "image_size": 32, "patch_size": 1, "depths": [1, 1], "num_heads": [2, 2]},
    ),
    "upernet": _vision(
        "UperNet",
        "ForSemanticSegmentation",
        64,
        {
            "backbone_config": Config(
                "ConvNextConfig", {**SHALLOW, "out_features": ["stage1", "stage2", "stage3", "stage4"]}
            ),
            "hidden_size": 16,
            "num_labels": 4,
            "auxiliary_in_channels": 24,
            "auxiliary_channels": 16,
        },
    ),
}

LAYERS = {  # of a detection transformer
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 5,
    "num_labels": 4,
}  # fmt: skip
DETR = {
    **LAYERS,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "backbone_config": Config("ResNetConfig", {**RESNET, "out_features": ["stage4"]}),
}
LAST_THREE = {"out_features": ["stage2", "stage3", "stage4"]}

DETECTION = {
    "cond_detr": _vision("ConditionalDetr", "ForObjectDetection", 64, DETR),
    "deformable_detr": _vision(
        "DeformableDetr",
        "ForObjectDetection",
        64,
        {
            **DETR,
            "backbone_config": Config("ResNetConfig", {**RESNET, **LAST_THREE}),
            "num_feature_levels": 4,
            "encoder_layers": 2,
            "decoder_layers": 2,
        },
    ),
    "detr": _vision("Detr", "ForObjectDetection", 64, DETR),
    "rt_detr": _vision(
        "RTDetr",
        "ForObjectDetection",
        64,
        {
            **LAYERS,
            "backbone_config": Config(
                "RTDetrResNetConfig", {**SHALLOW, **LAST_THREE, "embedding_size": 8, "layer_type": "basic"}
            ),
            "encoder_in_channels": [16, 24, 32],
            "encoder_hidden_dim": 32,
            "decoder_in_channels": [32, 32, 32],
            "feat_strides": [8, 16, 32],
            "anchor_image_size": None,
        },
    ),
    "yolos": _vision(
        "Yolos", "ForObjectDetection", 32, {**VISION, "image_size": [32, 32], "num_detection_tokens": 4}
    ),
}

IMAGE_AND_TEXT = {
    "clip": Architecture(
        "CLIPModel",
        Config("CLIPConfig", {"text_config": TEXT, "vision_config": VISION, "projection_dim": 16}),
        {"input_ids": tokens(), "pixel_values": image(32)},
    ),
    "clip_text": Architecture("CLIPTextModel", Config("CLIPTextConfig", TEXT), {"input_ids": tokens()}),
    "clip_vision": _vision("CLIPVision", "Model", 32, VISION),
    "siglip_vision": _vision("SiglipVision", "Model", 32, VISION),
}

VISION_MODELS = {**CLASSIFICATION, **DENSE, **DETECTION, **IMAGE_AND_TEXT}
