"""Functions and norms that ONNX's reference implementation computes in float32, or wrongly."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np
from onnx.reference.op_run import OpRun
from scipy.special import erf

from graphnorm.verification.onnx.windows import Windows


class Erf(OpRun):
    """The library's own rounds to float32."""

    op_domain = ""

    def _run(self, x):
        return (np.asarray(erf(x), dtype=x.dtype),)


class Gelu(OpRun):
    """The library's own is made of constants in float32."""

    op_domain = ""

    def _run(self, x, approximate=None):
        if approximate == "tanh":
            gate = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        else:
            gate = erf(x * math.sqrt(0.5))
        return (np.asarray(0.5 * x * (1 + gate), dtype=x.dtype),)


class HardSwish(OpRun):
    """The library's own takes a sixth in float32."""

    op_domain = ""

    def _run(self, x):
        return (np.asarray(x * np.clip(x / 6 + 0.5, 0, 1), dtype=x.dtype),)


class GlobalMaxPool(OpRun):
    """The library's own takes the largest over the wrong axes, but for images."""

    op_domain = ""

    def _run(self, x):
        return (x.max(tuple(range(2, x.ndim)), keepdims=True),)


class LpNormalization(OpRun):
    """The library's own takes no absolute values; entries of norm 0 stay 0."""

    op_domain = ""

    def _run(self, x, axis=None, p=None):
        powers = np.abs(x) ** (2 if p is None else p)
        norm = powers.sum(-1 if axis is None else axis, keepdims=True) ** (1 / (2 if p is None else p))
        return (np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm)).astype(x.dtype),)


class LpPool(OpRun):
    """Windows with dilations, which the library's own counts wrongly."""

    op_domain = ""

    def _run(
        self, x, auto_pad=None, ceil_mode=None, dilations=None, kernel_shape=None, p=None, pads=None,
        strides=None,
    ):  # fmt: skip
        windows = Windows.of(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, bool(ceil_mode))
        power = 2 if p is None else p
        padded = windows.padded(np.abs(x) ** power, 0.0)
        total = np.zeros((*x.shape[:2], *windows.output), dtype=x.dtype)
        for _, at in windows.offsets():
            total += padded[:, :, *at]
        return (np.asarray(total ** (1 / power), dtype=x.dtype),)


FUNCTIONS = (Erf, Gelu, HardSwish, GlobalMaxPool, LpNormalization, LpPool)
