"""Cases of normalisations; an epsilon is either 0.5, so that it counts, or 0."""

from __future__ import annotations

from tools.validation.case import Case, positive
from tools.validation.maker import Maker, cases


def _epsilon(m: Maker) -> float:
    return float(m.choose([0.5, 0.5, 0.0]))


@cases("BatchNormalization")
def batch_norm(m: Maker) -> Case:
    channels = m.integer(1, 3)
    x = m.real((m.integer(2, 3), channels, *((2,) if m.chance() else ())), along=(1,))
    gain, bias, mean = (m.parameter((channels,)) for _ in range(3))
    train = int(m.chance(0.3))
    return m.case(x, gain, bias, mean, m.parameter((channels,), positive), epsilon=0.5, training_mode=train)


@cases("LayerNormalization", "RMSNormalization")
def layer_norm(m: Maker) -> Case:
    shape = m.shape(2, 3, entries=12, smallest=2)
    axis = m.integer(-min(2, len(shape)), -1)
    affine = [m.maybe(m.parameter(shape[axis:])) for _ in range(2 if m.op == "LayerNormalization" else 1)]
    return m.case(m.real(shape), *affine, axis=axis, epsilon=_epsilon(m))


@cases("GroupNormalization")
def group_norm(m: Maker) -> Case:
    channels = m.choose([2, 4])
    x = m.real((m.integer(1, 2), channels, 2))
    return m.case(
        x,
        m.maybe(m.parameter((channels,))),
        m.maybe(m.parameter((channels,))),
        num_groups=m.choose([1, 2]),
        epsilon=_epsilon(m),
    )


@cases("InstanceNormalization")
def instance_norm(m: Maker) -> Case:
    channels = m.integer(1, 2)
    return m.case(
        m.real((m.integer(1, 2), channels, 3)),
        m.maybe(m.parameter((channels,))),
        m.maybe(m.parameter((channels,))),
        epsilon=_epsilon(m),
    )


@cases("LpNormalization")
def lp_norm(m: Maker) -> Case:
    shape = m.shape(1, 3, smallest=2)
    return m.case(m.real(shape), axis=m.axis(len(shape)), p=m.integer(1, 2))


@cases("MeanVarianceNormalization")
def mean_variance(m: Maker) -> Case:
    return m.case(m.real((2, 2, 2, 2)), axes=m.choose([[0, 2, 3], [2, 3], [1]]))


@cases("LRN")
def local_response(m: Maker) -> Case:
    return m.case(m.real((1, 4, 1, 2), along=(1,)), size=3, alpha=1.5, beta=0.75, bias=1.0)
