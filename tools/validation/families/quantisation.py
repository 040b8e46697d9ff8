"""Cases of quantising operators."""

from __future__ import annotations

import numpy as np

from tools.validation.case import Case, positive
from tools.validation.maker import Maker, cases


@cases("QuantizeLinear")
def quantize(m: Maker) -> Case:
    scale = m.choose([m.fixed(0.1, np.float64), m.real((), positive), m.real((3,), positive)])
    zero = m.fixed(np.zeros(scale.shape), np.int8)
    return m.case(m.real((2, 3)), scale, zero, axis=1)


@cases("DequantizeLinear")
def dequantize(m: Maker) -> Case:
    levels = m.discrete((2, 3), lambda rng, size: rng.integers(1, 100, size).astype(np.int8), run_time=0.5)
    return m.case(levels, m.real(m.choose([(), (3,)]), positive), axis=1)


@cases("DynamicQuantizeLinear")
def dynamic_quantize(m: Maker) -> Case:
    return m.case(m.real((2, 3)), results=3)
