"""Cases of pools."""

from __future__ import annotations

from typing import Any

from tools.validation.case import Case
from tools.validation.maker import Maker, cases


def _window(m: Maker, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {"kernel_shape": [2] * rank, "strides": [m.integer(1, 2)] * rank}
    if found["strides"][0] == 1 and m.chance(0.4):
        found["pads"] = [m.integer(0, 1) for _ in range(2 * rank)]
    return found


def _image(m: Maker, rank: int) -> tuple[int, ...]:
    return (m.integer(1, 2), m.integer(1, 2), *(m.integer(2, 3) for _ in range(rank)))


@cases("MaxPool")
def max_pool(m: Maker) -> Case:
    rank = m.integer(1, 2)
    return m.case(m.real(_image(m, rank), along=(0, 1)), results=m.integer(1, 2), **_window(m, rank))


@cases("AveragePool")
def average_pool(m: Maker) -> Case:
    rank = m.integer(1, 2)
    return m.case(
        m.real(_image(m, rank), along=(0, 1)), count_include_pad=m.integer(0, 1), **_window(m, rank)
    )


@cases("LpPool")
def lp_pool(m: Maker) -> Case:
    rank = m.integer(1, 2)
    return m.case(m.real(_image(m, rank), along=(0, 1)), p=m.integer(1, 3), **_window(m, rank))


@cases("GlobalAveragePool", "GlobalMaxPool")
def global_pool(m: Maker) -> Case:
    return m.case(m.real(_image(m, m.integer(1, 2)), along=(0, 1)))


@cases("GlobalLpPool")
def global_lp_pool(m: Maker) -> Case:
    return m.case(m.real(_image(m, m.integer(1, 2)), along=(0, 1)), p=m.integer(1, 3))


@cases("aten::adaptive_avg_pool", "aten::adaptive_max_pool")
def adaptive_pool(m: Maker) -> Case:
    rank = m.integer(1, 2)
    return m.case(
        m.real(_image(m, rank), along=(0, 1)),
        kernel_rank=rank,
        output_size=[m.integer(1, 2) for _ in range(rank)],
    )


@cases("RoiAlign")
def roi_align(m: Maker) -> Case:
    rois = m.fixed([[0.0, 0.0, 2.0, 1.5], [0.5, 0.5, 1.5, 2.0]], float)
    return m.case(
        m.real((1, 2, 3, 3), along=(0, 1)),
        rois,
        m.fixed([0, 0]),
        output_height=2,
        output_width=2,
        mode=m.choose(["avg", "max"]),
    )


@cases("MaxRoiPool")
def max_roi_pool(m: Maker) -> Case:
    return m.case(
        m.real((1, 2, 3, 3), along=(0, 1)), m.fixed([[0.0, 0, 0, 2, 2]], float), pooled_shape=[1, 1]
    )
