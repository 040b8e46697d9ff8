"""Cases of operators that place entries among others."""

from __future__ import annotations

import numpy as np

from graphnorm.ir import Array
from tools.validation.case import Case, Rng
from tools.validation.maker import Maker, cases


def _distinct(m: Maker, shape: tuple[int, ...], axis: int, below: int) -> Array:
    """Indices without repetition along `axis`, as scattering wants them."""
    index = np.stack(
        [m.rng.permutation(below)[: shape[axis]] for _ in range(int(np.prod(shape)) // shape[axis])]
    )
    moved = [n for a, n in enumerate(shape) if a != axis]
    return np.asarray(np.moveaxis(index.reshape(*moved, shape[axis]), -1, axis))


@cases("ScatterElements", "Scatter")
def scatter_elements(m: Maker) -> Case:
    shape = m.shape(1, 2, entries=8, smallest=2)
    axis = m.integer(0, len(shape) - 1)
    size = tuple(m.integer(1, n - 1) if a == axis else m.integer(1, n) for a, n in enumerate(shape))
    how = {} if m.op == "Scatter" else {"reduction": m.choose(["none", "none", "add", "mul", "max", "min"])}
    index = m.fixed(_distinct(m, size, axis, shape[axis]))
    if m.chance(0.3):
        size = tuple(size[axis] if a == axis else n for a, n in enumerate(shape))

        def sample(rng: Rng, wanted: tuple[int, ...]) -> Array:
            del rng
            return _distinct(m, wanted, axis, shape[axis])

        index = m.discrete(size, sample, run_time=1.0)
    return m.case(m.real(shape), index, m.real(size), axis=axis, **how)


@cases("ScatterND")
def scatter_nd(m: Maker) -> Case:
    shape = m.shape(1, 2, entries=8, smallest=2)
    depth = m.integer(1, len(shape))
    places = np.argwhere(np.ones(shape[:depth]))
    chosen = places[m.rng.permutation(len(places))[: m.integer(1, len(places) - 1)]]
    return m.case(
        m.real(shape), m.fixed(chosen), m.real((len(chosen), *shape[depth:])),
        reduction=m.choose(["none", "none", "add", "mul", "max", "min"]),
    )  # fmt: skip


@cases("TensorScatter")
def tensor_scatter(m: Maker) -> Case:
    write = m.discrete((2,), lambda rng, size: rng.integers(0, 2, size))
    return m.case(m.real((2, 3, 2), along=(2,)), m.real((2, 1, 2), along=(2,)), write, axis=-2, mode="linear")


@cases("Col2Im")
def col2im(m: Maker) -> Case:
    return m.case(m.real((1, 2 * 4, 4), along=(1,)), m.fixed([3, 3]), m.fixed([2, 2]))


@cases("OneHot")
def one_hot(m: Maker) -> Case:
    return m.case(m.index((2, 2), 3), m.fixed(3), m.real((2,)), axis=m.choose([-1, 0, 1]))


@cases("MaxUnpool")
def max_unpool(m: Maker) -> Case:
    index = np.array([[[[0, 3], [9, 14]]]])
    return m.case(m.real((1, 1, 2, 2), along=(0, 1)), m.fixed(index), kernel_shape=[2, 2], strides=[2, 2])


@cases("NonZero", "Unique")
def positions(m: Maker) -> Case:
    return m.case(m.real((3,)))


@cases("EyeLike")
def like(m: Maker) -> Case:
    return m.case(m.real((2, 2)))
