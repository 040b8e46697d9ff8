"""One model of each of timm's model files, and of each variant that has operators of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

NAMES = (
    "bat_resnext26ts", "beit3_base_patch16_224", "beit_base_patch16_224", "botnet26t_256", "caformer_s18",
    "cait_xxs24_224", "coat_lite_tiny", "coat_tiny", "coatnet_nano_rw_224", "coatnext_nano_rw_224",
    "convit_tiny", "convmixer_768_32", "convnext_atto", "convnext_zepto_rms", "convnextv2_atto",
    "cpubone_nano", "crossvit_tiny_240", "cs3darknet_focus_s", "csatv2", "cspnext_tiny", "cspresnet50",
    "davit_tiny", "deepseek_vit_412m", "deit3_small_patch16_224", "deit_tiny_distilled_patch16_224",
    "densenet121", "densenetblur121d", "dla34", "dla60_res2net", "dpn48b", "eca_halonext26ts",
    "ecaresnet26t", "edgenext_xx_small", "efficientformer_l1", "efficientformerv2_s0", "efficientnet_b0",
    "efficientnet_b0#exportable", "efficientnet_b0_g16_evos", "efficientnet_b0_gn", "efficientnet_cc_b0_4e",
    "efficientnet_lite0", "efficientnetv2_rw_t", "efficientvim_m1", "efficientvit_b0", "efficientvit_l1",
    "efficientvit_m0", "ese_vovnet19b_slim_dw", "ese_vovnet39b_evos", "eva02_tiny_patch14_224",
    "fasternet_t0", "fastvit_sa12", "fastvit_t8", "fbnetv3_b", "flexivit_small", "focalnet_tiny_srf",
    "gcresnext26ts", "gcvit_xxtiny", "gemma4_vit_167m", "gernet_s", "ghostnet_050", "ghostnetv2_100",
    "ghostnetv3_050", "gmlp_ti16_224", "halonet26t", "hardcorenas_a", "hgnet_tiny", "hgnetv2_b0",
    "hiera_tiny_224", "hieradet_small", "hrnet_w18_small", "iformer_t", "inception_next_atto",
    "inception_resnet_v2", "inception_v3", "inception_v4", "lambda_resnet26t", "lcnet_050", "lcnetv2_small",
    "legacy_seresnet18", "legacy_xception", "levit_128s", "levit_conv_128s", "lowformer_b0",
    "mambaout_femto", "maxvit_pico_rw_256", "maxvit_rmlp_pico_rw_256", "maxvit_tiny_tf_224",
    "maxxvit_rmlp_nano_rw_256", "mixer_s32_224", "mixnet_s", "mobilenetv2_100", "mobilenetv3_small_050",
    "mobilenetv4_conv_small_050", "mobilenetv4_hybrid_medium_075", "mobilenetv5_300m", "mobileone_s0",
    "mobilevit_xxs", "mobilevitv2_050", "mvitv2_small_cls", "mvitv2_tiny", "naflexvit_base_patch16_gap",
    "naflexvit_base_patch16_map", "naflexvit_base_patch16_siglip", "nasnetalarge", "nest_tiny",
    "nextvit_small", "nf_regnet_b0", "nf_resnet26", "nfnet_l0", "pit_ti_224", "pnasnet5large",
    "poolformer_s12", "poolformerv2_s12", "pvt_v2_b0", "pvt_v2_b2_li", "qwen3_vit_88m", "rdnet_tiny",
    "regnetx_002", "regnety_002", "regnetz_005", "regnetz_b16", "regnetz_b16_evos", "repghostnet_050",
    "repvgg_a0", "repvit_m0_9", "res2net50_14w_8s", "resmlp_12_224", "resnest14d", "resnet18", "resnet26t",
    "resnet50", "resnet50_clip", "resnet50_gn", "resnetaa34d", "resnetblur18", "resnetv2_18",
    "resnetv2_50d_evos", "resnetv2_50d_frn", "resnetv2_50x1_bit", "rexnet_100", "sam2_hiera_tiny",
    "samvit_base_patch16_224", "selecsls42", "sequencer2d_s", "seresnet33ts", "shvit_s1", "skresnet18",
    "starnet_s050", "swiftformer_xs", "swin_tiny_patch4_window7_224", "swin_tiny_patch4_window7_224#nofuse",
    "swinv2_cr_tiny_224", "swinv2_tiny_window8_256", "test_nfnet", "test_vit", "test_vit2", "test_vit3",
    "test_vit4", "tf_efficientnet_b0", "tiny_vit_5m_224", "tnt_s_legacy_patch16_224", "tresnet_m",
    "twins_pcpvt_small", "twins_svt_small", "vgg11", "vgg11_bn", "visformer_tiny",
    "vit_base_patch16_plus_clip_240", "vit_base_patch16_siglip_224", "vit_relpos_small_patch16_224",
    "vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "vit_srelpos_small_patch16_224",
    "vit_tiny_patch16_224", "vit_tiny_patch16_224#nofuse", "vit_tiny_r_s16_p8_224", "vitamin_small_224",
    "volo_d1_224", "xception41", "xcit_nano_12_p16_224",
)  # fmt: skip
FIXED_SIZE = ("nasnetalarge", "pnasnet5large")  # too deep for small images
LARGEST_SIDE = 256


def build(name: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """A model with random weights and its inputs; ``NAME#nofuse`` and ``NAME#exportable`` are variants."""
    import timm
    from timm.layers import config

    name, _, variant = name.partition("#")
    if variant == "nofuse":
        config.set_fused_attn(False)
    options: dict[str, Any] = {"exportable": True} if variant == "exportable" else {}
    module = timm.create_model(name, pretrained=False, **options)
    preset: Any = module.pretrained_cfg
    size = tuple(preset.get("input_size") or (3, 224, 224))
    if max(size[1:]) > LARGEST_SIDE and not preset.get("fixed_input_size") and name not in FIXED_SIZE:
        size = tuple(preset.get("min_input_size") or (size[0], 224, 224))
    return module, (torch.randn(2, *size),), {}
