"""Functions of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.support.torch_functions import Functions

THETA = torch.tensor([[[0.8, 0.1, 0.0], [0.2, 0.9, -0.1]]]).expand(2, 2, 3)


def _unpooled(x: torch.Tensor) -> torch.Tensor:
    values, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(values, places, (2, 2))


POOL: Functions = {
    "max_pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max_pool_ceil": lambda x: F.max_pool2d(x, 2, 4, ceil_mode=True),
    "max_pool_unbatched": lambda x: F.max_pool2d(x[0], 2),
    "max_pool_places": lambda x: F.max_pool2d(x, 2, return_indices=True),
    "max_pool_places_alone": lambda x: F.max_pool2d(x[0], 3, 2, 1, return_indices=True)[1],
    "max_pool1": lambda x: (F.max_pool1d(x[:, 0], 2), F.max_pool1d(x[:, 0], 2, return_indices=True)),
    "max_pool3": lambda x: F.max_pool3d(x, 2),
    "max_unpool": _unpooled,
    "avg_pool": lambda x: (F.avg_pool2d(x, 3, 2, 1), F.avg_pool1d(x[:, 0], 2), F.avg_pool3d(x, 2)),
    "avg_pool_exclude": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "avg_pool_divisor": lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=5),
    "gap": lambda x: (
        F.adaptive_avg_pool2d(x, 1),
        F.adaptive_max_pool2d(x, 1),
        F.adaptive_avg_pool1d(x[0], 1),
    ),
    "adaptive": lambda x: (F.adaptive_avg_pool2d(x, (4, 3)), F.adaptive_avg_pool1d(x[0], 4)),
    "adaptive_even": lambda x: (F.adaptive_avg_pool2d(x, (3, 2)), F.adaptive_max_pool2d(x[0], (2, 6))),
    "adaptive_max": lambda x: (F.adaptive_max_pool2d(x, 4), F.adaptive_max_pool2d(x, 4, return_indices=True)),
    "lp_pool": lambda x: (F.lp_pool2d(x, 2, 2), F.lp_pool1d(x[:, 0], 3, 2)),
    "lrn": lambda x: F.local_response_norm(x, 2),
}

RESIZE: Functions = {
    "nearest": lambda x: (F.interpolate(x, scale_factor=2), F.interpolate(x, size=(9, 4))),
    "nearest_exact": lambda x: F.interpolate(x, size=(9, 4), mode="nearest-exact"),
    "nearest1": lambda x: F.interpolate(x[0], scale_factor=1.5),
    "bilinear": lambda x: (
        F.interpolate(x, size=(9, 4), mode="bilinear"),
        F.interpolate(x, scale_factor=1.3, mode="bilinear"),
    ),
    "aligned": lambda x: F.interpolate(x, size=(9, 4), mode="bilinear", align_corners=True),
    "linear": lambda x: F.interpolate(x[0], scale_factor=2, mode="linear"),
    "trilinear": lambda x: F.interpolate(x[None], scale_factor=2, mode="trilinear"),
    "bicubic": lambda x: (
        F.interpolate(x, scale_factor=2, mode="bicubic"),
        F.interpolate(x, size=(5, 8), mode="bicubic"),
    ),
    "antialias": lambda x: F.interpolate(x, size=(4, 3), mode="bilinear", antialias=True),
    "antialias_cubic": lambda x: F.interpolate(x, size=(4, 9), mode="bicubic", antialias=True),
    "recomputed": lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear", recompute_scale_factor=True),
    "grid": lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1).tanh(), align_corners=False),
    "grid_border": lambda x: F.grid_sample(
        x, x[:, :2].permute(0, 2, 3, 1), "nearest", "border", align_corners=True
    ),
    "affine_grid": lambda x: F.affine_grid(THETA * x.mean(), [2, 4, 5, 6], align_corners=False),
}

PATCHES: Functions = {
    "pixel_shuffle": lambda x: (F.pixel_shuffle(x, 2), F.pixel_shuffle(x[0], 2)),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x: (F.channel_shuffle(x, 2), torch.native_channel_shuffle(x, 2)),
    "pad": lambda x: F.pad(x, (1, 2, 0, 3), value=0.5),
    "crop": lambda x: F.pad(x, (-1, 0, 0, -2)),
    "reflect": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "edge": lambda x: F.pad(x, (1, 2, 0, 3), mode="replicate"),
    "wrap": lambda x: F.pad(x, (1, 2, 0, 3), mode="circular"),
    "im2col": lambda x: (F.unfold(x, (2, 3), 1, 1, 2), F.unfold(x[0], 2)),
    "col2im": lambda x: (
        F.fold(x.reshape(2, 24, 6), (3, 4), 2),
        F.fold(x.reshape(2, 24, 6)[0], (4, 4), (2, 3), 1, 1, 2),
    ),
    "glu": lambda x: F.glu(x, 1),
    "group_norm": lambda x: F.group_norm(x, 2),
    "instance_norm": lambda x: F.instance_norm(x),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "layer_norm": lambda x: F.layer_norm(x, (6, 6)),
    "rms_norm": lambda x: F.rms_norm(x, (6,)),
}
