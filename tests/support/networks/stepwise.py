"""Networks in which a comparison or rounding decides: derivatives don't see it, so dimensions are by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.support.networks.common import ROWS, Network, normal
from tests.support.networks.selection import two

BIG = normal(4, 3, size=2.0)

NETWORKS: dict[str, Network] = {
    "sign": (lambda: two(lambda a, b: a.sign() * b), ROWS),
    "relu_by_mask": (lambda: two(lambda a, b: a * (b > 0).to(a.dtype)), ROWS),
    "mask_at_one": (lambda: two(lambda a, b: a * (b > 1).to(a.dtype)), ROWS),
    "mask_compared": (lambda: two(lambda a, b: (a > b).to(a.dtype)), ROWS),
    "topk_mask": (
        lambda: two(lambda a, b: a * (a >= torch.topk(a, 2, -1).values[:, -1:]).to(a.dtype) + b),
        ROWS,
    ),
    "argmax_one_hot": (
        lambda: two(lambda a, b: F.one_hot(a.argmax(-1), 4).to(b.dtype) * b),
        ROWS,
    ),
    "threshold": (lambda: two(lambda a, b: F.threshold(a, 0.7, 0.0) * b), BIG),
    "hard_shrink": (lambda: two(lambda a, b: F.hardshrink(a, 0.7) * b), BIG),
    "round": (lambda: two(lambda a, b: a.round() * b), BIG),
    "fake_quantised": (
        lambda: two(lambda a, b: torch.fake_quantize_per_tensor_affine(a, 0.1, 0, -128, 127) * b),
        BIG,
    ),
}

# The four rows of b are free (the next layer takes them back) unless said otherwise.
DIMENSIONS = {
    "sign": 8,  # and the rows of a
    "relu_by_mask": 8,  # each row of b may scale: only its sign counts
    "mask_at_one": 4,  # a alone
    "mask_compared": 4,  # rows of a with the same rows of b
    "topk_mask": 1,  # all of a and b together
    "argmax_one_hot": 5,  # and a as a whole
    "threshold": 4,
    "hard_shrink": 4,
    "round": 4,
    "fake_quantised": 4,
}
