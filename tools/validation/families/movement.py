"""Cases of data movement."""

from __future__ import annotations

from typing import Any

import numpy as np

from tools.validation.case import ABSENT, Case
from tools.validation.maker import Maker, cases


def _refactored(m: Maker, size: int) -> list[int]:
    """Random factors of `size`, in random order."""
    factors: list[int] = []
    while size > 1:
        divisor = m.choose([d for d in range(2, size + 1) if size % d == 0])
        factors.append(divisor)
        size //= divisor
    factors += [1] * m.integer(0, 1)
    m.rng.shuffle(factors)
    return factors or [1]


@cases("Reshape")
def reshape(m: Maker) -> Case:
    shape = m.shape(1, 4)
    target = _refactored(m, int(np.prod(shape)))
    if m.chance(0.3):
        target[m.integer(0, len(target) - 1)] = -1
    return m.case(m.real(shape), m.fixed(target))


@cases("Flatten")
def flatten(m: Maker) -> Case:
    shape = m.shape(1, 4)
    return m.case(m.real(shape), axis=m.integer(0, len(shape)))


@cases("Squeeze")
def squeeze(m: Maker) -> Case:
    shape = m.shape(1, 4)
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    axes = [] if not ones or m.chance(0.3) else [m.fixed([m.choose(ones)])]
    return m.case(m.real(shape), *axes)


@cases("Unsqueeze")
def unsqueeze(m: Maker) -> Case:
    shape = m.shape(1, 3)
    axes = (
        sorted({m.integer(0, len(shape) + 1) for _ in range(2)}) if m.chance() else [m.axis(len(shape) + 1)]
    )
    if len(axes) == 1 and axes[0] > len(shape):
        axes = [0]
    return m.case(m.real(shape), m.fixed(axes))


@cases("Transpose")
def transpose(m: Maker) -> Case:
    shape = m.shape(1, 4)
    perm: dict[str, Any] = {"perm": [int(a) for a in m.rng.permutation(len(shape))]}
    return m.case(m.real(shape), **(perm if m.chance(0.8) else {}))


@cases("Slice")
def slice_(m: Maker) -> Case:
    shape = m.shape(1, 3)
    axes = sorted(int(a) for a in m.rng.permutation(len(shape))[: m.integer(1, len(shape))])
    starts, ends, steps = [], [], []
    for axis in axes:
        size = shape[axis]
        begin, step = m.integer(0, size - 1), m.choose([1, 1, 2, -1])
        starts.append(begin - size * m.integer(0, 1))
        ends.append(m.choose([size, 100]) if step > 0 else m.choose([-size - 1, -100]))
        steps.append(step)
    given = [m.fixed(starts), m.fixed(ends), m.fixed(axes), m.fixed(steps)]
    return m.case(m.real(shape), *given)


@cases("Split")
def split(m: Maker) -> Case:
    shape = m.shape(1, 3)
    axis = m.axis(len(shape))
    size = shape[axis]
    first = m.integer(0, size)
    sizes = [s for s in (first, size - first) if s]
    return m.case(m.real(shape), m.fixed(sizes), results=len(sizes), axis=axis)


@cases("Gather")
def gather(m: Maker) -> Case:
    shape = m.shape(1, 3)
    axis = m.axis(len(shape))
    return m.case(m.real(shape), m.index(m.choose([(), (1,), (2,), (3,), (2, 2)]), shape[axis]), axis=axis)


@cases("GatherElements")
def gather_elements(m: Maker) -> Case:
    shape = m.shape(1, 3)
    axis = m.integer(0, len(shape) - 1)
    size = [m.integer(1, n) for n in shape]
    size[axis] = m.integer(1, 3)
    read = all(a == axis or n == whole for a, (n, whole) in enumerate(zip(size, shape, strict=True)))
    return m.case(m.real(shape), m.index(size, shape[axis], run_time=0.4 if read else 0.0), axis=axis)


