"""Cases of interpolation, sampling and transforms."""

from __future__ import annotations

import numpy as np

from tools.validation.case import ABSENT, Case, inside_one, positive
from tools.validation.maker import Maker, cases


@cases("Resize")
def resize(m: Maker) -> Case:
    shape = (1, m.integer(1, 2), 2, 3)
    mode = m.choose(["nearest", "linear", "cubic"])
    how = m.choose(["half_pixel", "asymmetric", "align_corners", "tf_crop_and_resize"])
    attributes = {"mode": mode, "coordinate_transformation_mode": how}
    roi = ABSENT
    if how == "tf_crop_and_resize":
        roi = m.fixed([0, 0, 0.1, 0.2, 1, 1, 0.9, 1.4], np.float64)
        attributes["extrapolation_value"] = m.choose([0.0, 1.5])
    if m.chance():
        return m.case(
            m.real(shape, along=(0, 1)),
            roi,
            m.fixed([1, 1, *m.choose([(1.5, 2), (2, 1), (1, 1.2)])], np.float32),
            **attributes,
        )
    return m.case(
        m.real(shape, along=(0, 1)),
        roi,
        ABSENT,
        m.fixed([*shape[:2], m.integer(2, 4), m.integer(1, 4)]),
        **attributes,
    )


@cases("Upsample")
def upsample(m: Maker) -> Case:
    return m.case(
        m.real((1, 2, 2, 2), along=(0, 1)), m.fixed([1, 1, 2, m.choose([1, 2])], np.float32), mode="nearest"
    )


@cases("GridSample")
def grid_sample(m: Maker) -> Case:
    return m.case(
        m.real((1, m.integer(1, 2), 3, 3), along=(0, 1)), m.real((1, 2, 2, 2), inside_one, along=(0,)),
        mode=m.choose(["linear", "nearest"]),
        padding_mode=m.choose(["zeros", "border"]), align_corners=m.integer(0, 1),
    )  # fmt: skip


@cases("DFT")
def fourier(m: Maker) -> Case:
    return m.case(m.real((2, 4, 1), along=(0,)), ABSENT, m.fixed(1), onesided=m.integer(0, 1))


@cases("STFT")
def short_fourier(m: Maker) -> Case:
    return m.case(
        m.real((1, 8, 1), along=(0,)), m.fixed(2), m.real((4,), positive, along=()), m.fixed(4), onesided=1
    )
