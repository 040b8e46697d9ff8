"""ATen -> ONNX: random numbers.  Only the parameters of a distribution reach its result."""

from __future__ import annotations

from typing import Any

from graphnorm.frontends.torch.call import Call, Number, Unlowerable
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import combined, filled, scaled, unary, unsqueezed
from graphnorm.ir import Value

TABLE = Lowerings()


def _drawn(call: Call, op: str, **attributes: Any) -> Value:
    """Random numbers of the result's shape."""
    dtype = call.result.dtype if call.result.is_float else "float32"
    return unary(call, op, filled(call, call.shape, 0, dtype, call.result.dynamic), **attributes)


def uniform(call: Call, low: Number = 0, high: Number = 1) -> Value:
    """Uniform on [low, high)."""
    return _drawn(call, "RandomUniformLike", low=float(low), high=float(high))


@TABLE.lowers("rand", "rand.generator")
def rand(call: Call, *_: Any) -> None:
    call.yields(uniform(call))


@TABLE.lowers("randn", "randn.generator")
def randn(call: Call, *_: Any) -> None:
    call.yields(_drawn(call, "RandomNormalLike"))


@TABLE.lowers("rand_like", "rand_like.generator", ignores=(0,))
def rand_like(call: Call, *_: Any) -> None:
    call.yields(uniform(call))


@TABLE.lowers("randn_like", "randn_like.generator", ignores=(0,))
def randn_like(call: Call, *_: Any) -> None:
    call.yields(_drawn(call, "RandomNormalLike"))


@TABLE.lowers("uniform", ignores=(0,))
def uniform_like(call: Call, x: Value, low: Number = 0, high: Number = 1, *_: Any) -> None:
    call.yields(uniform(call, low, high))


@TABLE.lowers("normal_functional", "normal.float_float", ignores=(0,))
def normal_like(call: Call, x: Any, mean: Number = 0, std: Number = 1, *_: Any) -> None:
    if not isinstance(x, Value):
        mean, std = x, mean  # without a tensor, these come first
    call.yields(_drawn(call, "RandomNormalLike", mean=float(mean), scale=float(std)))


@TABLE.lowers("normal.Tensor_Tensor", "normal.Tensor_float", "normal.float_Tensor")
def normal(call: Call, mean: Value | Number, std: Value | Number = 1, *_: Any) -> None:
    """``mean + std z``."""
    dtype = call.result.dtype
    noise = _drawn(call, "RandomNormalLike")
    call.out("Add", call.typed(mean, dtype), combined(call, "Mul", noise, call.typed(std, dtype)))


@TABLE.lowers("log_normal", ignores=(0,))
def log_normal(call: Call, x: Value, mean: float = 1.0, std: float = 2.0, *_: Any) -> None:
    call.out("Exp", _drawn(call, "RandomNormalLike", mean=float(mean), scale=float(std)))


@TABLE.lowers("exponential", ignores=(0,))
def exponential(call: Call, x: Value, rate: float = 1.0, *_: Any) -> None:
    """``-log(u) / rate``."""
    logarithm = unary(call, "Log", uniform(call))
    call.yields(scaled(call, logarithm, -1 / rate))


@TABLE.lowers("bernoulli")
def bernoulli(call: Call, x: Value, *_: Any) -> None:
    call.out("Bernoulli", x)


@TABLE.lowers("bernoulli.p", ignores=(0,))
def bernoulli_of(call: Call, x: Value, p: float = 0.5, *_: Any) -> None:
    if not call.result.is_float:
        raise Unlowerable
    call.out("Bernoulli", filled(call, call.shape, p, call.result.dtype, call.result.dynamic))


@TABLE.lowers("bernoulli.Tensor", ignores=(0,))
def bernoulli_with(call: Call, x: Value, p: Value, *_: Any) -> None:
    if p.shape != call.shape:
        raise Unlowerable
    call.out("Bernoulli", call.typed(p, call.result.dtype))


@TABLE.lowers("multinomial")
def multinomial(call: Call, x: Value, count: int, replacement: bool = False, *_: Any) -> None:
    """ONNX draws with replacement, from logarithms of probabilities."""
    if count != 1 and not replacement:
        raise Unlowerable
    rows = unary(call, "Log", x)
    if len(call.shape) == 1:
        rows = unsqueezed(call, rows, [0])
        drawn = call.steps(
            "Multinomial", rows, shapes=[(1, count)], dtypes=["int64"], sample_size=count, dtype=7
        )
        call.out("Squeeze", drawn[0], [0])
        return
    call.out("Multinomial", rows, sample_size=count, dtype=7)


@TABLE.lowers("rrelu_with_noise_functional")
def rrelu_with_noise(
    call: Call,
    x: Value,
    noise: Value,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    *_: Any,
) -> None:
    if call.wants(1):
        raise Unlowerable
    call.overwrites(noise)
    rrelu(call, x, lower, upper, training)


@TABLE.lowers("rrelu")
def rrelu(
    call: Call, x: Value, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *_: Any
) -> None:
    """The slope below 0 is drawn for each entry in training, and fixed otherwise."""
    if training:
        call.out("PRelu", x, uniform(call, lower, upper))
    else:
        call.out("LeakyRelu", x, alpha=(lower + upper) / 2)


@TABLE.lowers("randint", "randint.generator")
def randint(call: Call, high: int, *_: Any) -> None:
    _whole_numbers(call, 0, high)


@TABLE.lowers("randint_like", "randint_like.generator", ignores=(0,))
def randint_like(call: Call, x: Value, high: int, *_: Any) -> None:
    _whole_numbers(call, 0, high)


@TABLE.lowers("randint_like.low_dtype", "randint_like.low_generator_dtype", ignores=(0,))
def randint_like_between(call: Call, x: Value, low: int, high: int, *_: Any) -> None:
    _whole_numbers(call, low, high)


@TABLE.lowers("randint.low", "randint.low_generator")
def randint_between(call: Call, low: int, high: int, *_: Any) -> None:
    _whole_numbers(call, low, high)


def _whole_numbers(call: Call, low: int, high: int) -> None:
    drawn = unary(call, "Floor", uniform(call, low, high))
    call.yields(call.typed(drawn, call.result.dtype))
