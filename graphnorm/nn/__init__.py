"""Layers with equilibrium normalization of their weights, EquiNorm (Defazio & Bottou 2018)."""

from __future__ import annotations

from graphnorm.util.extras import needing

with needing("graphnorm.nn"):
    from graphnorm.nn.layer import EquiNormLayer, EquiNormOptions
    from graphnorm.nn.layers import EquiNormConv1d, EquiNormConv2d, EquiNormConv3d, EquiNormLinear
    from graphnorm.nn.signs import resample_signs_

__all__ = [
    "EquiNormConv1d",
    "EquiNormConv2d",
    "EquiNormConv3d",
    "EquiNormLayer",
    "EquiNormLinear",
    "EquiNormOptions",
    "resample_signs_",
]
