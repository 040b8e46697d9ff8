"""torchvision's classification, segmentation, video, optical-flow and detection models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CLASSIFICATION = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet",
    "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf",
    "regnet_y_400mf", "resnet18", "resnet50", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1",
    "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_16", "wide_resnet50_2",
)  # fmt: skip
SEGMENTATION = (
    "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large",
)  # fmt: skip
VIDEO = ("mc3_18", "mvit_v1_b", "r2plus1d_18", "r3d_18", "s3d", "swin3d_t")
FLOW = ("raft_small",)
DETECTION = (  # whole models: their boxes depend on the data
    "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_resnet50_fpn_v2", "fcos_resnet50_fpn",
    "keypointrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large",
)  # fmt: skip
BACKBONES = {  # of a detector -> side of the image
    "fasterrcnn_mobilenet_v3_large_fpn": 192, "fasterrcnn_resnet50_fpn": 192, "retinanet_resnet50_fpn": 192,
    "ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320,
}  # fmt: skip
HEADS = {  # of a detector -> where its heads are
    "fasterrcnn_resnet50_fpn": "rpn.head", "fcos_resnet50_fpn": "head", "retinanet_resnet50_fpn_v2": "head",
}  # fmt: skip
NAMES = (
    *CLASSIFICATION, *SEGMENTATION, *VIDEO, *FLOW, *DETECTION,
    *(f"{name}#backbone" for name in BACKBONES), *(f"{name}#heads" for name in HEADS),
)  # fmt: skip

SIDES = {"inception_v3": 299, "swin_v2_t": 256}
CLIPS = {"mvit_v1_b": (16, 224, 224), "s3d": (16, 224, 224), "swin3d_t": (8, 112, 112)}


class Heads(nn.Module):
    """A detector up to its heads' outputs, before boxes are selected."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> Any:
        return self.head(list(self.backbone(x).values()))


def build(name: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """A model with random weights and its inputs."""
    name, _, part = name.partition("#")
    if part == "backbone":
        side = BACKBONES[name]
        return _detector(name).backbone, (torch.randn(1, 3, side, side),), {}
    if part == "heads":
        detector: Any = _detector(name)
        return (
            Heads(detector.backbone, detector.get_submodule(HEADS[name])),
            (torch.randn(1, 3, 192, 192),),
            {},
        )
    if name in DETECTION:
        return _detector(name), ([torch.rand(3, 160, 160)],), {}
    if name in FLOW:
        frames = torch.randn(2, 1, 3, 128, 128)
        return _model(name), tuple(frames), {"num_flow_updates": 2}
    if name in VIDEO:
        return _model(name), (torch.randn(1, 3, *CLIPS.get(name, (16, 112, 112))),), {}
    side = SIDES.get(name, 224)
    return _model(name), (torch.randn(2, 3, side, side),), {}


def _model(name: str) -> nn.Module:
    from torchvision import models

    options: dict[str, Any] = {}
    if name in SEGMENTATION:
        options["weights_backbone"] = None  # its default is a download
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False, "aux_logits": True}
    module: nn.Module = models.get_model(name, weights=None, **options)
    return module


def _detector(name: str) -> Any:
    from torchvision import models
    from torchvision.ops import boxes

    # A torchvision without its compiled library refuses to call nms, even to trace it.
    boxes._assert_has_ops = lambda: None
    return models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
