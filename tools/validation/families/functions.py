"""Cases of PyTorch's special functions and of fused activations, which ONNX doesn't have."""

from __future__ import annotations

from tools.validation.case import Case, inside_one, positive, signed
from tools.validation.maker import Maker, cases

UNARY = {
    "aten::erfinv": inside_one, "aten::lgamma": positive, "aten::digamma": positive, "aten::i0": signed,
    "aten::special_i0e": signed, "aten::special_i1": signed, "aten::special_i1e": signed,
    "aten::special_erfcx": signed, "aten::special_ndtri": lambda rng, shape: rng.uniform(0.1, 0.9, shape),
    "aten::special_bessel_j0": signed, "aten::special_bessel_j1": signed, "aten::special_bessel_y0": positive,
    "aten::special_bessel_y1": positive, "aten::special_spherical_bessel_j0": positive,
    "aten::polygamma": positive,
}  # fmt: skip
BINARY = ("aten::igamma", "aten::igammac", "aten::special_zeta", "aten::atan2")
GELUS = (
    "com.microsoft::Gelu",
    "com.microsoft::FastGelu",
    "com.microsoft::QuickGelu",
    "com.microsoft::BiasGelu",
)


@cases(*UNARY)
def unary(m: Maker) -> Case:
    return m.case(m.real(m.shape(), UNARY[m.op]))


@cases("aten::frexp")
def parts(m: Maker) -> Case:
    return m.case(m.real(m.shape()), results=2)


@cases(*BINARY)
def binary(m: Maker) -> Case:
    shape = m.shape(entries=9)
    sample = signed if m.op == "aten::atan2" else lambda rng, size: rng.uniform(1.2, 3.0, size)
    return m.case(m.real(shape, sample), m.real(m.broadcast(shape), sample))


@cases(*GELUS)
def gelu(m: Maker) -> Case:
    shape = m.shape(1, 2)
    bias = [m.real(shape[-1:])] if m.op.endswith("BiasGelu") else []
    return m.case(m.real(shape), *bias)


@cases("SwiGLU")
def swiglu(m: Maker) -> Case:
    shape = m.shape(entries=9)
    return m.case(m.real(shape), m.real(shape), alpha=float(m.choose([0.7, 1.0])))


@cases("AffineGrid")
def affine_grid(m: Maker) -> Case:
    return m.case(m.real((1, 2, 3)), m.fixed([1, 1, 2, 2]), align_corners=m.integer(0, 1))
