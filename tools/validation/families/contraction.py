"""Cases of contractions."""

from __future__ import annotations

import numpy as np

from tools.validation.case import ABSENT, Case, signed
from tools.validation.maker import Maker, cases

EQUATIONS = (
    "ij,jk->ik", "ij,kj->ik", "ij,jk->ki", "bij,bjk->bik", "bij,jk->bik", "i,j->ij", "ij,ij->i", "ij,ij->",
    "ij,i->j", "ij->ji", "ij->i", "ij->", "ij,jk,kl->il", "ni,nj,ijk->nk", "ii->i", "ii->", "iij,j->i",
    "...i,ij->...j", "bhnd,bhmd->bhnm", "ij,jk", "eih,ni->neh", "ij,ik,il->jkl",
)  # fmt: skip


@cases("MatMul")
def matmul(m: Maker) -> Case:
    n, k, p = (m.integer(1, 3) for _ in range(3))
    first = m.choose([(n, k), (n, k), (k,), (2, n, k)])
    second = m.choose([(k, p), (k, p), (k,), (2, k, p), (1, k, p)])
    return m.case(m.real(first), m.real(second))


@cases("Gemm")
def gemm(m: Maker) -> Case:
    n, k, p = (m.integer(1, 3) for _ in range(3))
    left, right = m.integer(0, 1), m.integer(0, 1)
    third = [m.real(m.choose([(n, p), (p,), (1, p), (n, 1), (1,), ()]))] if m.chance(0.7) else []
    return m.case(
        m.real((k, n) if left else (n, k)), m.real((p, k) if right else (k, p)), *third,
        transA=left, transB=right, alpha=m.choose([1.0, 0.7]), beta=m.choose([1.0, 0.7]),
    )  # fmt: skip


@cases("Einsum")
def einsum(m: Maker) -> Case:
    equation = m.choose(EQUATIONS)
    sizes = {letter: m.integer(1, 3 if equation.count(",") < 2 else 2) for letter in "ijklbnehmd"}
    terms = equation.split("->")[0].replace("...", "b").split(",")
    return m.case(*(m.real([sizes[letter] for letter in term]) for term in terms), equation=equation)


@cases("Conv")
def conv(m: Maker) -> Case:
    rank, groups = m.integer(1, 2), m.choose([1, 1, 2])
    each_in, each_out = m.integer(1, 2), m.integer(1, 2)
    kernel = [m.integer(1, 2) for _ in range(rank)]
    attributes = {"group": groups, "kernel_shape": kernel, "strides": [m.integer(1, 2)] * rank}
    if m.chance(0.4):
        attributes["pads"] = [m.integer(0, 1) for _ in range(2 * rank)]
    if m.chance(0.3):
        attributes["dilations"] = [2] * rank
    x = m.real((m.integer(1, 2), groups * each_in, *[3] * rank), along=(1,))
    weight, bias = m.parameter((groups * each_out, each_in, *kernel)), m.parameter((groups * each_out,))
    return m.case(x, weight, m.maybe(bias), **attributes)


@cases("ConvTranspose")
def conv_transpose(m: Maker) -> Case:
    rank, groups = m.integer(1, 2), m.choose([1, 1, 2])
    each_in, each_out = m.integer(1, 2), m.integer(1, 2)
    kernel = [m.integer(1, 2) for _ in range(rank)]
    attributes = {"group": groups, "kernel_shape": kernel, "strides": [1] * rank}
    x = m.real((m.integer(1, 2), groups * each_in, *[2] * rank), along=(1,))
    weight, bias = m.parameter((groups * each_in, each_out, *kernel)), m.parameter((groups * each_out,))
    return m.case(x, weight, m.maybe(bias), **attributes)


@cases("Attention")
def attention(m: Maker) -> Case:
    shared = m.choose([1, 2])
    q, k, v = (1, 2, 2, 2), (1, shared, 2, 2), (1, shared, 2, m.integer(1, 2))
    mask = []
    if m.chance(0.4):
        mask = [m.choose([m.real((2, 2), along=()), m.fixed([[True, False], [True, True]], np.bool_)])]
    attributes = m.choose([{}, {}, {"is_causal": 1}, {"scale": 0.4}, {"softcap": 2.0}])
    if m.chance(0.2):  # heads packed into the last axis
        operands = [m.real((1, 2, n), along=(2,)) for n in (4, 2 * shared, 2 * shared)]
        return m.case(*operands, *mask, q_num_heads=2, kv_num_heads=shared, **attributes)
    return m.case(*(m.real(shape, along=(1, 3)) for shape in (q, k, v)), *mask, **attributes)


@cases("RotaryEmbedding")
def rotary(m: Maker) -> Case:
    angles = m.rng.uniform(0.2, 1.3, (1, 2, 2))
    return m.case(
        m.real((1, 2, 2, 4)), m.fixed(np.cos(angles), np.float64), m.fixed(np.sin(angles), np.float64),
        interleaved=m.integer(0, 1),
    )  # fmt: skip


@cases("CausalConvWithState")
def causal_conv(m: Maker) -> Case:
    activation = {"activation": m.choose(["none", "silu"])}
    past = m.maybe(m.real((1, 2, 1), along=(1,)))
    return m.case(
        m.real((1, 2, 3), along=(1,)), m.parameter((2, 1, 2)), m.maybe(m.parameter((2,))), past, results=2,
        **activation,
    )  # fmt: skip


@cases("LinearAttention")
def linear_attention(m: Maker) -> Case:
    rule = m.choose(["linear", "gated", "delta", "gated_delta"])
    q, k, v = (m.real((1, 2, 4), along=(2,)) for _ in range(3))
    past = m.maybe(m.real((1, 2, 2, 2), along=(1, 2, 3)))
    decay = m.real((1, 2, 4), along=(2,)) if "gated" in rule else ABSENT
    rate = m.real((1, 2, 2), along=(2,)) if "delta" in rule else ABSENT
    return m.case(
        q, k, v, past, decay, rate, results=2, q_num_heads=2, kv_num_heads=2, update_rule=rule, scale=0.5
    )


@cases("DeformConv")
def deform_conv(m: Maker) -> Case:
    return m.case(
        m.real((1, 2, 2, 2), along=(1,)), m.parameter((2, 2, 1, 1)),
        m.real((1, 2, 2, 2), lambda r, s: 0.3 * signed(r, s), along=(1,)), m.maybe(m.parameter((2,))),
        kernel_shape=[1, 1],
    )  # fmt: skip
