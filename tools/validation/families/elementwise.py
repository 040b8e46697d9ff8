"""Cases of elementwise operators."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tools.validation.case import ABSENT, Case, above_one, inside_one, positive, repeating, signed
from tools.validation.maker import Maker, cases

UNARY = (
    "Relu", "Abs", "Neg", "Identity", "Reciprocal", "Sign", "IsNaN", "IsInf", "Sigmoid", "Tanh", "Mish",
    "Softplus", "Softsign", "HardSwish", "Erf", "Exp", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Asinh",
    "Floor", "Ceil", "Round",
)  # fmt: skip
ALPHA = ("LeakyRelu", "Elu", "Celu", "ThresholdedRelu", "Swish")
SAMPLES = {"Sqrt": positive, "Log": positive, "Acosh": above_one, "Atanh": inside_one, "Asin": inside_one,
           "Acos": inside_one}  # fmt: skip


@cases(*UNARY)
def unary(m: Maker) -> Case:
    return m.case(m.real(m.shape()))


@cases(*SAMPLES)
def with_domain(m: Maker) -> Case:
    return m.case(m.real(m.shape(), SAMPLES[m.op]))


@cases(*ALPHA)
def with_alpha(m: Maker) -> Case:
    return m.case(m.real(m.shape()), alpha=float(m.choose([0.3, 0.7, 1.0])))


@cases("Gelu")
def gelu(m: Maker) -> Case:
    return m.case(m.real(m.shape()), approximate=m.choose(["none", "tanh"]))


@cases("Selu")
def selu(m: Maker) -> Case:
    return m.case(m.real(m.shape()), alpha=1.5, gamma=1.1)


@cases("HardSigmoid")
def hard_sigmoid(m: Maker) -> Case:
    return m.case(m.real(m.shape()), alpha=0.3, beta=0.4)


@cases("Shrink")
def shrink(m: Maker) -> Case:
    return m.case(m.real(m.shape()), lambd=0.7, bias=m.choose([0.0, 0.7]))


@cases("Softmax", "LogSoftmax", "Hardmax")
def along_axis(m: Maker) -> Case:
    shape = m.shape(smallest=2)
    return m.case(m.real(shape), axis=m.axis(len(shape)))


@cases("Cast")
def cast(m: Maker) -> Case:
    to = m.choose(
        [TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL]
    )
    return m.case(m.real(m.shape()), to=int(to))


@cases("CastLike")
def cast_like(m: Maker) -> Case:
    kind = m.choose([np.float32, np.float64, np.int64, np.bool_])
    return m.case(m.real(m.shape()), m.fixed([1], kind))


@cases("Dropout")
def dropout(m: Maker) -> Case:
    given = (m.fixed(0.4, np.float32), m.fixed(False, np.bool_))[: m.integer(0, 2)]
    return m.case(m.real(m.shape()), *given, results=m.integer(1, 2))


@cases("Clip")
def clip(m: Maker) -> Case:
    shape = m.shape()

    def bound(sign: float) -> object:
        value = m.choose([0.0, 0.0, sign * 0.8, sign * np.inf])
        return m.choose([m.fixed(value, np.float64), m.fixed(value, np.float64), ABSENT])

    return m.case(m.real(shape), bound(-1.0), bound(1.0))  # type: ignore[arg-type]


@cases("PRelu")
def prelu(m: Maker) -> Case:
    shape = m.shape(2, 3)
    slope = m.choose([(1,), shape[-1:], (shape[1],) + (1,) * (len(shape) - 2), shape])
    return m.case(m.real(shape), m.real(slope, m.choose([positive, repeating, signed])))


@cases("Pow")
def power(m: Maker) -> Case:
    shape = m.shape()
    if m.chance(0.7):
        exponent = m.choose([2.0, 3.0, 0.5, -1.0, 1.5, 1.0, 0.0, -0.5, 0.3718])
        return m.case(
            m.real(shape, positive), m.fixed(np.full(m.choose([(), (1,), shape]), exponent), np.float64)
        )
    if m.chance(0.5):
        several = m.rng.choice([2.0, 3.0, 0.5, -1.0, 1.0, 0.0], m.broadcast(shape))
        return m.case(m.real(shape, positive), m.fixed(several, np.float64))
    return m.case(m.real(shape, positive), m.real(m.broadcast(shape)))


@cases("Add", "Sub", "Mul", "Div")
def binary(m: Maker) -> Case:
    shape = m.shape()
    pair = [m.real(shape), m.real(m.broadcast(shape))]
    return m.case(*(pair if m.chance() else reversed(pair)))


@cases("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
def comparison(m: Maker) -> Case:
    shape = m.shape(entries=9)
    sample = repeating if m.op == "Equal" else signed
    pair = [m.real(shape, sample), m.real(m.broadcast(shape), sample)]
    return m.case(*(pair if m.chance() else reversed(pair)))


@cases("Mod")
def mod(m: Maker) -> Case:
    shape = m.shape()
    return m.case(m.real(shape), m.real(m.broadcast(shape), positive), fmod=1)


@cases("Sum", "Mean", "Max", "Min")
def variadic(m: Maker) -> Case:
    shape = m.shape(entries=12)
    return m.case(m.real(shape), *(m.real(m.broadcast(shape)) for _ in range(m.integer(0, 2))))


@cases("Where")
def where(m: Maker) -> Case:
    shape = m.shape(entries=12)
    chosen = m.discrete(m.broadcast(shape), lambda rng, size: rng.random(size) < 0.5)
    pair = [m.real(shape), m.real(m.broadcast(shape))]
    return m.case(chosen, *(pair if m.chance() else reversed(pair)))


@cases("graphnorm::Choice")
def choice(m: Maker) -> Case:
    shape = m.shape(entries=12)
    taken = m.discrete((), lambda rng, size: np.asarray(rng.random(size) < 0.5), run_time=1.0)
    return m.case(taken, m.real(shape), m.real(shape))


@cases("Trilu")
def trilu(m: Maker) -> Case:
    shape = m.shape(2, 3)
    k = [m.fixed(m.integer(-1, 2))] if m.chance() else []
    return m.case(m.real(shape), *k, upper=m.integer(0, 1))