@cases("GatherND")
def gather_nd(m: Maker) -> Case:
    shape = m.shape(2, 3, smallest=2)
    batch = m.integer(0, 1)
    depth = m.integer(1, len(shape) - batch)
    lead = shape[:batch]
    return m.case(
        m.real(shape),
        m.index((*lead, m.integer(1, 2), depth), min(shape[batch : batch + depth])),
        batch_dims=batch,
    )


@cases("Expand")
def expand(m: Maker) -> Case:
    shape = m.shape(1, 3, entries=9)
    target = [n if n > 1 else m.choose([1, 3]) for n in shape]
    return m.case(m.real(shape), m.fixed([2] * m.integer(0, 1) + target))


@cases("Tile")
def tile(m: Maker) -> Case:
    shape = m.shape(1, 3, entries=9)
    return m.case(m.real(shape), m.fixed([m.integer(1, 2) for _ in shape]))


@cases("Concat")
def concat(m: Maker) -> Case:
    shape = list(m.shape(1, 3, entries=8))
    axis = m.axis(len(shape))
    parts = []
    for _ in range(m.integer(1, 3)):
        shape[axis] = m.integer(1, 2)
        parts.append(m.real(shape))
    return m.case(*parts, axis=axis)


@cases("Pad")
def pad(m: Maker) -> Case:
    mode = m.choose(["constant", "constant", "constant", "reflect", "edge", "wrap"])
    shape = m.shape(1, 3, entries=8, smallest=2)
    axes = sorted(int(a) for a in m.rng.permutation(len(shape))[: m.integer(1, len(shape))])
    low = -1 if mode == "constant" else 0
    pads = [m.integer(low, 1) for _ in range(2 * len(axes))]
    for i, axis in enumerate(axes):  # leave something
        if shape[axis] + pads[i] + pads[i + len(axes)] < 1:
            pads[i] = 0
    value = m.choose(
        [ABSENT, m.fixed(0.0, np.float64), m.fixed(1.5, np.float64), m.fixed(-np.inf, np.float64)]
    )
    given = [value, m.fixed(axes)] if mode == "constant" else [ABSENT, m.fixed(axes)]
    along = None if mode == "constant" else tuple(axis for axis in range(len(shape)) if axis not in axes)
    return m.case(m.real(shape, along=along), m.fixed(pads), *given, mode=mode)


@cases("DepthToSpace")
def depth_to_space(m: Maker) -> Case:
    return m.case(
        m.real((m.integer(1, 2), 4 * m.integer(1, 2), 1, 2)), blocksize=2, mode=m.choose(["DCR", "CRD"])
    )


@cases("SpaceToDepth")
def space_to_depth(m: Maker) -> Case:
    return m.case(m.real((m.integer(1, 2), m.integer(1, 2), 2, 4)), blocksize=2)


@cases("ReverseSequence")
def reverse_sequence(m: Maker) -> Case:
    shape = (m.integer(2, 3), m.integer(2, 3), m.integer(1, 2))
    time = m.integer(0, 1)
    lengths = m.discrete((shape[1 - time],), lambda rng, size: rng.integers(1, shape[time] + 1, size))
    return m.case(m.real(shape, along=(1 - time, 2)), lengths, time_axis=time, batch_axis=1 - time)


@cases("CenterCropPad")
def center_crop_pad(m: Maker) -> Case:
    shape = m.shape(1, 2)
    return m.case(m.real(shape), m.fixed([m.integer(1, 4) for _ in shape]))


@cases("Compress")
def compress(m: Maker) -> Case:
    shape = m.shape(1, 2)
    axis = m.axis(len(shape))
    keep = m.rng.random(shape[axis]) < 0.6
    keep[0] = True
    return m.case(m.real(shape), m.fixed(keep, np.bool_), axis=axis)


@cases("Shape", "Size")
def metadata(m: Maker) -> Case:
    return m.case(m.real(m.shape()))
